"""Members whose connections are lost: they leave after the grace, unless they come back."""

from typing import Any

import pytest

from planaria.transport.machine import Disconnected, Received, Sender
from planaria.transport.protocol.groups import MemberGone
from planaria.transport.protocol.message import Done
from planaria.transport.request_context import RequestContext, direct_context
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge

GRACE_MS = 500
SESSION_MS = 3_000


class ConnectedGroup(SimulatedGroup):
    """A group whose members have connections of their own, named like them, or of a gateway."""

    gateway: bytes | None = None

    def ask(self, client: str, request: Any) -> int:
        self._requests += 1
        name = client.encode()
        context = direct_context(name, request)
        if self.gateway is not None:
            context = RequestContext(connection=name, is_admitted=True)
        self.handle(Received(Sender((self.gateway or name,), self._requests), request, context=context))
        return self._requests


@pytest.fixture
def group() -> ConnectedGroup:
    made = ConnectedGroup({"ORDERS": 6})
    made.disconnect_grace_ms = GRACE_MS
    made.run()
    return made


def trio(group: SimulatedGroup, **options: Any) -> list[SimulatedMember]:
    members = [SimulatedMember(group, f"m{number}", **options) for number in range(3)]
    for member in members:
        member.turn()
    converge(members)
    return members


def present(group: SimulatedGroup) -> set[str]:
    return set(group.state.members)


def names(*members: SimulatedMember) -> set[str]:
    return {str(member.member_id) for member in members}


def pass_time(group: SimulatedGroup, milliseconds: int, *alive: SimulatedMember) -> None:
    for _ in range(milliseconds // 250):
        group.advance(250)
        for member in alive:
            member.turn()
        group.drain()


def test_a_member_whose_connection_is_lost_leaves_after_the_grace(group: ConnectedGroup) -> None:
    first, second, third = trio(group)
    group.handle(Disconnected(b"m2"))
    pass_time(group, 250, first, second)
    assert present(group) == names(first, second, third), "it may come back"
    pass_time(group, 500, first, second)
    assert present(group) == names(first, second)
    converge([first, second])
    assert len(first.owned) + len(second.owned) == 6


def test_a_member_that_comes_back_within_the_grace_keeps_its_partitions_and_its_whole_session(
    group: ConnectedGroup,
) -> None:
    first, second, third = trio(group)
    owned = set(third.owned)
    group.handle(Disconnected(b"m2"))
    group.advance(GRACE_MS - 100)
    third.name = "another connection"
    third.turn()
    pass_time(group, SESSION_MS - 500, first, second)
    assert present(group) == names(first, second, third)
    assert third.owned == owned


def test_the_end_of_a_connection_that_it_does_not_use_any_longer_means_nothing(group: ConnectedGroup) -> None:
    first, second, third = trio(group)
    third.name = "another connection"
    third.turn()
    group.handle(Disconnected(b"m2"))
    pass_time(group, 1_000, first, second)
    assert present(group) == names(first, second, third)


def test_a_static_member_keeps_its_session(group: ConnectedGroup) -> None:
    member = SimulatedMember(group, "static", instance_id="one")
    member.turn()
    converge([member])
    group.handle(Disconnected(b"static"))
    pass_time(group, SESSION_MS - 250)
    assert present(group) == names(member)
    pass_time(group, 500)
    assert not present(group)


def test_without_a_grace_the_session_decides() -> None:
    group = ConnectedGroup({"ORDERS": 6})
    group.run()
    first, second, third = trio(group)
    group.handle(Disconnected(b"m2"))
    pass_time(group, SESSION_MS - 500, first, second)
    assert present(group) == names(first, second, third)


def test_a_gateway_that_is_lost_takes_no_member_with_it_and_one_that_reports_a_member_does(
    group: ConnectedGroup,
) -> None:
    group.gateway = b"gateway"
    first, second, third = trio(group)
    group.handle(Disconnected(b"gateway"))
    pass_time(group, 1_000, first, second)
    assert present(group) == names(first, second, third)
    gone = MemberGone(group=GROUP, member_id=str(third.member_id), connection=b"m2")
    other = MemberGone(group=GROUP, member_id=str(second.member_id), connection=b"another")
    for notice in (gone, other):
        group.handle(Received(Sender((b"gateway",), None), notice))
    pass_time(group, 1_000, first, second)
    assert present(group) == names(first, second)


def test_a_notice_is_answered_unless_it_is_a_cast(group: ConnectedGroup) -> None:
    notice = MemberGone(group=GROUP, member_id="m", connection=b"c")
    group.handle(Received(Sender((b"gateway",), None), notice))
    assert group.replies == {}
    group.handle(Received(Sender((b"gateway", b"1"), 7), notice))
    assert group.replies == {7: Done()}


def test_members_that_lose_their_connections_all_the_time_move_partitions_once_a_session_each(
    group: ConnectedGroup,
) -> None:
    members = trio(group)
    ends = 0
    for _ in range(4):
        for member in members:
            member.turn()
        converge(members)
        before = present(group)
        for member in members:
            group.handle(Disconnected(member.name.encode()))
        group.advance(GRACE_MS)
        group.drain()
        ends += len(before - present(group))
    assert ends == len(members), "12 connections were lost in less than a session"
