"""Records removed by retention or compaction, dead letters in bulk, and concurrent acquisitions. No process."""

from typing import Any

import pytest

from planaria.actors.coordinator.share.losses import Loss
from planaria.actors.coordinator.share.partition import SharePartition
from planaria.actors.coordinator.share.records import ShareProgress, runs_of
from planaria.transport.batch import decode_records, parse_header
from planaria.transport.machine import StopRequested
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import LeaveGroup
from planaria.transport.protocol.shares import (
    Acknowledge,
    Acknowledgement,
    Acquire,
    AcquiredRange,
    ConfigureShareGroup,
)
from simulated_group import GROUP
from simulated_share import SimulatedShare


@pytest.fixture
def group() -> SimulatedShare:
    group = SimulatedShare()
    group.run()
    return group


def some(first: int, last: int, deliveries: int = 1) -> AcquiredRange:
    return AcquiredRange("ORDERS", 0, first, last, deliveries, "ORDERS.0")


def letter_offsets(group: SimulatedShare) -> list[int]:
    found = []
    for batch in group.log_of("DLQ").batches:
        for _, _, _, headers in decode_records(batch, parse_header(batch)):
            found.append(int((headers or {})["dead-letter-offset"]))
    return found


def reject(group: SimulatedShare, count: int) -> None:
    group.publish(count)
    group.acquire("a", count)
    assert group.acknowledge("a", 0, count - 1, "reject", reason="why") is None


def test_what_retention_took_away_is_passed_over_where_the_group_asks_for_more(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a")
    assert group.acknowledge("a", 0, 1, "accept") is None
    group.publish(8)
    group.log_of("ORDERS").retain_from(7)
    # It requests offset 2, which no longer exists, and learns the log's start.
    assert group.acquire("a") == []
    assert group.acquire("a") == [some(7, 9)]


def test_a_dead_record_that_retention_took_away_is_done_without_a_letter(group: SimulatedShare) -> None:
    reject(group, 2)
    group.publish(1)
    group.log_of("ORDERS").retain_from(2)
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    group.drain()
    assert letter_offsets(group) == []
    assert group.state.shares["ORDERS", 0].start == 2
    assert group.alarms == ()


def test_a_partition_that_does_not_answer_delays_a_letter_and_loses_none(group: SimulatedShare) -> None:
    reject(group, 2)
    group.down.add("partition/ORDERS/0")
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    group.drain()
    assert letter_offsets(group) == []
    group.down.clear()
    group.advance(10_000, group.drain)
    assert letter_offsets(group) == [0, 1]


def test_a_dead_record_that_cannot_be_read_is_kept_and_its_letter_follows(group: SimulatedShare) -> None:
    reject(group, 1)
    log = group.log_of("ORDERS")
    intact = list(log.batches)
    log.batches[0] = log.batches[0][:-1] + b"\xff"
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    group.drain()
    assert letter_offsets(group) == []
    assert "CORRUPT_LOG" in group.alarms[0]
    log.batches[:] = intact
    group.advance(10_000, group.drain)
    assert letter_offsets(group) == [0]
    assert group.alarms == ()


def test_more_dead_records_than_are_copied_at_once_all_have_their_letters(group: SimulatedShare) -> None:
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    reject(group, 200)
    group.drain()
    assert sorted(letter_offsets(group)) == list(range(200))
    assert group.state.shares["ORDERS", 0].start == 200


def test_records_around_a_gap_come_inline_and_the_gap_is_done(group: SimulatedShare) -> None:
    group.publish(2)
    group.log_of("ORDERS").leave_a_gap(5)
    group.publish(2)
    asked = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", format="records")
    assert [record.offset for record in group.request("a", asked).records] == [0, 1, 7, 8]
    for first, last in ((0, 1), (7, 8)):
        assert group.acknowledge("a", first, last, "accept") is None
    assert group.state.shares["ORDERS", 0].start == 9


def test_members_that_ask_before_the_log_has_answered_all_wait_for_it(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    group.calls.clear()
    asked = [
        group.ask(name, Acquire(group=GROUP, topics=["ORDERS"], member_id=name, max_records=1))
        for name in ("b", "c")
    ]
    group.publish(2)
    assert [group.answer_of(each).ranges for each in asked] == [[some(1, 1)], [some(2, 2)]]


def test_who_waits_is_told_once_that_the_coordinator_stops(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1, lock_ms=1_000)
    group.acquire("c", 1)
    asked = group.ask("b", Acquire(group=GROUP, topics=["ORDERS"], member_id="b", max_wait_ms=30_000))
    group.drain()
    accept = Acknowledge(group=GROUP, member_id="c", acknowledgements=[said(1, 1, "accept", topic="ORDERS")])
    group.ask("c", accept)  # its record is on its way to the disk
    group.handle(StopRequested(group.now + 5_000))
    assert group.answer_of(asked).code == "SHUTTING_DOWN"
    group.advance(1_000)  # the lock of a expires: b would be next
    group.drain()
    assert group.answer_of(asked).code == "SHUTTING_DOWN"


def test_a_topic_that_the_group_consumes_takes_no_letters_of_it(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    refused = group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="ORDERS"))
    assert isinstance(refused, ErrorBody)
    assert refused.code == "INVALID_REQUEST"
    assert group.state.share_settings is None or group.state.share_settings.dead_letter is None


def test_nobody_acquires_the_letters_of_the_group(group: SimulatedShare) -> None:
    group.request("x", ConfigureShareGroup(group=GROUP, dead_letter="DLQ"))
    refused = group.request("a", Acquire(group=GROUP, topics=["ORDERS", "DLQ"], member_id="a"))
    assert isinstance(refused, ErrorBody)
    assert (refused.code, "dead-letter topic" in refused.message) == ("INVALID_REQUEST", True)


def test_what_a_leaving_member_gave_back_is_not_charged_after_a_restart(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    group.request("a", LeaveGroup(group=GROUP, member_id="a"))
    group.start()
    group.drain()
    assert group.acquire("b") == [some(0, 0, 1)]


# The partition's own state.


def part_of(count: int) -> SharePartition:
    part = SharePartition(ShareProgress("id", 0))
    part.on_tail(0, count)
    return part


def said(first: int, last: int, verdict: Any, reason: str = "", topic: str = "T") -> Acknowledgement:
    return Acknowledgement(
        topic=topic, partition=0, first_offset=first, last_offset=last, verdict=verdict, reason=reason
    )


def test_retention_takes_the_reasons_of_what_it_takes_and_no_others() -> None:
    part = part_of(4)
    part.acquire("a", 4, 0, 1_000)
    for offset in range(4):
        part.acknowledge("a", said(offset, offset, "reject", f"reason {offset}"), 0, 0, 5)
    part.on_tail(2, 4)
    assert [(dead.offset, dead.reason) for dead in part.dead()] == [(2, "reason 2"), (3, "reason 3")]


def test_a_letter_of_what_retention_took_away_settles_nothing() -> None:
    part = part_of(4)
    part.acquire("a", 1, 0, 1_000)
    part.acknowledge("a", said(0, 0, "reject"), 0, 0, 5)
    part.on_tail(1, 4)
    before = part.progress(0)
    part.settle(0, 1)
    assert part.progress(0) == before


def test_neighbours_that_are_alike_are_kept_as_one_run() -> None:
    part = part_of(6)
    part.acquire("a", 2, 0, 1_000)
    part.acquire("b", 2, 0, 2_000)
    part.acquire("c", 2, 0, 3_000)
    part.take_back("c", Loss(5, is_charged=True), 0)
    assert [run[0] for run in runs_of(part.spans)] == [6]
