"""Requests that acquire: with acknowledgements, and of members that have gone."""

from typing import Any

import pytest

from planaria.actors.journal.appender import AppendCall
from planaria.transport.machine import Disconnected
from planaria.transport.protocol.groups import (
    LeaveGroup,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.session import Cancel
from planaria.transport.protocol.shares import (
    Acknowledgement,
    Acquire,
)
from simulated_group import GROUP
from simulated_share import SimulatedShare, settle, some


@pytest.fixture
def group() -> SimulatedShare:
    group = SimulatedShare()
    group.run()
    return group


def accepting(member: str, first: int, last: int, count: int = 10, **options: Any) -> Acquire:
    """Return the request of a member that accepts records and acquires others."""
    said = Acknowledgement(
        topic="ORDERS", partition=0, first_offset=first, last_offset=last, verdict="accept"
    )
    return Acquire(
        group=GROUP,
        topics=["ORDERS"],
        member_id=member,
        max_records=count,
        acknowledgements=[said],
        **options,
    )


def test_acknowledging_and_acquiring_is_one_request_and_one_record(group: SimulatedShare) -> None:
    group.publish(5)
    group.acquire("a", 2)
    before = group.log.end
    asked = group.ask("a", accepting("a", 0, 1, count=2))
    while not (appends := [call for call in group.answerable() if isinstance(call.key, AppendCall)]):
        group.answer(group.answerable()[0])
    assert group.answer_of(asked) is None, "neither is durable"
    group.answer(appends[0])
    reply = group.answer_of(asked)
    assert (reply.ranges, [each.error for each in reply.results]) == ([some(2, 3)], [None])
    assert group.log.end == before + 1
    assert group.state.shares["ORDERS", 0].start == 2


def test_a_request_that_acknowledges_does_not_wait_for_records(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    reply = group.request("a", accepting("a", 0, 0, max_wait_ms=30_000))
    assert (reply.ranges, len(reply.results)) == ([], 1)
    again = group.request("a", accepting("a", 0, 0))
    assert again.results[0].error.code == "NOT_ACQUIRED"
    assert again.ranges == []


def test_a_repeat_of_such_a_request_acknowledges_nothing_twice(group: SimulatedShare) -> None:
    group.publish(4)
    group.acquire("a", 2)
    first = group.request("a", accepting("a", 0, 1, count=1))
    again = group.request("a", accepting("a", 0, 1, count=1))
    assert [each.error is None for each in (*first.results, *again.results)] == [True, False]
    assert (first.ranges, again.ranges) == ([some(2, 2)], [some(3, 3)])
    assert group.acknowledge("a", 2, 3, "accept") is None


def test_what_such_a_request_accepted_counts_though_its_sender_has_gone(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    group.ask("a", accepting("a", 0, 0, count=1))
    group.handle(Disconnected(b"a"))
    group.drain()
    assert group.acquire("b") == [some(1, 1)], "not charged: it was never answered"
    assert group.state.shares["ORDERS", 0].start == 1


def test_room_that_it_frees_goes_to_members_that_wait_before(group: SimulatedShare) -> None:
    group.publish(2_000)
    group.acquire("a", 1_000)
    waits = group.ask("b", Acquire(group=GROUP, topics=["ORDERS"], member_id="b", max_wait_ms=30_000))
    group.drain()
    reply = group.request("a", accepting("a", 0, 999, count=1_000))
    assert group.answer_of(waits).ranges == [some(1_000, 1_099)]
    assert reply.ranges == [some(1_100, 1_999)]


def test_a_member_that_wants_records_inline_gets_them_with_the_results(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a", 1)
    reply = group.request("a", accepting("a", 0, 0, count=1, format="records"))
    assert [record.offset for record in reply.records] == [1]
    assert [each.error for each in reply.results] == [None]
    group.down.add("partition/ORDERS/0")
    reply = group.request("a", accepting("a", 1, 1, count=1, format="records"))
    assert (reply.records, [each.error for each in reply.results]) == ([], [None])


def test_a_coordinator_that_dies_forgets_both_or_neither(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a", 1)
    settle(group)
    group.ask("a", accepting("a", 0, 0, count=1))
    group.start()
    group.drain()
    assert group.acquire("b") == [some(0, 0, 2), some(1, 1)]


WAITING = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=30_000)


def test_a_lost_connections_acquire_locks_nothing(group: SimulatedShare) -> None:
    group.ask("a", WAITING)
    group.drain()
    group.handle(Disconnected(b"a"))
    group.publish(1)
    assert group.acquire("b") == [some(0, 0)]


def test_what_a_cancelled_acquire_was_given_is_not_charged(group: SimulatedShare) -> None:
    group.publish(1)
    group.ask("a", WAITING)
    group.drain()
    group.ask("a", Cancel())
    group.drain()
    assert group.acquire("b") == [some(0, 0)]


def test_a_member_that_leaves_gives_back_what_it_holds(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a")
    assert isinstance(group.request("a", LeaveGroup(group=GROUP, member_id="a")), Done)
    assert group.acquire("b") == [some(0, 2)]
