"""A share group's coordinator: acquire, acknowledge, expire, dead-letter, recover. No process, no sleep."""

import sys
from typing import Any

import pytest

from planaria.actors.coordinator.share.dead_letters import DeadLetterWriteCall
from planaria.actors.coordinator.share.partition import SharePartition
from planaria.actors.coordinator.share.partitions import DELIVERY_MS
from planaria.actors.coordinator.share.records import ShareProgress
from planaria.actors.coordinator.share.spans import State
from planaria.actors.coordinator.share.tails import TailCall, record_bytes_of
from planaria.actors.journal.appender import AppendCall
from planaria.transport.batch import build, decode_records, parse_header
from planaria.transport.compression import CODEC_ZSTD
from planaria.transport.machine import Received, Sender, StopRequested
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    GroupHeartbeat,
    PauseGroup,
    ResumeGroup,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.shares import (
    MAX_LOCKED_BYTES,
    Acknowledge,
    Acknowledgement,
    Acquire,
    AcquiredRange,
    AcquireReply,
    ConfigureShareGroup,
)
from simulated_group import GROUP
from simulated_share import SimulatedShare, settle, some


@pytest.fixture
def group() -> SimulatedShare:
    group = SimulatedShare()
    group.run()
    return group


def test_each_record_goes_to_one_member(group: SimulatedShare) -> None:
    group.publish(10)
    assert group.acquire("a", 4) == [some(0, 3)]
    assert group.acquire("b", 100) == [some(4, 9)]
    assert group.acquire("a") == []
    assert group.acknowledge("a", 0, 3, "accept") is None
    assert group.acknowledge("b", 0, 0, "accept") == "NOT_ACQUIRED"
    assert group.state.shares["ORDERS", 0].start == 4


def appends_after(group: SimulatedShare, request: Acquire) -> tuple[int, list[Any]]:
    """Send a request, and answer everything except appends."""
    asked = group.ask(request.member_id, request)
    while calls := [call for call in group.answerable() if not isinstance(call.key, AppendCall)]:
        group.answer(calls[0])
    return asked, [call for call in group.answerable() if isinstance(call.key, AppendCall)]


def test_a_first_delivery_is_recorded_while_the_member_has_it(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    settle(group)
    before = group.log.end
    asked, appends = appends_after(group, Acquire(group=GROUP, topics=["ORDERS"], member_id="a"))
    assert group.answer_of(asked).ranges == [some(1, 1)]
    assert not appends, "it waits a moment for the verdict"
    group.advance(DELIVERY_MS)
    group.drain()
    assert group.log.end == before + 1
    assert group.state.shares["ORDERS", 0].runs == [(2, State.AVAILABLE, 1, 0)]


def test_a_first_delivery_and_its_verdict_are_one_record(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    settle(group)
    before = group.log.end
    assert group.acquire("a", 1) == [some(1, 1)]
    assert group.acknowledge("a", 1, 1, "fail") is None
    assert group.log.end == before + 1
    settle(group)
    assert group.log.end == before + 1
    assert group.state.shares["ORDERS", 0].runs == [(2, State.AVAILABLE, 1, 0)]


def test_a_coordinator_that_dies_forgets_a_first_delivery_at_most(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    assert group.acknowledge("a", 0, 0, "accept") is None
    for _ in range(3):
        assert group.acquire("a") == [some(1, 1)]
        group.start()
        group.drain()
    assert group.acquire("a") == [some(1, 1)]
    settle(group)
    for deliveries in (2, 3):
        group.start()
        group.drain()
        asked, appends = appends_after(group, Acquire(group=GROUP, topics=["ORDERS"], member_id="a"))
        assert group.answer_of(asked) is None, "its count is not durable"
        group.answer(appends[0])
        assert group.answer_of(asked).ranges == [some(1, 1, deliveries)]


def test_a_coordinator_that_may_be_replaced_records_every_delivery_before_it_is_answered() -> None:
    """It may give out a record that the next one knows to be done; the log refuses its records then."""
    group = SimulatedShare()
    group.is_replaceable = True
    group.run()
    group.publish(1)
    group.acquire("a")
    group.publish(1)
    asked, appends = appends_after(group, Acquire(group=GROUP, topics=["ORDERS"], member_id="a"))
    assert group.answer_of(asked) is None
    group.answer(appends[0])
    assert group.answer_of(asked).ranges == [some(1, 1)]


def test_no_record_is_given_out_before_the_start_of_the_group_is_durable() -> None:
    """The next coordinator of a group that starts at the end would start behind the record, and never deliver it."""
    group = SimulatedShare()
    group.run()
    group.request("x", ConfigureShareGroup(group=GROUP, start="latest"))
    group.publish(1)
    waits = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=30_000)
    asked, _ = appends_after(group, waits)
    group.log_of("ORDERS").append(build([(None, b"1", 0, None)], first_timestamp_ms=1, max_timestamp_ms=1))
    while calls := [call for call in group.answerable() if not isinstance(call.key, AppendCall)]:
        group.answer(calls[0])
    assert group.answer_of(asked) is None
    group.drain()
    assert group.answer_of(asked).ranges == [some(1, 1)]


def test_no_record_is_given_out_before_the_end_of_a_pause_is_durable(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    group.request("x", PauseGroup(group=GROUP))
    group.publish(1)
    asked = group.ask("a", Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=30_000))
    group.drain()
    group.ask("x", ResumeGroup(group=GROUP))
    assert group.answer_of(asked) is None
    group.drain()
    assert group.answer_of(asked).ranges == [some(1, 1)]


def test_a_coordinator_that_stops_records_the_first_deliveries(group: SimulatedShare) -> None:
    group.publish(1)
    settle(group)
    group.acquire("a")
    group.handle(StopRequested(group.now + 1_000))
    group.drain()
    assert group.is_stopped
    group.start()
    group.drain()
    assert group.acquire("b") == [some(0, 0, 2)]


def test_a_request_waits_for_records(group: SimulatedShare) -> None:
    request = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=1_000)
    asked = group.ask("a", request)
    group.drain()
    assert group.answer_of(asked) is None
    group.publish(3)
    assert group.answer_of(asked).ranges == [some(0, 2)]
    again = group.ask("a", request)
    group.drain()
    group.advance(1_000)
    group.calls = [call for call in group.calls if not isinstance(call.key, TailCall)]
    assert group.answer_of(again).ranges == []


def test_large_records_are_locked_within_a_bound_in_bytes() -> None:
    part = SharePartition(ShareProgress("id", 0))
    part.on_tail(0, 5_000, record_bytes=1024 * 1024)
    locked = MAX_LOCKED_BYTES // (1024 * 1024)
    assert sum(span.count for span in part.acquire("a", 1_000, 0, 30_000)) == locked
    assert not part.can_give(0)
    part.acknowledge(
        "a",
        Acknowledgement(topic="T", partition=0, first_offset=0, last_offset=9, verdict="accept"),
        0,
        0,
        5,
    )
    assert sum(span.count for span in part.acquire("b", 1_000, 0, 30_000)) == 10
    part.expire(30_000, 5)
    part.on_tail(0, 5_000, record_bytes=10 * MAX_LOCKED_BYTES)
    assert sum(span.count for span in part.acquire("c", 1_000, 30_000, 60_000)) == 1, "one is always given"


def test_what_a_record_takes_is_learned_where_the_log_is_looked_at(group: SimulatedShare) -> None:
    batch = build([(None, b"x" * 1_000, 0, None)] * 10, first_timestamp_ms=1, max_timestamp_ms=1)
    assert record_bytes_of((batch + batch,)) == len(batch) // 10
    assert record_bytes_of(()) is None
    records = [(None, b"x" * (MAX_LOCKED_BYTES // 10), 0, None)]
    for _ in range(20):
        group.log_of("ORDERS").append(build(records, first_timestamp_ms=1, max_timestamp_ms=1))
    assert [each.last_offset for each in group.acquire("a")] == [8]


def test_what_is_released_is_not_charged_and_what_fails_is(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a")
    assert group.acknowledge("a", 0, 0, "release") is None
    assert group.acknowledge("a", 1, 1, "fail") is None
    assert group.acknowledge("a", 2, 2, "fail", delay_ms=500) is None
    assert group.acquire("b") == [some(0, 0, 1), some(1, 1, 2)]
    group.advance(500)
    assert group.acquire("b") == [some(2, 2, 2)]


def test_a_lock_expires_and_is_renewed(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a")
    group.advance(20_000)
    assert group.acknowledge("a", 0, 0, "renew") is None
    group.advance(15_000)
    assert group.acknowledge("a", 1, 1, "accept") == "NOT_ACQUIRED"
    assert group.acquire("b") == [some(1, 1, 2)]
    assert group.acknowledge("a", 0, 0, "accept") is None


def test_an_acknowledgement_of_an_earlier_delivery_does_not_end_the_lock_of_a_later_one(
    group: SimulatedShare,
) -> None:
    """The same member may acquire a record again after its lock has expired, even before it has seen the reply."""
    group.publish(2)
    group.acquire("a")
    group.advance(30_000)
    assert group.acquire("a") == [some(0, 1, 2)]
    for verdict in ("accept", "fail", "release", "reject", "renew"):
        assert group.acknowledge("a", 0, 1, verdict, delivery_count=1) == "NOT_ACQUIRED"
    assert group.acquire("b") == []
    assert group.acknowledge("a", 0, 0, "accept", delivery_count=2) is None
    assert group.acknowledge("a", 1, 1, "accept") is None, "a client that names no delivery"


def test_a_range_is_judged_as_a_whole(group: SimulatedShare) -> None:
    group.publish(4)
    group.acquire("a", 2)
    group.acquire("b", 2)
    assert group.acknowledge("a", 0, 2, "accept") == "NOT_ACQUIRED"
    assert group.acknowledge("a", 0, 1, "accept") is None
    assert group.acknowledge("a", 0, 1, "accept") == "NOT_ACQUIRED"
    assert group.acknowledge("b", 5, 2, "accept") == "INVALID_REQUEST"


def letters(group: SimulatedShare) -> list[dict[str, str]]:
    found = []
    for batch in group.log_of("DLQ").batches:
        for _, _, _, headers in decode_records(batch, parse_header(batch)):
            found.append(headers or {})
    return found


def test_what_is_rejected_or_fails_too_often_is_dead_lettered(group: SimulatedShare) -> None:
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ", max_deliveries=2))
    group.publish(3)
    group.acquire("a")
    assert group.acknowledge("a", 1, 1, "reject", reason="no such\ncustomer") is None
    assert group.acknowledge("a", 0, 0, "fail") is None
    assert group.acquire("a", 1) == [some(0, 0, 2)]
    assert group.acknowledge("a", 0, 0, "fail", reason="again") is None
    assert group.acknowledge("a", 2, 2, "accept") is None
    group.drain()
    found = letters(group)
    assert [each["dead-letter-offset"] for each in found] == ["1", "0"]
    assert [each["dead-letter-reason"] for each in found] == ["no such customer", "again"]
    assert [each["dead-letter-deliveries"] for each in found] == ["1", "2"]
    assert group.state.shares["ORDERS", 0].start == 3
    assert group.alarms == ()


def test_a_lock_that_expires_counts_and_the_last_one_buries(group: SimulatedShare) -> None:
    """A member that dies sends nothing: its records count the attempt, and are dead when held too often."""
    limit = 3
    group.request(
        "x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ", max_deliveries=limit, lock_ms=1_000)
    )
    group.publish(1)
    for delivery in range(1, limit + 1):
        assert letters(group) == []
        assert group.acquire("a") == [some(0, 0, delivery)]
        group.advance(1_000, group.drain)
    group.drain()
    (letter,) = letters(group)
    assert (letter["dead-letter-deliveries"], letter["dead-letter-reason"]) == (
        str(limit),
        "its lock expired",
    )
    assert group.acquire("a") == []
    assert group.state.shares["ORDERS", 0].start == 1


def test_what_retention_took_away_is_not_waited_for() -> None:
    part = SharePartition(ShareProgress("ORDERS.0", 0, (), {}))
    assert not part.on_tail(0, 6), "nothing was taken away"
    part.acquire("a", 2, 0, 1_000)
    assert part.on_tail(4, 6)
    assert [(span.first, span.end) for span in part.acquire("b", 10, 0, 1_000)] == [(4, 6)]
    assert not part.on_tail(4, 6), "nothing new"


def test_a_delay_is_a_duration_when_the_clock_steps_before_a_restart(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    assert group.acknowledge("a", 0, 0, "fail", delay_ms=3_000) is None
    group.now -= 900_000
    group.crash(is_append_durable=True)
    group.drain()
    assert group.acquire("a") == []
    group.advance(3_000)
    assert group.acquire("a") == [some(0, 0, 2)]


def test_dead_records_without_a_topic_are_parked_until_there_is_one(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a")
    group.acknowledge("a", 0, 0, "reject")
    group.acknowledge("a", 1, 1, "accept")
    assert "no dead-letter topic" in group.alarms[0]
    assert group.state.shares["ORDERS", 0].start == 0
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    assert len(letters(group)) == 1
    assert group.alarms == ()
    assert group.state.shares["ORDERS", 0].start == 2


def test_no_letter_is_written_before_the_death_is_durable(group: SimulatedShare) -> None:
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    group.publish(1)
    group.acquire("a")
    group.is_partition_up = False
    group.handle(Received(Sender((b"a",), 99), _reject_first()))
    for call in group.answerable():
        group.answer(call)
    assert letters(group) == []
    group.partition_up()
    group.drain()
    assert len(letters(group)) == 1


def _reject_first() -> object:
    said = Acknowledgement(topic="ORDERS", partition=0, first_offset=0, verdict="reject")
    return Acknowledge(group=GROUP, member_id="a", acknowledgements=[said])


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_it_comes_back_with_what_was_accepted_and_counted(group: SimulatedShare, with_snapshot: bool) -> None:
    group.publish(6)
    group.acquire("a", 4)
    group.acknowledge("a", 1, 2, "accept")
    group.acknowledge("a", 3, 3, "reject", reason="why")
    group.start(with_snapshot=with_snapshot)
    group.drain()
    assert group.acquire("b") == [some(0, 0, 2), some(4, 5, 1)], "it has looked at the log before it gave"
    assert group.acknowledge("a", 0, 0, "accept") == "NOT_ACQUIRED"
    assert "1 of them, from offset 3" in group.alarms[0]


def test_a_group_has_one_type_for_life(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    joined = group.request("b", GroupHeartbeat(group=GROUP, topics=["ORDERS"], owned={}))
    assert isinstance(joined, ErrorBody)
    assert joined.code == "INVALID_GROUP"
    assert "share group" in joined.message
    refused = group.request("b", CommitOffsets(group=GROUP, offsets=[]))
    assert isinstance(refused, ErrorBody)
    other = SimulatedShare()
    other.run()
    other.request("b", GroupHeartbeat(group=GROUP, topics=["ORDERS"], owned={}))
    clash = other.request("a", Acquire(group=GROUP, topics=["ORDERS"], member_id="a"))
    assert isinstance(clash, ErrorBody)
    assert "consumer group" in clash.message


def test_it_is_described_and_deleted(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    described = group.request("x", DescribeGroup(group=GROUP))
    assert (described.type, described.state) == ("share", "stable")
    assert described.share.members == ["a"]
    assert described.share.partitions[0].acquired == 1
    [held] = described.share.partitions[0].held
    assert (held.member_id, held.first_offset, held.last_offset, held.delivery_count) == ("a", 0, 0, 1)
    assert held.locked_until_ms - held.since_ms == 30_000
    refused = group.request("x", DeleteGroup(group=GROUP))
    assert isinstance(refused, ErrorBody)
    assert refused.code == "GROUP_NOT_EMPTY"
    group.acknowledge("a", 0, 0, "accept")
    assert isinstance(group.request("x", DeleteGroup(group=GROUP)), Done)
    assert group.state.is_blank


def test_a_topic_created_anew_is_another_topic(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a")
    group.logs.clear()
    group.recreate("ORDERS")
    group.drain()
    assert group.acknowledge("a", 0, 2, "accept") == "NOT_ACQUIRED"
    group.publish(1)
    assert group.acquire("a") == [AcquiredRange("ORDERS", 0, 0, 0, 1, "ORDERS.1")]


def test_a_topic_that_does_not_exist(group: SimulatedShare) -> None:
    asked = group.ask("a", Acquire(group=GROUP, topics=["NOPE"], member_id="a"))
    group.advance(1_000)
    answer = group.answer_of(asked)
    assert isinstance(answer, ErrorBody)
    assert answer.code == "UNKNOWN_TOPIC"


def test_records_come_inline_to_who_asks_for_them(group: SimulatedShare) -> None:
    group.publish(3)
    request = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", format="records", max_bytes=2)
    reply = group.request("a", request)
    assert isinstance(reply, AcquireReply)
    assert [record.value_text for record in reply.records] == ["0", "1"]
    # Records that did not fit are returned without an attempt.
    assert group.acquire("b") == [some(2, 2, 1)]


def test_a_partition_that_is_away_gives_back_what_was_acquired(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a", 1)
    group.down.add("partition/ORDERS/0")
    request = Acquire(group=GROUP, topics=["ORDERS"], member_id="b", format="records")
    refused = group.request("b", request)
    assert isinstance(refused, ErrorBody)
    assert refused.retriable
    group.down.clear()
    assert group.acquire("b") == [some(1, 2, 1)]


def test_a_letter_is_written_once_though_its_answer_is_lost(group: SimulatedShare) -> None:
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    group.publish(1)
    group.acquire("a")
    group.handle(Received(Sender((b"a",), 99), _reject_first()))
    while not (writes := [call for call in group.calls if isinstance(call.key, DeadLetterWriteCall)]):
        group.answer(group.answerable()[0])
    assert isinstance(writes[0].request, Produce)
    group.lose_answer(writes[0])
    group.advance(100)
    group.drain()
    found = letters(group)
    # The partition would have recognised the second by its dedup id.
    assert len(found) == 2
    assert found[0]["dedup-id"] == found[1]["dedup-id"]
    assert group.state.shares["ORDERS", 0].start == 1


def test_what_lacks_a_codec_here_is_given_back_and_what_is_damaged_is_dead(
    group: SimulatedShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [(None, b"x" * 100, 0, None)]
    frame = build(records, first_timestamp_ms=1, max_timestamp_ms=1, attributes=CODEC_ZSTD)
    group.log_of("ORDERS").append(frame)
    request = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", format="records")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zstandard", None)
        refused = group.request("a", request)
    assert "need the extra" in refused.message
    assert group.request("x", DescribeGroup(group=GROUP)).share.partitions[0].dead == 0
    assert [record.value for record in group.request("a", request).records] == [b"x" * 100]
    group.log_of("ORDERS").append(
        build([(None, b"v", 0, {"a": b"b"})], first_timestamp_ms=1, max_timestamp_ms=1)
    )  # type: ignore[dict-item]
    assert "cannot be decoded" in group.request("b", request).message
    assert group.request("x", DescribeGroup(group=GROUP)).share.partitions[0].dead == 1
