"""Identity outlives the catalog: what is acknowledged after a restore is stored, whatever was restored."""

import shutil
from pathlib import Path

import pytest

from live_trees import read_topic
from planaria import Broker

pytestmark = pytest.mark.processes


def publish_by_new_producers(broker: Broker, topic: str, values: range) -> None:
    for value in values:
        with broker.client.producer() as producer:
            producer.publish(topic, value).result(20)


def test_nothing_acknowledged_vanishes_under_an_older_catalog(data_dir: Path, tmp_path: Path) -> None:
    """Producer ids that the older catalog does not know of are in the logs already."""
    with Broker(data_dir) as broker:
        broker.create_topic("ORDERS", 1)
        shutil.copy(data_dir / "catalog.json", tmp_path / "backup.json")
        publish_by_new_producers(broker, "ORDERS", range(6))
    shutil.copy(tmp_path / "backup.json", data_dir / "catalog.json")
    with Broker(data_dir) as broker:
        publish_by_new_producers(broker, "ORDERS", range(6, 12))
        assert [message.data for message in read_topic(broker.client, "ORDERS")] == list(range(12))
