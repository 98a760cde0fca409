"""The procedures of docs/operations.md for missing files work as described, on a whole broker."""

import shutil
import time
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import actor, read_topic, until_state
from log_batches import unlimited
from patience import TIMEOUT_S
from planaria import Broker, Client
from planaria.actors.log.log import PartitionLog

pytestmark = pytest.mark.processes

OFFSETS = Path("topics/__offsets/0")
COORDINATOR = "coordinator/G"
ONE = {"offsets_partitions": 1}


def commit(broker: Broker, offset: int) -> None:
    with broker.client.consumer("G", ["ORDERS"], auto_offset_reset="earliest", auto_commit=False) as consumer:
        assert consumer.poll(TIMEOUT_S)
        consumer.commit({("ORDERS", 0): offset})


def committed(client: Client) -> int | None:
    return client.group_offsets("G").get(("ORDERS", 0))  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def stopped(data_dir: Path) -> Path:
    """Return a broker's data: 1 is committed in the first segment of `__offsets`, 2 in the second one."""
    for offset in (1, 2):
        with Broker(data_dir, **ONE) as broker:
            if offset == 1:
                broker.create_topic("ORDERS", 1)
                for value in range(5):
                    broker.publish("ORDERS", None, value)
            commit(broker, offset)
        if offset == 1:
            log = PartitionLog.open(data_dir / OFFSETS, unlimited(), int(time.time() * 1000))
            log._roll()
            log.close()
    assert len(list((data_dir / OFFSETS).glob("*.log"))) == 2
    return data_dir


def test_a_folder_that_is_brought_back_is_served_after_a_revival_and_a_lost_topic_can_be_deleted(
    data_dir: Path, tmp_path: Path
) -> None:
    with Broker(data_dir) as broker:
        for topic in ("ORDERS", "LOST"):
            broker.create_topic(topic, 1)
            broker.publish(topic, "k", topic)
    (data_dir / "topics" / "ORDERS").rename(tmp_path / "ORDERS")
    shutil.rmtree(data_dir / "topics" / "LOST")
    with Broker(data_dir) as broker:
        connect = ("--connect", broker.endpoint)
        for topic in ("ORDERS", "LOST"):
            until_state(broker.client, f"partition/{topic}/0", "quarantined")
        (tmp_path / "ORDERS").rename(data_dir / "topics" / "ORDERS")
        revived = planaria("revive", "partition/ORDERS/0", *connect)
        assert revived.returncode == 0, revived.stderr
        until_state(broker.client, "partition/ORDERS/0", "ready")
        assert [message.data for message in read_topic(broker.client, "ORDERS")] == ["ORDERS"]
        deleted = planaria("topic", "delete", "LOST", "--yes", *connect)
        assert deleted.returncode == 0, deleted.stderr
        assert "LOST" not in planaria("topic", "list", *connect).stdout


def test_a_segment_of_offsets_that_is_brought_back_brings_its_group_back(
    stopped: Path, tmp_path: Path
) -> None:
    (stopped / "groups" / "G.snapshot").unlink()
    first = min((stopped / OFFSETS).glob("*.log"))
    first.rename(tmp_path / first.name)
    with Broker(stopped, **ONE) as broker:
        assert "RecordsLost" in (until_state(broker.client, COORDINATOR, "quarantined").reason or "")
    (tmp_path / first.name).rename(first)
    with Broker(stopped, **ONE) as broker:
        until_state(broker.client, COORDINATOR, "ready")
        assert committed(broker.client) == 2
        assert not actor(broker.client, "partition/__offsets/0").alarms


def test_without_its_snapshot_a_group_goes_on_with_what_a_log_that_lost_its_end_has(stopped: Path) -> None:
    """Nothing in the partition's folder proves that the segment was there: the group's snapshot does."""
    newest = max((stopped / OFFSETS).glob("*.log"))
    for name in (newest.name, f"{newest.stem}.index", f"{newest.stem}.timeindex", "checkpoint"):
        (stopped / OFFSETS / name).unlink(missing_ok=True)
    for path in (stopped / OFFSETS).glob("*.snapshot"):
        path.unlink()
    with Broker(stopped, **ONE) as broker:
        reason = until_state(broker.client, COORDINATOR, "quarantined").reason or ""
        assert "records are missing from partition/__offsets/0" in reason
        assert "delete the snapshot" in reason
    (stopped / "groups" / "G.snapshot").unlink()
    with Broker(stopped, **ONE) as broker:
        until_state(broker.client, COORDINATOR, "ready")
        assert committed(broker.client) == 1
        commit(broker, 3)
        assert committed(broker.client) == 3
