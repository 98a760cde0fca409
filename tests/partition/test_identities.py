"""A repeat of a dedup id is answered with the first one's offset: at once, while it is not durable, after a kill."""

import random
from pathlib import Path

import pytest

from partition_process import PartitionProcess
from planaria.transport.batch import DEDUP, build
from planaria.transport.deduplication import identified_batch
from planaria.transport.protocol.data import ListOffsets, ListOffsetsReply, Produce, ProduceReply
from planaria.transport.protocol.topics import TopicConfig
from simulated_partition import Crashed, SimulatedPartition


def named(dedup_id: str, value: bytes = b"v") -> bytes:
    return identified_batch((None, value, 0, {"dedup-id": dedup_id}), 1_000)


def produce(request_id: int | None = None) -> Produce:
    return Produce(id=request_id, topic="ORDERS", partition=0)


def results(partition: SimulatedPartition, *frames: bytes) -> list[tuple[int, bool]]:
    reply = partition.ask(produce(), list(frames))
    assert reply is not None
    return [(each.base_offset, each.duplicate) for each in reply.body.batches]  # type: ignore[union-attr]


def test_a_repeat_is_answered_with_the_first_ones_offset() -> None:
    partition = SimulatedPartition()
    assert results(partition, named("a"), named("b")) == [(0, False), (1, False)]
    assert results(partition, named("a", b"other"), named("c"), named("b")) == [
        (0, True),
        (2, False),
        (1, True),
    ]
    assert partition.log_end_offset == 3


def test_a_repeat_in_the_same_request_is_one() -> None:
    partition = SimulatedPartition()
    assert results(partition, named("a"), named("a")) == [(0, False), (0, True)]


def test_a_repeat_of_what_is_not_durable_waits_for_it() -> None:
    partition = SimulatedPartition()
    first = partition.received(produce(), [named("a")])
    repeat = partition.received(produce(), [named("a")])
    partition.dispatch(first)
    partition.dispatch(repeat)
    assert partition.trace == []
    replies = partition.turn()
    assert [reply.to for reply in replies] == [first.sender, repeat.sender]


def test_a_repeat_of_what_was_not_written_is_no_repeat() -> None:
    partition = SimulatedPartition()
    partition.is_disk_full = True
    first, repeat = (partition.received(produce(), [named("a")]) for _ in range(2))
    refusals = partition.turn(first, repeat)
    assert [reply.body.code for reply in refusals] == ["STORAGE_FULL", "STORAGE_FULL"]  # type: ignore[union-attr]
    partition.is_disk_full = False
    assert results(partition, named("a")) == [(0, False)]


@pytest.mark.parametrize("crash_at", ["before the write", "after the write"])
def test_a_crash_forgets_what_it_loses_and_nothing_else(crash_at: str) -> None:
    partition = SimulatedPartition()
    results(partition, named("kept"))
    with pytest.raises(Crashed):
        partition.turn(partition.received(produce(), [named("lost")]), crash_at=crash_at)  # type: ignore[arg-type]
    assert results(partition, named("kept"), named("lost")) == [(0, True), (1, False)]


def test_the_window_ends() -> None:
    partition = SimulatedPartition(TopicConfig(dedup_window_ms=1_000))
    results(partition, named("a"))
    partition.now += 999
    assert results(partition, named("a")) == [(0, True)]
    partition.now += 1
    assert results(partition, named("a")) == [(1, False)]


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (
            build(
                [(None, b"v", 0, {"dedup-id": "a"})] * 2,
                first_timestamp_ms=0,
                max_timestamp_ms=0,
                attributes=DEDUP,
            ),
            "holds one record, not 2",
        ),
        (
            build([(None, b"v", 0, None)], first_timestamp_ms=0, max_timestamp_ms=0, attributes=DEDUP),
            "names it in its record's header 'dedup-id'",
        ),
        (named("x" * 257), "must have 1 to 256 bytes"),
        (
            build(
                [(None, b"v", 0, {"dedup-id": "a"})],
                first_timestamp_ms=0,
                max_timestamp_ms=0,
                attributes=DEDUP,
                producer_id=1,
                producer_epoch=0,
                base_sequence=0,
            ),
            "has no producer id",
        ),
    ],
)
def test_a_mark_that_promises_what_is_not_so_is_refused(frame: bytes, fault: str) -> None:
    reply = SimulatedPartition().ask(produce(), [frame])
    assert reply is not None
    error = reply.body.batches[0].error  # type: ignore[union-attr]
    assert error.code == "INVALID_BATCH"
    assert fault in error.message


def test_a_header_of_that_name_alone_is_no_identity() -> None:
    partition = SimulatedPartition()
    plain = build([(None, b"v", 0, {"dedup-id": "a"})], first_timestamp_ms=0, max_timestamp_ms=0)
    assert results(partition, plain, plain, named("a")) == [(0, False), (1, False), (2, False)]


@pytest.mark.processes
def test_sigkill_at_any_moment_doubles_nothing(data_dir: Path, run_dir: Path, seed: int) -> None:
    """Acknowledged records keep their offsets; unacknowledged ones are retried until acknowledged, and occur once."""
    draw = random.Random(seed)
    offsets: dict[str, int] = {}
    with PartitionProcess(data_dir, run_dir, TopicConfig(segment_bytes=16 * 1024)) as partition:
        for life in range(6):
            partition.start()
            names = [f"{life}-{number}" for number in range(40)]
            for name in draw.sample(sorted(offsets), min(20, len(offsets))):
                reply, _ = partition.ask(produce(1), ProduceReply, [named(name)])
                assert (reply.batches[0].base_offset, reply.batches[0].duplicate) == (offsets[name], True)
            answered = draw.randrange(len(names))
            for name in names[:answered]:
                reply, _ = partition.ask(produce(1), ProduceReply, [named(name)])
                assert not reply.batches[0].duplicate
                offsets[name] = reply.batches[0].base_offset
            for name in names[answered:]:
                partition.send(produce(1), [named(name)])
            partition.kill()
            partition.start()
            for name in names[answered:]:
                reply, _ = partition.ask(produce(1), ProduceReply, [named(name)])
                offsets[name] = reply.batches[0].base_offset
            partition.kill()
        partition.start()
        end, _ = partition.ask(ListOffsets(topic="ORDERS", partition=0, at="latest"), ListOffsetsReply)
    assert sorted(offsets.values()) == list(range(len(offsets)))
    assert end.offset == len(offsets)
