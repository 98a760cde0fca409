"""Commits: which are accepted, and which refused as stale or unknown."""

import pytest

from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    PartitionOffset,
    ResetOffsets,
)
from planaria.transport.protocol.message import Done
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, code, converge, pair


@pytest.fixture
def group() -> SimulatedGroup:
    return SimulatedGroup({"ORDERS": 6}).run()


def test_a_member_s_commit_is_fenced(group: SimulatedGroup) -> None:
    first, second = pair(group)
    mine, theirs = min(first.owned), min(second.owned)
    assert first.commits(*mine, 10) == "ok"
    assert first.commits(*theirs, 10) == ErrorCode.NOT_ASSIGNED
    assert first.commits(*mine, 10, generation=first.generation + 1) == ErrorCode.STALE_GENERATION
    anonymous = CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 1)])
    assert code(group.request("x", anonymous)) == ErrorCode.GROUP_NOT_EMPTY
    stranger = CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 1)], member_id="x")
    assert code(group.request("x", stranger)) == ErrorCode.UNKNOWN_MEMBER
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == [PartitionOffset(*mine, 10)]


def test_a_member_may_commit_what_it_is_letting_go_of(group: SimulatedGroup) -> None:
    first, second = SimulatedMember(group, "a"), SimulatedMember(group, "b")
    first.turn()
    second.turn()
    first.heartbeat()
    first.receive()
    leaving = min(first.letting_go)
    assert first.commits(*leaving, 10) == "ok"
    first.let_go()
    first.turn()
    assert first.commits(*leaving, 11) == ErrorCode.NOT_ASSIGNED


def test_a_commit_from_before_the_partition_went_away_and_came_back_is_stale(group: SimulatedGroup) -> None:
    first = SimulatedMember(group, "a")
    first.turn()
    then = first.generation
    second = SimulatedMember(group, "b")
    converge([first, second])
    came_back = min(second.owned)
    assert second.commits(*came_back, 50) == "ok"
    second.leave()
    converge([first])
    assert came_back in first.owned
    assert first.commits(*came_back, 20, generation=then) == ErrorCode.STALE_GENERATION
    assert first.commits(*came_back, 60) == "ok"


def test_free_standing_commits_reset_and_delete_need_an_empty_group(group: SimulatedGroup) -> None:
    offsets = [PartitionOffset("ORDERS", 0, 3, "note")]
    assert not isinstance(group.request("x", CommitOffsets(group=GROUP, offsets=offsets)), ErrorBody)
    assert group.request("x", FetchOffsets(group=GROUP, partitions={"ORDERS": [0, 1]})).offsets == offsets
    member = SimulatedMember(group, "a")
    member.turn()
    for request in (ResetOffsets(group=GROUP, offsets=offsets), DeleteGroup(group=GROUP)):
        assert code(group.request("x", request)) == ErrorCode.GROUP_NOT_EMPTY
    member.leave()
    reset = ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 0)])
    assert isinstance(group.request("x", reset), Done)
    reset_to = [PartitionOffset("ORDERS", 0, 0, reset_epoch=1)]
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == reset_to


def test_a_deleted_group_stays_deleted_and_can_begin_anew(group: SimulatedGroup) -> None:
    former = SimulatedMember(group, "former")
    former.turn()
    former.leave()
    offsets = [PartitionOffset("ORDERS", 0, 3)]
    group.request("x", CommitOffsets(group=GROUP, offsets=offsets))
    group.snapshot = b"old"
    assert isinstance(group.request("x", DeleteGroup(group=GROUP)), Done)
    assert isinstance(group.request("x", DeleteGroup(group=GROUP)), Done)
    assert group.snapshot is None
    commit = CommitOffsets(group=GROUP, offsets=offsets)
    assert code(group.request("x", commit)) == ErrorCode.ACTOR_UNAVAILABLE
    group.crash(is_append_durable=False)
    group.drain()
    assert group.is_ready
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == []
    assert not isinstance(group.request("x", commit), ErrorBody)
    fresh = SimulatedGroup({"ORDERS": 6}).run()
    members = [SimulatedMember(each, "a") for each in (group, fresh)]
    for member in members:
        member.turn()
    assert members[0].generation == members[1].generation


def test_members_that_have_not_reported_yet_are_described_by_what_is_kept_of_them(
    group: SimulatedGroup,
) -> None:
    members = [SimulatedMember(group, name) for name in "ab"]
    converge(members)
    group.start()
    group.drain()
    described = group.request("x", DescribeGroup(group=GROUP)).members
    assert [each.owned for each in described] == [each.assignment for each in described]
    assert all(each.generation > 0 for each in described)
