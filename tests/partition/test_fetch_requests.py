"""Fetches: what they return, when they wait, and where they are refused."""

import pytest

from planaria.transport.protocol.data import ListOffsets, Produce
from planaria.transport.protocol.topics import (
    DeleteRecords,
    TopicConfig,
)
from simulated_partition import (
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


def test_fetch_returns_whole_batches_below_the_high_watermark(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b"), a_batch(b"c")]))
    reply = partition.ask(fetch(1))
    body = answered(reply)
    assert offsets_in(reply.payload[0]) == [0, 2]  # type: ignore[union-attr]
    assert (body.next_offset, body.high_watermark, body.log_start_offset, body.records) == (3, 3, 0, None)
    reply = partition.ask(fetch(0, max_bytes=1))
    assert (offsets_in(reply.payload[0]), reply.body.next_offset) == ([0], 2)  # type: ignore[union-attr]


def test_fetch_at_the_end_does_not_wait_unless_told(partition: SimulatedPartition) -> None:
    for options in ({}, {"max_wait_ms": 1_000, "min_bytes": 0}):
        reply = partition.ask(fetch(0, **options))
        assert (answered(reply).next_offset, reply.payload) == (0, [])  # type: ignore[union-attr]


def test_a_position_in_an_earlier_topic_of_the_name_reads_nothing(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a")]))
    for options in ({}, {"max_wait_ms": 1_000}):
        refusal = refused(partition.ask(fetch(0, topic_id="t0", **options)))
        assert (refusal.code, refusal.topic_id) == ("UNKNOWN_TOPIC_ID", "t1")
    reply = answered(partition.ask(fetch(0)))
    assert answered(partition.ask(fetch(0, topic_id=reply.topic_id))).next_offset == 1  # type: ignore[union-attr]


def test_batches_for_an_earlier_topic_of_the_name_are_not_written(partition: SimulatedPartition) -> None:
    request = Produce(topic="ORDERS", partition=0, topic_id="t0")
    refusal = refused(partition.ask(request, [idempotent(0, b"a")]))
    assert (refusal.code, refusal.topic_id, refusal.retriable) == ("UNKNOWN_TOPIC_ID", "t1", False)
    assert answered(partition.ask(fetch(0))).high_watermark == 0
    request = Produce(topic="ORDERS", partition=0, topic_id="t1")
    assert answered(partition.ask(request, [idempotent(0, b"a")])).batches[0].base_offset == 0


def test_a_reader_of_what_a_power_cut_took_is_told_where_the_log_differs() -> None:
    partition = SimulatedPartition(TopicConfig(flush="os"))
    answered(partition.ask(produce(), [a_batch(b"a", b"b")]))
    partition.durable_count = 1
    answered(partition.ask(produce(), [a_batch(b"c", b"d")]))
    epoch = answered(partition.ask(fetch(0))).leader_epoch
    partition.crash()
    shorter = refused(partition.ask(fetch(4, leader_epoch=epoch)))
    assert (shorter.code, shorter.next_offset, shorter.retriable) == ("LOG_TRUNCATED", 2, False)
    answered(partition.ask(produce(), [a_batch(b"C"), a_batch(b"D"), a_batch(b"E")]))
    for offset, options in ((4, {}), (3, {}), (4, {"max_wait_ms": 1_000}), (5, {"max_wait_ms": 1_000})):
        refusal = refused(partition.ask(fetch(offset, leader_epoch=epoch, **options)))
        assert (refusal.code, refusal.next_offset) == ("LOG_TRUNCATED", 2)
    reply = answered(partition.ask(fetch(2, leader_epoch=epoch)))
    assert (reply.next_offset, reply.leader_epoch) == (5, epoch + 1), "nothing before it was lost"
    partition.crash(is_power_lost=False)
    assert answered(partition.ask(fetch(5, leader_epoch=epoch + 1))).leader_epoch == epoch + 2
    assert answered(partition.ask(fetch(4))).next_offset == 5, "who names no epoch is not asked"


def test_fetch_outside_names_the_bounds(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b", b"c")]))
    answered(partition.ask(DeleteRecords(topic="ORDERS", partition=0, before_offset=2)))
    for offset in (1, 4):
        error = refused(partition.ask(fetch(offset, max_wait_ms=1_000)))
        assert error.code == "OFFSET_OUT_OF_RANGE"
        assert "2 to 3" in error.message


def test_nothing_is_visible_before_it_is_durable(partition: SimulatedPartition) -> None:
    replies = partition.turn(
        partition.received(produce(), [a_batch(b"a")]),
        partition.received(fetch(0)),
        partition.received(fetch(1)),
        partition.received(ListOffsets(topic="ORDERS", partition=0, at="latest")),
    )
    bodies = [reply.body for reply in replies]
    assert bodies[0].next_offset == 0
    assert bodies[1].code == "OFFSET_OUT_OF_RANGE"
    assert bodies[2].offset == 0


def test_parked_fetch_leaves_with_the_data(partition: SimulatedPartition) -> None:
    assert partition.ask(fetch(0, max_wait_ms=500)) is None
    replies = partition.turn(partition.received(produce(), [a_batch(b"a")]))
    assert [type(reply.body).__name__ for reply in replies] == ["ProduceReply", "FetchReply"]
    assert offsets_in(replies[1].payload[0]) == [0]
    assert partition.advance(1_000) == [], "it is answered once"


def test_parked_fetch_leaves_empty_when_its_time_is_up(partition: SimulatedPartition) -> None:
    assert partition.ask(fetch(0, max_wait_ms=500)) is None
    assert partition.ask(fetch(0, max_wait_ms=200)) is None
    assert partition.advance(199) == []
    assert len(partition.advance(1)) == 1
    assert partition.advance(299) == []
    (reply,) = partition.advance(1)
    assert (reply.body.next_offset, reply.payload) == (0, [])


def test_fetch_waits_for_min_bytes_and_no_longer(partition: SimulatedPartition) -> None:
    one = len(a_batch(b"a"))
    answered(partition.ask(produce(), [a_batch(b"a")]))
    assert partition.ask(fetch(0, min_bytes=3 * one, max_wait_ms=500)) is None
    assert partition.ask(fetch(1, min_bytes=3 * one, max_wait_ms=500)) is None
    assert len(partition.turn(partition.received(produce(), [a_batch(b"b")]))) == 1
    replies = partition.turn(partition.received(produce(), [a_batch(b"c")]))
    assert [offsets_in(reply.payload[0]) for reply in replies if reply.payload] == [[0, 1, 2]]
    (late,) = partition.advance(500)
    assert offsets_in(late.payload[0]) == [1, 2], "what is there is better than nothing"


def test_min_bytes_above_max_bytes_is_no_trap(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a"), a_batch(b"b")]))
    reply = partition.ask(fetch(0, min_bytes=10_000, max_bytes=1, max_wait_ms=500))
    assert answered(reply).next_offset == 1


def test_full_parking_answers_the_one_that_waited_longest() -> None:
    partition = SimulatedPartition(parked_limit=2)
    asked = [partition.received(fetch(0, max_wait_ms=1_000)) for _ in range(4)]
    assert [reply.to for reply in partition.turn(*asked)] == [asked[0].sender, asked[1].sender]
    assert [reply.to for reply in partition.advance(1_000)] == [asked[2].sender, asked[3].sender]


def test_json_and_format_decide_where_records_go(partition: SimulatedPartition) -> None:
    answered(partition.ask(produce(), [a_batch(b"a", b"b", b"\xff")]))
    reply = partition.ask(fetch(1, max_records=1), as_json=True)
    (record,) = answered(reply).records
    assert (record.offset, record.timestamp_ms, record.value, record.value_text) == (1, 1_000, b"b", "b")
    assert (reply.body.next_offset, reply.payload) == (2, [])  # type: ignore[union-attr]
    assert [each.value_text for each in answered(partition.ask(fetch(2, format="records"))).records] == [None]
    reply = partition.ask(fetch(0, format="batches"), as_json=True)
    assert (answered(reply).records, offsets_in(reply.payload[0])) == (None, [0])  # type: ignore[union-attr]
    assert answered(partition.ask(fetch(3), as_json=True)).records == []
