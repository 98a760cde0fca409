"""Members of a share group whose connections are lost: their records return, and no record kills without end."""

from collections import Counter
from typing import Any

import pytest

from planaria.actors.journal.appender import AppendCall
from planaria.transport.machine import Disconnected, Received, Sender
from planaria.transport.protocol.groups import MemberGone
from planaria.transport.protocol.shares import Acquire, AcquiredRange, ConfigureShareGroup
from planaria.transport.request_context import RequestContext
from simulated_group import GROUP
from simulated_share import SimulatedShare

GRACE_MS = 500
LOCK_MS = 60_000


class ConnectedShare(SimulatedShare):
    """A share group whose members are connected to the coordinator itself, each under its own name."""

    def ask(self, client: str, request: Any) -> int:
        self._requests += 1
        name = client.encode()
        context = RequestContext(connection=name)
        self.handle(Received(Sender((name,), self._requests), request, context=context))
        return self._requests


def some(first: int, last: int, deliveries: int = 1) -> AcquiredRange:
    return AcquiredRange("ORDERS", 0, first, last, deliveries, "ORDERS.0")


def shared(grace_ms: int = GRACE_MS, **settings: object) -> SimulatedShare:
    group = ConnectedShare()
    group.disconnect_grace_ms = grace_ms
    group.run()
    group.request("admin", ConfigureShareGroup(group=GROUP, lock_ms=LOCK_MS, **settings))  # type: ignore[arg-type]
    return group


@pytest.fixture
def group() -> SimulatedShare:
    return shared()


def acquire(
    group: SimulatedShare, member: str, count: int = 100, client: bytes = b"", *, is_charged: bool = False
) -> list[AcquiredRange]:
    """Acquire records for a member, whose client has this connection, its name, or another one."""
    connection = client or member.encode()
    request = Acquire(
        group=GROUP, topics=["ORDERS"], member_id=member, max_records=count, charge_on_disconnect=is_charged
    )
    number = 10_000 + len(group.replies)
    context = RequestContext(connection=connection)
    group.handle(Received(Sender((connection,), number), request, context=context))
    group.drain()
    ranges: list[AcquiredRange] = group.answer_of(number).ranges
    return ranges


def lose(group: SimulatedShare, connection: bytes, after_ms: int = GRACE_MS) -> None:
    group.handle(Disconnected(connection))
    group.advance(after_ms)
    group.drain()


def test_records_return_after_the_grace_and_the_delivery_does_not_count(group: SimulatedShare) -> None:
    group.publish(2)
    acquire(group, "a", 1)
    acquire(group, "b", 1)
    lose(group, b"a", GRACE_MS - 1)
    assert acquire(group, "c") == []
    group.advance(1)
    group.drain()
    assert acquire(group, "c") == [some(0, 0)], "and b keeps its own"


def test_a_record_that_was_lost_is_counted_before_the_next_member_has_it(group: SimulatedShare) -> None:
    """A first delivery does not wait for its record; the next one after a loss does, though its count is the same."""
    group.publish(1)
    acquire(group, "a")
    lose(group, b"a")
    asked = group.ask("b", Acquire(group=GROUP, topics=["ORDERS"], member_id="b"))
    while calls := [call for call in group.answerable() if not isinstance(call.key, AppendCall)]:
        group.answer(calls[0])
    assert group.answer_of(asked) is None
    group.drain()
    assert group.answer_of(asked).ranges == [some(0, 0)]
    assert group.state.shares["ORDERS", 0].losses == [(0, 1, 1)]


def test_a_member_that_asks_for_it_is_charged(group: SimulatedShare) -> None:
    group.publish(1)
    acquire(group, "a", is_charged=True)
    lose(group, b"a")
    assert acquire(group, "b") == [some(0, 0, 2)]


def test_a_member_that_comes_back_within_the_grace_keeps_its_records(group: SimulatedShare) -> None:
    group.publish(2)
    acquire(group, "a", 1)
    lose(group, b"a", GRACE_MS - 1)
    acquire(group, "a", 1, b"again")
    group.advance(GRACE_MS)
    group.drain()
    assert acquire(group, "c") == []
    assert group.acknowledge("a", 0, 1, "accept") is None


def test_without_a_grace_the_locks_decide() -> None:
    group = shared(0)
    group.publish(1)
    acquire(group, "a")
    lose(group, b"a", LOCK_MS - 1)
    assert acquire(group, "b") == []
    group.advance(1)
    group.drain()
    assert acquire(group, "b") == [some(0, 0, 2)], "an expired lock is a failure"


def test_through_a_gateway_only_the_connection_used_last_counts(group: SimulatedShare) -> None:
    def through_gateway(client: bytes) -> None:
        request = Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_records=1)
        context = RequestContext(connection=client, is_admitted=True)
        sender = Sender((b"gateway",), 20_000 + len(group.replies))
        group.handle(Received(sender, request, context=context))
        group.drain()

    def gone(client: bytes) -> None:
        request = MemberGone(group=GROUP, member_id="a", connection=client)
        group.handle(Received(Sender((b"gateway",), None), request))
        group.advance(GRACE_MS)
        group.drain()

    group.publish(1)
    through_gateway(b"1")
    through_gateway(b"2")
    gone(b"1")
    lose(group, b"gateway")
    assert acquire(group, "b") == []
    gone(b"2")
    assert acquire(group, "b") == [some(0, 0)]


def deliveries_until_dead(group: SimulatedShare, limit: int = 50) -> int:
    """Have each member that gets the record die of it; return how often it was delivered."""
    for count in range(limit):
        member = f"m{count}"
        if not acquire(group, member, 1):
            return count
        lose(group, member.encode())
    return limit


def test_a_record_that_kills_its_members_is_dead_after_as_many_losses_as_it_may_have_failures() -> None:
    group = shared(max_deliveries=3, dead_letter="DLQ")
    group.publish(1)
    assert deliveries_until_dead(group) == 3
    assert group.log_of("DLQ").end == 1


def test_losses_survive_a_restart_of_the_coordinator() -> None:
    group = shared(max_deliveries=3, dead_letter="DLQ")
    group.publish(1)
    for member in ("a", "b"):
        assert acquire(group, member) == [some(0, 0)]
        lose(group, member.encode())
        group.run()
        group.drain()
    assert deliveries_until_dead(group) == 1


def test_one_delivery_is_one_delivery() -> None:
    group = shared(max_deliveries=1, dead_letter="DLQ")
    group.publish(1)
    assert deliveries_until_dead(group) == 1


def test_losses_and_failures_are_counted_apart(group: SimulatedShare) -> None:
    group.publish(1)
    for number in range(3):
        acquire(group, f"m{number}")
        lose(group, f"m{number}".encode())
    assert acquire(group, "a") == [some(0, 0)]
    assert group.acknowledge("a", 0, 0, "fail") is None
    assert acquire(group, "a") == [some(0, 0, 2)]


def test_parts_of_a_lost_range_have_counts_of_their_own() -> None:
    group = shared(max_deliveries=2, dead_letter="DLQ")
    group.publish(4)
    acquire(group, "a", 2)
    lose(group, b"a")
    acquire(group, "b", 4)
    lose(group, b"b")
    assert acquire(group, "c") == [some(2, 3)]
    assert group.log_of("DLQ").end == 2
    assert group.acknowledge("c", 2, 3, "accept") is None
    assert group.state.shares["ORDERS", 0].losses == []


def test_the_records_of_dead_members_are_handled_by_the_others() -> None:
    group = shared(max_deliveries=50)
    group.publish(20)
    handled: Counter[int] = Counter()
    for number in range(20):
        member = f"m{number}"
        for found in acquire(group, member, 5):
            offsets = range(found.first_offset, found.last_offset + 1)
            for offset in list(offsets)[:2]:
                assert group.acknowledge(member, offset, offset, "accept") is None
                handled[offset] += 1
        lose(group, member.encode())
    assert handled == Counter(range(20))
