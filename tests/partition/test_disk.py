"""Producers are refused before the disk is full, and until there is room again; everything else goes on."""

from planaria.actors.partition.disk import MEASURE_AFTER_BYTES, MEASURE_AFTER_MS, MEASURE_AGAIN_MS
from planaria.transport.protocol.data import Fetch, FetchReply, Produce, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.topics import DeleteRecords, DeleteRecordsReply
from simulated_partition import SimulatedPartition, a_batch

RESERVE = 16 * MEASURE_AFTER_BYTES


def produce(partition: SimulatedPartition, size_bytes: int = 1) -> ProduceReply | ErrorBody:
    reply = partition.ask(Produce(topic="ORDERS", partition=0), [a_batch(b"v" * size_bytes)])
    assert reply is not None
    return reply.body  # type: ignore[return-value]


def is_refused(partition: SimulatedPartition) -> bool:
    body = produce(partition)
    if isinstance(body, ErrorBody):
        assert (body.code, body.retriable) == (ErrorCode.STORAGE_FULL, True)
    return isinstance(body, ErrorBody)


def test_below_the_reserve_producers_are_refused_until_there_is_a_quarter_more() -> None:
    partition = SimulatedPartition(disk_reserve_bytes=RESERVE)
    assert not is_refused(partition)
    partition.free_bytes = RESERVE - 1
    partition.advance(MEASURE_AFTER_MS)
    assert not is_refused(partition), "what measures is itself taken"
    assert is_refused(partition)
    (alarm,) = partition.alarms
    assert f"{RESERVE - 1} bytes free, the reserve is {RESERVE}" in alarm
    partition.free_bytes = RESERVE * 5 // 4 - 1
    partition.advance(MEASURE_AGAIN_MS)
    assert is_refused(partition)
    (alarm,) = partition.alarms
    assert f"{partition.free_bytes} bytes free, the reserve is {RESERVE}" in alarm, "as measured last"
    partition.free_bytes += 1
    partition.advance(MEASURE_AGAIN_MS)
    assert partition.alarms == ()
    assert not is_refused(partition)


def test_a_partition_that_starts_on_a_full_disk_refuses_at_once() -> None:
    partition = SimulatedPartition(disk_reserve_bytes=RESERVE)
    produce(partition)
    partition.free_bytes = 0
    partition.crash()
    assert is_refused(partition)
    assert partition.log_end_offset == 1


def test_reading_and_deleting_go_on() -> None:
    partition = SimulatedPartition(disk_reserve_bytes=RESERVE)
    produce(partition)
    partition.free_bytes = 0
    partition.crash()
    read = partition.ask(Fetch(topic="ORDERS", partition=0, offset=0))
    assert read is not None
    assert isinstance(read.body, FetchReply)
    assert read.body.next_offset == 1
    deleted = partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=1))
    assert deleted is not None
    assert isinstance(deleted.body, DeleteRecordsReply)


def test_a_burst_is_measured_by_what_it_writes() -> None:
    partition = SimulatedPartition(disk_reserve_bytes=RESERVE)
    before = partition.disk_measured
    partition.advance(MEASURE_AFTER_MS)
    for _ in range(10):
        produce(partition)
    assert partition.disk_measured == before + 1, "not for each request"
    produced = 0
    while produced < 3 * MEASURE_AFTER_BYTES:
        produce(partition, 500_000)
        produced += 500_000
    assert partition.disk_measured >= before + 3


def test_without_a_reserve_nobody_measures() -> None:
    partition = SimulatedPartition()
    partition.free_bytes = 0
    partition.advance(MEASURE_AFTER_MS)
    assert not is_refused(partition)
    assert partition.disk_measured == 0
