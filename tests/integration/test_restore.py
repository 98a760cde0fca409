"""Ids outlive the catalog: acknowledged records after a restore are stored, whatever was restored."""

import shutil
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import actor, read_topic, until, until_state
from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.launch import StartFailed

pytestmark = pytest.mark.processes


def publish_by_new_producers(broker: Broker, topic: str, values: range) -> None:
    for value in values:
        with broker.client.producer() as producer:
            producer.publish(topic, value).result(TIMEOUT_S)


def test_nothing_acknowledged_vanishes_under_an_older_catalog(data_dir: Path, tmp_path: Path) -> None:
    """The logs already contain producer ids that the older catalog does not know."""
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 1)
        shutil.copy(data_dir / "catalog.json", tmp_path / "backup.json")
        publish_by_new_producers(broker, "ORDERS", range(6))
    shutil.copy(tmp_path / "backup.json", data_dir / "catalog.json")
    with Broker(data_dir) as broker:
        publish_by_new_producers(broker, "ORDERS", range(6, 12))
        assert [message.data for message in read_topic(broker.client, "ORDERS")] == list(range(12))


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_catalog_that_is_gone_or_damaged_refuses_in_one_line_and_is_recovered(
    data_dir: Path, content: bytes | None
) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 2, retention_ms=7_200_000)
        before = broker.client.describe_topic("ORDERS")
        broker.publish("ORDERS", "k", 1)
        with broker.client.consumer("G", ["ORDERS"], auto_offset_reset="earliest") as consumer:
            assert [message.data for message in consumer.poll(TIMEOUT_S)] == [1]
            consumer.commit()
    (data_dir / "catalog.json").unlink()
    if content is not None:
        (data_dir / "catalog.json").write_bytes(content)

    with pytest.raises(StartFailed) as failed:
        Broker(data_dir)
    assert "catalog.json" in str(failed.value)
    assert "planaria recover --catalog" in str(failed.value)
    assert "\n" not in str(failed.value)

    assert planaria("recover", "--catalog", "--data", str(data_dir)).returncode == 0
    with Broker(data_dir) as broker:
        after = broker.client.describe_topic("ORDERS")
        assert (after.topic_id, after.config) == (before.topic_id, before.config)
        assert broker.client.list_groups() == ["G"]
        broker.publish("ORDERS", "k", 2)
        with broker.client.consumer("G", ["ORDERS"], auto_offset_reset="earliest") as consumer:
            assert [message.data for message in consumer.poll(TIMEOUT_S)] == [2]


def test_a_topic_that_the_older_catalog_lacks_is_told_and_never_shown_under_its_name(
    data_dir: Path, tmp_path: Path
) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("KEPT", 1)
        shutil.copy(data_dir / "catalog.json", tmp_path / "backup.json")
        broker.create_topic("ORDERS", 1)
        broker.publish("ORDERS", "k", "old")
    shutil.copy(tmp_path / "backup.json", data_dir / "catalog.json")
    with Broker(data_dir) as broker:
        alarms = until(lambda: actor(broker.client, "controller").alarms, "the alarm")
        assert any("'ORDERS'" in alarm for alarm in alarms)
        broker.create_topic("ORDERS", 1)
        broker.publish("ORDERS", "k", "new")
        assert [message.data for message in read_topic(broker.client, "ORDERS")] == ["new"]


def test_a_lost_topic_folder_is_told_and_begins_again_where_the_operator_says(data_dir: Path) -> None:
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 1)
        broker.create_topic("KEPT", 1)
        broker.publish("ORDERS", "k", "old")
    shutil.rmtree(data_dir / "topics" / "ORDERS")
    with Broker(data_dir) as broker:
        broker.publish("KEPT", "k", 1)
        down = until_state(broker.client, "partition/ORDERS/0", "quarantined")
        assert "PartitionLost: topics/ORDERS/0 was created and is missing" in (down.reason or "")
    made = planaria("recover", "--partition", "ORDERS/0", "--from-offset", "1000", "--data", str(data_dir))
    assert made.returncode == 0, made.stderr
    with Broker(data_dir) as broker:
        assert broker.publish("ORDERS", "k", "new").offset == 1000
