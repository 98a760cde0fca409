"""The pause of a group: durable, ended by its time, without effect on membership; resets meanwhile."""

import pytest

from planaria.transport.machine import StopRequested
from planaria.transport.protocol.errors import ErrorBody
from planaria.transport.protocol.groups import (
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    GroupPause,
    PartitionOffset,
    PauseGroup,
    ResetOffsets,
    ResumeGroup,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.shares import Acquire, AcquireReply
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge
from simulated_share import SimulatedShare

RESET = ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)])


@pytest.fixture
def group() -> SimulatedGroup:
    return SimulatedGroup({"ORDERS": 4}).run()


def pair(group: SimulatedGroup) -> list[SimulatedMember]:
    members = [SimulatedMember(group, "a"), SimulatedMember(group, "b")]
    converge(members)
    return members


def describe(group: SimulatedGroup) -> DescribeGroupReply:
    body = group.request("operator", DescribeGroup(group=GROUP))
    assert isinstance(body, DescribeGroupReply)
    return body


def pause(group: SimulatedGroup, reason: str = "", for_ms: int | None = None) -> None:
    body = group.request("operator", PauseGroup(group=GROUP, reason=reason, for_ms=for_ms))
    assert isinstance(body, Done), body


def resume(group: SimulatedGroup) -> None:
    assert isinstance(group.request("operator", ResumeGroup(group=GROUP)), Done)


def owned(members: list[SimulatedMember]) -> int:
    return sum(len(member.owned) for member in members)


def pass_time(group: SimulatedGroup, members: list[SimulatedMember], milliseconds: int) -> None:
    for _ in range(milliseconds // 500):
        group.advance(500, group.drain)
        for member in members:
            member.turn()


def test_members_stay_and_own_nothing_until_the_group_is_resumed(group: SimulatedGroup) -> None:
    members = pair(group)
    names = {member.member_id for member in members}
    pause(group)
    converge(members)
    assert owned(members) == 0
    assert {each.member_id for each in describe(group).members} == names
    resume(group)
    converge(members)
    assert owned(members) == 4
    assert {member.member_id for member in members} == names


def test_a_parked_heartbeat_is_answered_by_the_pause(group: SimulatedGroup) -> None:
    (member, _) = pair(group)
    member.heartbeat(max_wait_ms=60_000)
    group.drain()
    assert member.receive() is None
    pause(group)
    assert member.receive().assignment == {}


def test_a_group_is_pausing_while_a_member_has_not_let_go(group: SimulatedGroup) -> None:
    first, second = pair(group)
    pause(group)
    second.turn()
    second.turn()
    assert describe(group).state == "pausing"
    assert isinstance(group.request("operator", RESET), ErrorBody)
    topic, partition = min(first.owned)
    assert first.commits(topic, partition, 9) == "ok"
    converge([first, second])
    assert describe(group).state == "paused"


def test_offsets_are_reset_while_members_are_connected(group: SimulatedGroup) -> None:
    members = pair(group)
    pause(group)
    converge(members)
    assert isinstance(group.request("operator", RESET), Done)
    assert group.state.offsets["ORDERS", 0].offset == 3
    resume(group)
    converge(members)
    assert owned(members) == 4
    assert isinstance(group.request("operator", RESET), ErrorBody)


def test_a_member_that_joins_a_paused_group_waits(group: SimulatedGroup) -> None:
    members = pair(group)
    pause(group)
    members.append(SimulatedMember(group, "late"))
    converge(members)
    assert owned(members) == 0
    resume(group)
    converge(members)
    assert owned(members) == 4


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_pause_outlives_the_coordinator(group: SimulatedGroup, with_snapshot: bool) -> None:
    members = pair(group)
    pause(group, "the bank is down")
    if with_snapshot:
        group.handle(StopRequested(group.now + 1_000))
        group.drain()
        assert group.snapshot is not None
        group.start()
    else:
        group.crash(is_append_durable=True)
    group.drain()
    converge(members)
    assert owned(members) == 0
    assert describe(group).paused == GroupPause(
        reason="the bank is down", since_ms=describe(group).paused.since_ms, until_ms=None
    )


def test_a_pause_ends_at_its_time_in_whatever_life_of_the_coordinator(group: SimulatedGroup) -> None:
    members = pair(group)
    pause(group, for_ms=60_000)
    pass_time(group, members, 30_000)
    group.crash(is_append_durable=True)
    group.drain()
    pass_time(group, members, 29_000)
    assert owned(members) == 0
    pass_time(group, members, 2_000)
    converge(members)
    assert owned(members) == 4
    assert describe(group).paused is None


def test_a_second_pause_replaces_the_end_of_the_first(group: SimulatedGroup) -> None:
    members = pair(group)
    pause(group, for_ms=1_000)
    pause(group, "longer")
    pass_time(group, members, 5_000)
    assert owned(members) == 0
    assert describe(group).paused.reason == "longer"


def test_status_shows_the_pause(group: SimulatedGroup) -> None:
    pair(group)
    assert group.actor.paused() is None
    pause(group, "later")
    assert group.actor.paused().reason == "later"
    resume(group)
    assert group.actor.paused() is None


def test_a_paused_group_does_not_sleep() -> None:
    group = SimulatedGroup({"ORDERS": 1})
    group.idle_ms = 1_000
    group.run()
    pause(group)
    group.advance(3_600_000, group.drain)
    assert not group.loop.is_asleep


def test_a_deleted_group_is_not_paused_when_it_is_created_again(group: SimulatedGroup) -> None:
    pause(group)
    assert isinstance(group.request("operator", DeleteGroup(group=GROUP)), Done)
    assert group.state.pause is None


def test_a_paused_share_group_gives_out_nothing_and_takes_nothing_back() -> None:
    group = SimulatedShare()
    group.run()
    group.publish(10)
    (held,) = group.acquire("a", 4)
    pause(group)
    assert describe(group).state == "pausing"
    assert group.acquire("b") == []
    assert group.acknowledge("a", held.first_offset, held.last_offset, "accept") is None
    assert describe(group).state == "paused"
    waiting = group.ask("b", Acquire(group=GROUP, topics=["ORDERS"], member_id="b", max_wait_ms=30_000))
    group.drain()
    assert group.answer_of(waiting) is None
    resume(group)
    reply = group.answer_of(waiting)
    assert isinstance(reply, AcquireReply)
    assert [(each.first_offset, each.last_offset) for each in reply.ranges] == [(4, 9)]
