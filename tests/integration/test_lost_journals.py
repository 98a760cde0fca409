"""Segments of internal topics deleted under a stopped broker: reported in `status`, in the log and by their actors.

Each topic gets a segment for each run of the broker, as it would by its size.
"""

import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from live_trees import actor, read_topic, until
from log_batches import unlimited
from patience import TIMEOUT_S
from planaria import Broker, Client
from planaria.actors.log.log import PartitionLog
from planaria.supervisor.broker import LOG_FILE

pytestmark = pytest.mark.processes

ALONE = {
    "offsets_partitions": 1,
    "delayed_partitions": 1,
    "transaction_coordinators": 1,
    "hang_timeout_ms": 60_000,
}
RUNS = 3


def use_group(broker: Broker, number: int) -> None:
    with broker.client.consumer("G", ["ORDERS"], auto_offset_reset="earliest", auto_commit=False) as consumer:
        assert consumer.poll(TIMEOUT_S)
        consumer.commit({("ORDERS", 0): number + 1})


def use_transactions(broker: Broker, number: int) -> None:
    with broker.client.producer(transactional_id="T") as producer, producer.transaction() as transaction:
        transaction.publish("ORDERS", b"%d" % number)
    # A commit is durable before its markers are: no one could write the last one without its coordinator.
    read_topic(broker.client, "ORDERS")


def use_delay(broker: Broker, number: int) -> None:
    broker.publish("ORDERS", None, b"late %d" % number, delay=3600)


class Journal:
    def __init__(
        self, topic: str, owner: str, snapshots: str | None, use: Callable[[Broker, int], None]
    ) -> None:
        self.topic, self.owner, self.snapshots, self.use = topic, owner, snapshots, use

    def folder(self, data_dir: Path) -> Path:
        return data_dir / "topics" / self.topic / "0"

    @property
    def partition(self) -> str:
        return f"partition/{self.topic}/0"


JOURNALS = {
    "groups": Journal("__offsets", "coordinator/G", "groups", use_group),
    "transactions": Journal("__transactions", "transactions/0", None, use_transactions),
    "delayed": Journal("__delayed", "scheduler/0", "delayed", use_delay),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the data directory of a stopped broker that has used a journal, to be copied."""

    @cache
    def directory(name: str) -> Path:
        path = tmp_path_factory.mktemp(name) / "data"
        write(path, JOURNALS[name])
        return path

    return directory


def segments_in(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.log"))
    assert len(found) == RUNS
    return found


def write(data_dir: Path, journal: Journal) -> None:
    for number in range(RUNS):
        with Broker(data_dir, **ALONE) as broker:
            if number == 0:
                broker.create_topic("ORDERS", 1)
                for value in range(5):
                    broker.publish("ORDERS", None, value)
            journal.use(broker, number)
        if number < RUNS - 1:
            log = PartitionLog.open(journal.folder(data_dir), unlimited(), int(time.time() * 1000))
            log._roll()
            log.close()


def alarms(client: Client, address: str) -> tuple[str, ...]:
    return tuple(alarm for alarm in actor(client, address).alarms if "records are lost" in alarm)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("groups", "newest"),
        ("transactions", "first"),
        ("delayed", "middle"),
        *(
            pytest.param(*case, marks=pytest.mark.chaos)
            for case in [
                ("groups", "first"),
                ("groups", "middle"),
                ("transactions", "middle"),
                ("delayed", "newest"),
            ]
        ),
    ],
)
def test_a_lost_segment_that_no_snapshot_covers_is_told_with_its_offsets(
    written: Callable[[str], Path], data_dir: Path, name: str, which: str
) -> None:
    journal = JOURNALS[name]
    shutil.copytree(written(name), data_dir)
    segments = segments_in(journal.folder(data_dir))
    for path in data_dir.glob(f"{journal.snapshots}/*.snapshot"):
        path.unlink()
    index = {"first": 0, "middle": 1, "newest": 2}[which]
    end = log_end(journal.folder(data_dir))
    first, following = [*[int(path.stem) for path in segments], end][index : index + 2]
    segments[index].unlink()
    lost = f"offsets {first} to {following - 1} are lost"
    with Broker(data_dir, **ALONE) as broker:
        client = broker.client
        [alarm] = until(lambda: alarms(client, journal.partition), "the partition tells it")
        assert lost in alarm

        def quarantined() -> str | None:
            found = actor(client, journal.owner)
            return found.reason if found.state == "quarantined" else None

        reason = until(quarantined, "the owner tells it") or ""
        assert reason.startswith("RecordsLost"), reason
        assert "missing" in reason
        assert lost in reason
        assert actor(client, journal.owner).restarts == 0, "nothing changes by another try"
        assert len(read_topic(client, "ORDERS")) >= 5
        assert client.describe_topic(journal.topic).partitions[0].log_end_offset == end
    assert lost in (data_dir / LOG_FILE).read_text()


def log_end(folder: Path) -> int:
    log = PartitionLog.open(folder, unlimited(), int(time.time() * 1000))
    try:
        return log.log_end_offset
    finally:
        log.close()


@pytest.mark.parametrize("which", ["first", pytest.param("middle", marks=pytest.mark.chaos), "newest"])
def test_a_coordinator_goes_on_from_a_snapshot_that_covers_the_loss(
    written: Callable[[str], Path], data_dir: Path, which: str
) -> None:
    journal = JOURNALS["groups"]
    shutil.copytree(written("groups"), data_dir)
    segments = segments_in(journal.folder(data_dir))
    segments[{"first": 0, "middle": 1, "newest": 2}[which]].unlink()
    with Broker(data_dir, **ALONE) as broker:
        client = broker.client
        until(lambda: alarms(client, journal.partition), "the partition tells it")
        until(lambda: actor(client, journal.owner).state == "ready", "the coordinator is back")
        assert client.group_offsets("G")[("ORDERS", 0)] is not None
        use_group(broker, RUNS)
