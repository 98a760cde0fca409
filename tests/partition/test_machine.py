"""The partition's machine, event by event."""

from typing import Any

import pytest

from planaria.actors.partition.effects import (
    ApplyRetention,
    CompactSlice,
    Reconfigure,
    WriteCheckpoint,
)
from planaria.actors.partition.upkeep import (
    CHECKPOINT_INTERVAL_MS,
    COMPACTION_CHECK_MS,
    COMPACTION_PAUSE_MS,
    COMPACTION_SLICE_BYTES,
)
from planaria.transport.batch import CONTROL, LOG_APPEND_TIME, TRANSACTIONAL, build, parse_header, verify
from planaria.transport.machine import StopRequested, WallClockStepped
from planaria.transport.protocol.data import Fetch, ListOffsets
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.topics import (
    ConfigurePartition,
    DeleteRecords,
    DescribePartition,
    TopicConfig,
)
from simulated_partition import (
    Crashed,
    SimulatedPartition,
    a_batch,
    answered,
    fetch,
    idempotent,
    offsets_in,
    produce,
    refused,
)


@pytest.fixture
def partition() -> SimulatedPartition:
    return SimulatedPartition()


# -- produce


def test_batches_get_consecutive_offsets_and_the_leaders_epoch(partition: SimulatedPartition) -> None:
    reply = answered(partition.ask(produce(), [a_batch(b"a", b"b"), a_batch(b"c")]))
    assert [result.base_offset for result in reply.batches] == [0, 2]
    assert reply.high_watermark == 3
    partition.crash()
    answered(partition.ask(produce(), [a_batch(b"d")]))
    assert [(header.base_offset, header.leader_epoch) for header, _ in partition.log] == [
        (0, 0),
        (2, 0),
        (3, 1),
    ]
    for header, frame in partition.log:
        assert verify(frame) == parse_header(frame)
        assert header[:3] == parse_header(frame)[:3]


def test_no_acknowledgement_before_the_sync(partition: SimulatedPartition) -> None:
    for point in ("before the write", "after the write", "after the sync"):
        with pytest.raises(Crashed):
            partition.turn(partition.received(produce(), [a_batch(b"a")]), crash_at=point)
        assert "reply" not in partition.trace, f"answered though it died {point}"
    assert partition.log_end_offset == 1, "only what was synced is there"


def test_a_turn_writes_then_syncs_then_answers(partition: SimulatedPartition) -> None:
    """All appends of a turn share one write and one sync; a waiting fetch is answered after it as well."""
    assert partition.ask(fetch(0, max_wait_ms=60_000)) is None
    produces = [partition.received(produce(), [a_batch(b"a")]) for _ in range(3)]
    replies = partition.turn(*produces)
    assert len(replies) == 4
    assert partition.trace == ["append", *["batch"] * 3, "appended", "sync", "synced", *["reply"] * 4]


def test_acks_zero_gets_no_reply_but_is_appended(partition: SimulatedPartition) -> None:
    assert partition.ask(produce(acks=0), [a_batch(b"a")]) is None
    assert partition.ask(produce(acks=0), []) is None
    assert partition.ask(produce(acks=0, topic="X"), [a_batch(b"a")]) is None
    assert partition.log_end_offset == 1


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"", "header"),
        (b"short", "header"),
        (a_batch(b"a") + b"x", "bytes"),
        (a_batch(b"a")[:-1] + b"?", "checksum"),
        (a_batch(b"a", attributes=TRANSACTIONAL), "if and only if"),
        (a_batch(b"a", attributes=CONTROL), "reserved for the broker"),
        (a_batch(b"a", attributes=LOG_APPEND_TIME), "reserved for the broker"),
        (a_batch(b"a", attributes=1 << 7), "attributes"),
        (a_batch(b"a", producer_id=3, producer_epoch=0, base_sequence=-1), "sequence"),
        (a_batch(b"a", producer_id=3, producer_epoch=-1, base_sequence=0), "sequence"),
        (a_batch(b"a", producer_id=-5, producer_epoch=0, base_sequence=0), "producer id"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value,
)
def test_bad_batch_is_refused_and_the_others_kept(
    partition: SimulatedPartition, frame: bytes, complaint: str
) -> None:
    reply = answered(partition.ask(produce(), [a_batch(b"a"), frame, a_batch(b"b")]))
    assert [result.base_offset for result in reply.batches] == [0, -1, 1]
    assert reply.batches[1].error.code == "INVALID_BATCH"
    assert complaint in reply.batches[1].error.message
    assert partition.log_end_offset == 2


def test_a_batch_dated_too_far_ahead_is_refused(partition: SimulatedPartition) -> None:
    """Both its first and its highest timestamp count; with no limit, any is accepted."""
    limit = partition.now + 3_600_000
    frames = [
        build([(None, b"x", 0, None)], first_timestamp_ms=first, max_timestamp_ms=highest)
        for first, highest in ((limit, limit), (0, limit + 1), (limit + 1, 0), (limit * 1_000, limit * 1_000))
    ]
    errors = [result.error for result in answered(partition.ask(produce(), frames)).batches]
    assert errors[0] is None
    assert [(error.code, error.retriable) for error in errors[1:]] == [("INVALID_TIMESTAMP", False)] * 3
    free = SimulatedPartition(TopicConfig(max_timestamp_ahead_ms=-1))
    assert answered(free.ask(produce(), frames[-1:])).batches[0].error is None


def test_a_step_of_the_clock_shuts_no_producer_out(partition: SimulatedPartition) -> None:
    """Forward, the producers' times are hours ahead of the steady clock; back, those of unstepped ones are."""
    hours_ms = 2 * 3_600_000
    ahead = build([(None, b"x", 0, None)], first_timestamp_ms=0, max_timestamp_ms=partition.now + hours_ms)
    same = build([(None, b"x", 0, None)], first_timestamp_ms=0, max_timestamp_ms=partition.now)
    assert answered(partition.ask(produce(), [ahead])).batches[0].error.code == "INVALID_TIMESTAMP"
    partition.turn(WallClockStepped(hours_ms))
    assert answered(partition.ask(produce(), [ahead])).batches[0].error is None
    partition.turn(WallClockStepped(-hours_ms))
    assert answered(partition.ask(produce(), [same])).batches[0].error is None


@pytest.mark.parametrize("count", [1, 15, 16, 70_000])
def test_record_count_is_what_the_contents_say(partition: SimulatedPartition, count: int) -> None:
    values = [(None, b"", 0, None)] * count
    good = build(values, first_timestamp_ms=0, max_timestamp_ms=0)
    reply = answered(partition.ask(produce(), [good, with_record_count(good, count + 1)]))
    assert reply.batches[0].error is None
    assert reply.batches[1].error.code == "INVALID_BATCH"


def with_record_count(frame: bytes, count: int) -> bytes:
    """Return the batch with another count in its header, and matching checksums."""
    from planaria.transport.batch import checksum

    body = frame[24:26] + count.to_bytes(4, "big") + frame[30:]
    return frame[:16] + checksum(body).to_bytes(4, "big") + frame[20:24] + body


def test_batch_above_the_topics_limit_is_too_large() -> None:
    partition = SimulatedPartition(TopicConfig(max_message_bytes=200))
    reply = answered(partition.ask(produce(), [a_batch(b"x" * 200), a_batch(b"x")]))
    assert reply.batches[0].error.code == "MESSAGE_TOO_LARGE"
    assert not reply.batches[0].error.retriable
    assert reply.batches[1].base_offset == 0


def test_requests_for_another_partition_are_refused(partition: SimulatedPartition) -> None:
    assert refused(partition.ask(produce(topic="OTHER"), [a_batch(b"a")])).code == "UNKNOWN_PARTITION"
    assert refused(partition.ask(produce(partition=1), [a_batch(b"a")])).code == "UNKNOWN_PARTITION"
    assert refused(partition.ask(Fetch(topic="X", partition=0, offset=0))).code == "UNKNOWN_PARTITION"
    assert refused(partition.ask(ListOffsets(topic="X", partition=0, at=0))).code == "UNKNOWN_PARTITION"
    assert (
        refused(partition.ask(DeleteRecords(topic="X", partition=0, before_offset=0))).code
        == "UNKNOWN_PARTITION"
    )
    assert refused(partition.ask(produce(), [])).code == "INVALID_REQUEST"
    assert partition.log == []


# -- idempotence


def test_repeat_is_answered_with_the_first_answer(partition: SimulatedPartition) -> None:
    first = answered(partition.ask(produce(), [idempotent(0, b"a", b"b")])).batches[0]
    partition.crash()
    again = answered(partition.ask(produce(), [idempotent(0, b"a", b"b")])).batches[0]
    assert (again.base_offset, again.duplicate, again.error) == (first.base_offset, True, None)
    assert partition.log_end_offset == 2


def test_repeat_of_what_is_not_durable_yet_waits_for_it(partition: SimulatedPartition) -> None:
    first = partition.received(produce(), [idempotent(0, b"a")])
    again = partition.received(produce(), [idempotent(0, b"a")])
    assert partition.machine.handle(first, 0)[0].headers[0].base_offset == 0
    assert partition.machine.handle(again, 0) == [], "the answer waits for the disk"
    replies = SimulatedPartition().turn(first, again)
    assert [(reply.body.batches[0].base_offset, reply.body.batches[0].duplicate) for reply in replies] == [
        (0, False),
        (0, True),
    ]


def test_gap_stale_epoch_and_unknown_producer_are_refused(partition: SimulatedPartition) -> None:
    def error(frame: bytes) -> str:
        body = answered(partition.ask(produce(), [frame])).batches[0].error
        assert not body.retriable
        return str(body.code)

    assert error(idempotent(4, b"x")) == "UNKNOWN_PRODUCER"
    answered(partition.ask(produce(), [idempotent(0, b"a", epoch=1), idempotent(1, b"b", epoch=1)]))
    assert error(idempotent(3, b"x", epoch=1)) == "OUT_OF_ORDER_SEQUENCE"
    assert error(idempotent(2, b"x", epoch=0)) == "PRODUCER_FENCED"
    assert error(idempotent(2, b"x", epoch=2)) == "OUT_OF_ORDER_SEQUENCE"
    assert partition.log_end_offset == 2


# -- a full disk


def test_full_disk_takes_the_whole_turn_back(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [idempotent(0, b"a")]))
    partition.is_disk_full = True
    replies = partition.turn(
        partition.received(produce(), [idempotent(0, b"a")]),  # already safe: unaffected
        partition.received(produce(), [idempotent(1, b"b"), a_batch(b"c")]),
        partition.received(produce(), [idempotent(1, b"b")]),  # repeats the batch being lost
        partition.received(produce(acks=0), [a_batch(b"d")]),
        partition.received(fetch(0)),
    )
    outcomes = {reply.to.id: reply.body for reply in replies}
    assert [type(outcomes[key]).__name__ for key in sorted(outcomes)] == [
        "ProduceReply",
        "ErrorBody",
        "ErrorBody",
        "FetchReply",
    ]
    lost = next(body for body in outcomes.values() if isinstance(body, ErrorBody))
    assert (lost.code, lost.retriable) == ("STORAGE_FULL", True)
    description = answered(partition.ask(DescribePartition())).description
    assert (description.log_end_offset, description.high_watermark) == (1, 1)

    partition.is_disk_full = False
    reply = answered(partition.ask(produce(), [idempotent(1, b"b")]))
    assert (reply.batches[0].base_offset, reply.batches[0].duplicate) == (1, False)


def test_full_disk_wakes_no_fetch(partition: SimulatedPartition) -> None:
    one = len(a_batch(b"a"))
    assert partition.ask(fetch(0, max_wait_ms=1_000, min_bytes=2 * one)) is None
    partition.is_disk_full = True
    for _ in range(3):
        assert len(partition.turn(partition.received(produce(), [a_batch(b"x")]))) == 1
    partition.is_disk_full = False
    assert len(partition.turn(partition.received(produce(), [a_batch(b"a")]))) == 1, (
        "bytes that were lost count not"
    )
    replies = partition.turn(partition.received(produce(), [a_batch(b"b")]))
    assert [offsets_in(reply.payload[0]) for reply in replies if reply.payload] == [[0, 1]]


# -- flush policies


def test_interval_acknowledges_at_once_and_syncs_later() -> None:
    partition = SimulatedPartition(TopicConfig(flush="interval:200ms"))
    answered(partition.ask(produce(), [a_batch(b"a")]))
    assert answered(partition.ask(fetch(0))).next_offset == 1
    partition.advance(100)
    answered(partition.ask(produce(), [a_batch(b"b")]))
    partition.advance(99)
    assert partition.durable_end_offset == 0
    partition.advance(1)
    assert partition.durable_end_offset == 2
    partition.advance(10_000)
    answered(partition.ask(produce(), [a_batch(b"c")]))
    partition.advance(200)
    assert partition.durable_end_offset == 3


def test_with_another_policy_the_answer_does_not_wait_for_the_sync() -> None:
    for flush in ("interval:200ms", "os"):
        partition = SimulatedPartition(TopicConfig(flush=flush))
        answered(partition.ask(produce(), [a_batch(b"a")]))
        assert partition.trace == ["append", "batch", "appended", "reply"]


def test_os_syncs_at_the_checkpoint_only() -> None:
    partition = SimulatedPartition(TopicConfig(flush="os"))
    answered(partition.ask(produce(), [a_batch(b"a")]))
    partition.advance(CHECKPOINT_INTERVAL_MS - 1)
    assert partition.durable_end_offset == 0
    partition.advance(1)
    assert partition.durable_end_offset == 1


def test_change_to_batch_syncs_what_was_left() -> None:
    partition = SimulatedPartition(TopicConfig(flush="interval:10s"))
    answered(partition.ask(produce(), [a_batch(b"a")]))
    config = TopicConfig(max_message_bytes=10)
    answered(partition.ask(ConfigurePartition(config=config)))
    assert partition.performed == [Reconfigure(config)]
    assert partition.durable_end_offset == 1
    reply = answered(partition.ask(produce(), [a_batch(b"a")]))
    assert reply.batches[0].error.code == "MESSAGE_TOO_LARGE"


# -- the rest


def test_list_offsets(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b")]))
    answered(partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=1)))

    def at(when: Any) -> tuple[int, int]:
        body = answered(partition.ask(ListOffsets(topic="ORDERS", partition=0, at=when)))
        return body.offset, body.timestamp_ms

    assert at("earliest") == (1, -1)
    assert at("latest") == (2, -1)
    assert at(1_001) == (-1, -1)


def test_delete_records_stops_at_the_high_watermark(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b")]))
    for offset in (3, -2):
        error = refused(partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=offset)))
        assert error.code == "OFFSET_OUT_OF_RANGE"
    reply = answered(partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=-1)))
    assert reply.log_start_offset == 2
    assert answered(partition.ask(fetch(2))).log_start_offset == 2


def test_describe_says_where_it_stands(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b")]))
    partition.crash()
    found = answered(partition.ask(DescribePartition())).description
    assert (found.incarnation, found.leader_epoch, found.log_start_offset) == (2, 1, 0)
    assert (found.high_watermark, found.log_end_offset) == (2, 2)
    assert found.size_bytes == partition.size_bytes


def test_checkpoints_follow_writes_and_retention_its_configuration() -> None:
    partition = SimulatedPartition(TopicConfig(retention_ms=2_000))
    partition.advance(20_000)
    assert partition.performed.count(WriteCheckpoint()) == 0
    assert partition.performed.count(ApplyRetention()) == 20
    answered(partition.ask(produce(), [a_batch(b"a")]))
    partition.advance(20_000)
    assert partition.performed.count(WriteCheckpoint()) == 1


def test_stop_answers_everyone_and_refuses_the_rest(partition: SimulatedPartition) -> None:
    waiting = partition.received(fetch(0, max_wait_ms=10_000))
    writing = partition.received(produce(), [a_batch(b"a")])
    replies = partition.turn(waiting, writing, StopRequested(deadline=5_000))
    outcomes = {reply.to: reply.body for reply in replies}
    assert outcomes[waiting.sender].code == "SHUTTING_DOWN"
    assert outcomes[waiting.sender].retriable
    assert outcomes[writing.sender].batches[0].base_offset == 0
    assert partition.stopped
    assert refused(partition.ask(fetch(0))).code == "SHUTTING_DOWN"


def test_stop_waits_for_the_disk(partition: SimulatedPartition) -> None:
    partition.dispatch(partition.received(produce(), [a_batch(b"a")]))
    partition.dispatch(StopRequested(deadline=5_000))
    assert not partition.stopped
    assert len(partition.turn()) == 1
    assert partition.stopped


def test_compaction_is_looked_for_and_goes_on_in_slices_with_pauses() -> None:
    partition = SimulatedPartition(TopicConfig(cleanup="compact"))
    slice_ = CompactSlice(COMPACTION_SLICE_BYTES)
    partition.advance(COMPACTION_CHECK_MS - 1)
    assert partition.performed.count(slice_) == 0
    partition.slices_due = 10
    partition.advance(1 + 8 * COMPACTION_PAUSE_MS)
    assert partition.performed.count(slice_) == 9, "one a pause"
    partition.advance(COMPACTION_PAUSE_MS)
    assert partition.performed.count(slice_) == 10
    partition.advance(COMPACTION_CHECK_MS - 1)
    assert partition.performed.count(slice_) == 10
    answered(partition.ask(ConfigurePartition(config=TopicConfig())))
    partition.advance(10 * COMPACTION_CHECK_MS)
    assert partition.performed.count(slice_) == 10
    answered(
        partition.ask(ConfigurePartition(config=TopicConfig(cleanup="compact,delete", segment_ms=1_000)))
    )
    partition.advance(500)
    assert partition.performed.count(slice_) == 11


def test_a_fetch_in_a_gap_waits_for_what_comes_and_ends_behind_the_gap(
    partition: SimulatedPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction left nothing between 1 and the high watermark."""
    answered(partition.ask(produce(), [a_batch(b"a", b"b", b"c")]))
    monkeypatch.setattr(partition.process._log, "read", lambda *_: (b"", 3))
    for as_json in (False, True):
        reply = answered(partition.ask(fetch(1), as_json=as_json))
        assert reply.next_offset == 3
    assert partition.ask(fetch(1, max_wait_ms=100)) is None
    (reply,) = partition.advance(100)
    assert reply.body.next_offset == 3
