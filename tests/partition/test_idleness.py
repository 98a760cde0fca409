"""Sleep of a partition: conditions, wake-ups, and activity that prevents it: the real process, a log in memory."""

from typing import Any

import pytest

from planaria.actors.partition.effects import ApplyRetention, Loss
from planaria.actors.partition.machine import IDLE_CHECK_MS
from planaria.actors.partition.upkeep import COMPACTION_CHECK_MS, MIN_SLEEP_MS, longest_sleep_ms
from planaria.transport.batch import TRANSACTIONAL
from planaria.transport.machine import StopRequested
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import Fetch, Produce
from planaria.transport.protocol.progress import ReportProgress
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.protocol.transactions import Marker, WriteMarkers
from simulated_partition import SimulatedPartition, a_batch

IDLE_MS = 10_000
DAY_MS = 24 * 3600 * 1000
TP: dict[str, Any] = {"topic": "ORDERS", "partition": 0}
PRODUCER = transactional_producer_id(0, 7)


@pytest.fixture
def partition() -> SimulatedPartition:
    return SimulatedPartition(idle_ms=IDLE_MS)


def publish(partition: SimulatedPartition, **sequencing: int) -> None:
    partition.ask(Produce(**TP), [a_batch(b"a", **sequencing)])


def test_without_traffic_it_sleeps(partition: SimulatedPartition) -> None:
    partition.advance(IDLE_MS - 1)
    assert not partition.stopped
    partition.advance(1)
    assert partition.sleep is not None
    assert partition.files.marks == {"partition.asleep"}


def test_zero_is_never() -> None:
    partition = SimulatedPartition()
    partition.advance(100 * IDLE_MS)
    assert not partition.stopped


def test_every_request_begins_the_time_anew(partition: SimulatedPartition) -> None:
    for _ in range(3):
        partition.advance(IDLE_MS - 1)
        publish(partition)
    assert not partition.stopped
    partition.advance(IDLE_MS)
    assert partition.sleep is not None


def test_it_wakes_with_all_it_had(partition: SimulatedPartition) -> None:
    publish(partition)
    partition.advance(IDLE_MS)
    partition.crash(is_power_lost=False)
    assert partition.files.marks == set()
    reply = partition.ask(Fetch(**TP, offset=0), as_json=True)
    assert reply is not None
    assert [record.value for record in reply.body.records] == [b"a"]  # type: ignore[union-attr]
    assert not partition.stopped


def test_who_waits_for_records_keeps_it_awake(partition: SimulatedPartition) -> None:
    partition.dispatch(partition.received(Fetch(**TP, offset=0, max_wait_ms=3 * IDLE_MS)))
    partition.advance(3 * IDLE_MS - 1)
    assert not partition.stopped
    partition.advance(1 + IDLE_CHECK_MS)
    assert partition.sleep is not None


def test_an_open_transaction_keeps_it_awake(partition: SimulatedPartition) -> None:
    batch = a_batch(b"a", attributes=TRANSACTIONAL, producer_id=PRODUCER, producer_epoch=0, base_sequence=0)
    partition.ask(Produce(**TP), [batch])
    partition.advance(10 * IDLE_MS)
    assert not partition.stopped
    partition.ask(WriteMarkers(**TP, markers=[Marker(PRODUCER, 0, True)]))
    partition.advance(IDLE_MS + IDLE_CHECK_MS)
    assert partition.sleep is not None


def test_retention_looks_once_more_before_it_sleeps(partition: SimulatedPartition) -> None:
    partition.advance(IDLE_MS)
    assert ApplyRetention(None) in partition.performed


def test_compaction_is_done_first() -> None:
    partition = SimulatedPartition(TopicConfig(cleanup="compact"), idle_ms=1_000)
    publish(partition)
    partition.slices_due = 1_000
    partition.advance(COMPACTION_CHECK_MS)
    assert not partition.stopped
    partition.advance(COMPACTION_CHECK_MS)
    assert partition.sleep is not None
    assert partition.slices_due == 0


def test_known_damage_keeps_the_alarm_up(partition: SimulatedPartition) -> None:
    partition.machine._damage.on_loss(Loss(0, 1, "gone"))
    partition.advance(10 * IDLE_MS)
    assert not partition.stopped


def test_what_is_known_of_the_groups_is_written_first() -> None:
    partition = SimulatedPartition(TopicConfig(retain_until_consumed=True), idle_ms=200)
    publish(partition)
    for offset in (0, 1):
        report = ReportProgress(
            **TP, topic_id="t1", group="g", epoch=1, offset=offset, leader_epoch=None, has_members=False
        )
        partition.ask(report)
    partition.advance(200)
    assert not partition.stopped
    partition.advance(2_000)
    assert partition.sleep is not None
    assert partition.groups_file is not None
    partition.crash(is_power_lost=False)
    assert partition.machine._backlog.consumed_offset == 1


def test_a_stop_comes_before_sleep(partition: SimulatedPartition) -> None:
    partition.dispatch(partition.received(Produce(**TP), [a_batch(b"a")]))
    partition.dispatch(StopRequested(deadline=5_000))
    partition.advance(10 * IDLE_MS)
    assert partition.stopped
    assert partition.sleep is None


@pytest.mark.parametrize(
    ("config", "sleep_ms"),
    [
        (TopicConfig(retention_ms=-1), None),
        (TopicConfig(retention_ms=2 * DAY_MS), DAY_MS),
        (TopicConfig(retention_ms=2 * DAY_MS, segment_ms=DAY_MS), DAY_MS // 2),
        (TopicConfig(retention_ms=1_000), MIN_SLEEP_MS),
        (TopicConfig(cleanup="compact", retention_ms=-1, delete_retention_ms=DAY_MS), DAY_MS // 2),
        (
            TopicConfig(retention_ms=8 * DAY_MS, retain_until_consumed=True, retain_max_ms=6 * DAY_MS),
            3 * DAY_MS,
        ),
    ],
)
def test_it_has_to_be_woken_before_something_is_too_old(config: TopicConfig, sleep_ms: int | None) -> None:
    assert longest_sleep_ms(config, 1) == sleep_ms
    assert longest_sleep_ms(config, 0) is None, "in an empty log nothing ages"


def test_the_machine_says_when_it_has_to_be_woken() -> None:
    partition = SimulatedPartition(TopicConfig(retention_ms=2 * DAY_MS), idle_ms=IDLE_MS)
    publish(partition)
    partition.advance(IDLE_MS)
    assert partition.sleep is not None
    assert partition.sleep.wake_after_ms == DAY_MS
