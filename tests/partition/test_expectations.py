"""A record with an expectation is appended where it holds and refused elsewhere, with what is there; repeats succeed."""

from typing import Any

import pytest

from planaria.transport.batch import TRANSACTIONAL, build
from planaria.transport.compression import CODECS
from planaria.transport.deduplication import identified_batch
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import Expected, Produce, ProducedBatch
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.topics import DeleteRecords, TopicConfig
from planaria.transport.protocol.transactions import Marker, WriteMarkers
from simulated_partition import Crashed, SimulatedPartition, a_batch

KEPT = TopicConfig(key_versions=True)


def record(key: str | None, value: bytes | None = b"v", dedup_id: str = "") -> bytes:
    name = None if key is None else key.encode()
    if dedup_id:
        return identified_batch((name, value, 0, {"dedup-id": dedup_id}), 1_000)
    return build([(name, value, 0, None)], first_timestamp_ms=1_000, max_timestamp_ms=1_000)


def results(partition: SimulatedPartition, *batches: Any) -> list[ProducedBatch]:
    """Each batch is a frame, or a frame and what it expects."""
    pairs = [each if isinstance(each, tuple) else (each, None) for each in batches]
    request = Produce(topic="ORDERS", partition=0, expected=[expected for _, expected in pairs])
    reply = partition.ask(request, [frame for frame, _ in pairs])
    assert reply is not None
    found: list[ProducedBatch] = reply.body.batches  # type: ignore[union-attr]
    return found


def outcomes(partition: SimulatedPartition, *batches: Any) -> list[Any]:
    """Return the offset of each batch, or the code of its refusal with what is there."""
    return [
        each.base_offset if each.error is None else (each.error.code, each.error.present)
        for each in results(partition, *batches)
    ]


def version(number: int) -> Expected:
    return Expected(key_version=number)


def conflict(present: int) -> tuple[str, int]:
    return (ErrorCode.CONFLICT, present)


def test_an_offset_is_compared_with_the_end_of_the_log() -> None:
    partition = SimulatedPartition()
    assert outcomes(
        partition,
        (record("a"), Expected(offset=0)),
        (record("a"), Expected(offset=0)),
        record("b"),
        (a_batch(b"1", b"2"), Expected(offset=2)),
        (record("a"), Expected(offset=5)),
    ) == [0, conflict(1), 1, 2, conflict(4)]


def test_the_version_of_a_key_is_the_offset_of_its_last_record() -> None:
    partition = SimulatedPartition(KEPT)
    assert outcomes(
        partition,
        (record("a"), version(-1)),
        (record("a"), version(-1)),
        (record("b"), version(-1)),
        (record("a"), version(0)),
        record("a"),
        (record("a"), version(2)),
        (record("a"), version(3)),
    ) == [0, conflict(0), 1, 2, 3, conflict(3), 4]


def test_a_record_without_a_value_deletes_its_key() -> None:
    partition = SimulatedPartition(KEPT)
    assert outcomes(
        partition,
        record("a"),
        (record("a", None), version(0)),
        (record("a"), version(1)),
        (record("a"), version(-1)),
    ) == [0, 1, conflict(-1), 2]


def test_a_repeat_is_answered_before_it_is_compared() -> None:
    """After a kill, too: its dedup id and the versions are read from the log."""
    partition = SimulatedPartition(KEPT)
    first = (record("a", dedup_id="x"), version(-1))
    assert outcomes(partition, first, first, (record("a", dedup_id="y"), version(-1))) == [0, 0, conflict(0)]
    partition.crash()
    assert outcomes(partition, first, (record("a", dedup_id="y"), version(-1))) == [0, conflict(0)]
    with pytest.raises(Crashed):
        partition.turn(
            partition.received(
                Produce(topic="ORDERS", partition=0, expected=[version(0)]), [record("a", dedup_id="z")]
            ),
            crash_at="after the sync",
        )
    assert outcomes(partition, (record("a", dedup_id="z"), version(0)), (record("a"), version(1))) == [1, 2]


def test_what_was_not_written_is_no_version() -> None:
    partition = SimulatedPartition(KEPT)
    partition.is_disk_full = True
    request = Produce(topic="ORDERS", partition=0, expected=[version(-1)])
    (reply,) = partition.turn(partition.received(request, [record("a")]))
    assert isinstance(reply.body, ErrorBody)
    partition.is_disk_full = False
    assert outcomes(partition, (record("a"), version(0)), (record("a"), version(-1))) == [conflict(-1), 0]


def test_a_key_in_an_open_transaction_is_refused_until_its_end() -> None:
    partition = SimulatedPartition(KEPT)
    assert outcomes(partition, record("a")) == [0]
    for epoch, is_committed, version_then in ((0, False, 0), (1, True, 4)):
        batch = build(
            [(b"a", b"v", 0, None)],
            first_timestamp_ms=1_000,
            max_timestamp_ms=1_000,
            producer_id=transactional_producer_id(0, 7),
            producer_epoch=epoch,
            base_sequence=0,
            attributes=TRANSACTIONAL,
        )
        assert results(partition, batch)[0].error is None
        assert outcomes(partition, (record("a"), version(0)), (record("b", None), version(-1)))[
            0
        ] == conflict(0)
        marker = Marker(transactional_producer_id(0, 7), epoch, is_committed)
        partition.ask(WriteMarkers(topic="ORDERS", partition=0, markers=[marker]))
        assert outcomes(partition, (record("a"), version(99))) == [conflict(version_then)]


def test_versions_below_the_start_of_the_log_are_gone() -> None:
    partition = SimulatedPartition(KEPT)
    assert outcomes(partition, record("a"), record("b")) == [0, 1]
    partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=1))
    assert outcomes(partition, (record("a"), version(0)), (record("b"), version(1))) == [conflict(-1), 2]


@pytest.mark.parametrize(
    ("config", "frame", "expected", "code"),
    [
        (TopicConfig(), record("a"), version(-1), ErrorCode.INVALID_REQUEST),
        (KEPT, record(None), version(-1), ErrorCode.INVALID_REQUEST),
        (KEPT, a_batch(b"1", b"2"), version(-1), ErrorCode.INVALID_REQUEST),
        (
            TopicConfig(),
            a_batch(b"1", producer_id=7, producer_epoch=0, base_sequence=0),
            Expected(offset=0),
            ErrorCode.INVALID_REQUEST,
        ),
        (
            KEPT,
            build(
                [(b"a", b"v", 0, None)], first_timestamp_ms=1, max_timestamp_ms=1, attributes=CODECS["zstd"]
            ),
            None,
            ErrorCode.INVALID_BATCH,
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    config: TopicConfig, frame: bytes, expected: Expected | None, code: ErrorCode
) -> None:
    (result,) = results(SimulatedPartition(config), (frame, expected))
    assert result.error is not None
    assert result.error.code == code


def test_a_wrong_number_of_expectations_is_refused() -> None:
    request = Produce(topic="ORDERS", partition=0, expected=[version(0)] * 2)
    reply = SimulatedPartition().ask(request, [record("a")])
    assert reply is not None
    assert isinstance(reply.body, ErrorBody)
