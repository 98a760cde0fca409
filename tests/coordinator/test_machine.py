"""The coordinator's machine: heartbeats, rebalances, commits, sessions, fences. No process, no sleep."""

import pytest

from planaria.actors.coordinator import members as members_module
from planaria.actors.journal import recorder as recorder_module
from planaria.actors.journal.appender import AppendCall, AppendRefused, Fenced
from planaria.transport.machine import Answered, StopRequested, WallClockStepped
from planaria.transport.protocol.data import Produce, ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DescribeGroup,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    PartitionOffset,
)
from planaria.transport.protocol.message import Done
from simulated_group import GROUP, ORDERS, SimulatedGroup, SimulatedMember, code, converge, pair


@pytest.fixture
def group() -> SimulatedGroup:
    return SimulatedGroup({"ORDERS": 6}).run()


def test_the_first_member_gets_everything_with_its_first_answer(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    reply = member.turn()
    assert reply.assignment == {"ORDERS": [0, 1, 2, 3, 4, 5]}
    assert reply.generation > 0
    assert reply.heartbeat_interval_ms == 1_000


def test_an_answer_waits_until_its_records_are_durable(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.heartbeat()
    [append] = [call for call in group.answerable() if isinstance(call.request, Produce)]
    assert member.receive() is None
    group.answer(append)
    assert member.receive().assignment["ORDERS"] == [0, 1, 2, 3, 4, 5]


def test_decisions_gather_while_an_append_is_out(group: SimulatedGroup) -> None:
    members = [SimulatedMember(group, f"m{number}") for number in range(5)]
    before = len(group.log.batches)
    for member in members:
        member.heartbeat()
    group.drain()
    assert len(group.log.batches) - before == 2
    assert all(member.receive() is not None for member in members)


def test_a_partition_moves_only_after_its_owner_said_that_it_let_go(group: SimulatedGroup) -> None:
    first, second = SimulatedMember(group, "a"), SimulatedMember(group, "b")
    first.turn()
    assert second.turn().assignment == {}
    first.heartbeat()
    first.receive()
    assert len(first.letting_go) == 3
    second.turn()
    first.heartbeat()  # still holding
    first.receive()
    assert second.turn().assignment == {}
    first.let_go()
    first.turn()
    second.turn()
    assert len(second.owned) == 3
    assert not first.owned & second.owned


def test_a_report_that_crossed_a_grant_releases_nothing(group: SimulatedGroup) -> None:
    first, second = pair(group)
    stale = first.generation
    held = set(group.state.members[first.member_id].held)
    second.leave()
    group.drain()
    granted = set(group.state.members[first.member_id].held)
    assert granted > held
    third = SimulatedMember(group, "third")
    third.turn()
    # First has not received the last two assignments: its report predates them.
    report = GroupHeartbeat(group=GROUP, member_id=first.member_id, generation=stale, owned={})
    group.request("first", report)
    assert set(group.state.members[first.member_id].held) == granted


def test_a_parked_heartbeat_is_answered_when_the_assignment_changes(group: SimulatedGroup) -> None:
    first, second = SimulatedMember(group, "a"), SimulatedMember(group, "b")
    first.turn()
    first.heartbeat(max_wait_ms=60_000)
    assert first.receive() is None
    second.heartbeat()
    group.drain()
    assert len(first.receive().assignment["ORDERS"]) == 3


def test_a_parked_heartbeat_is_answered_at_the_heartbeat_interval(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    member.heartbeat(max_wait_ms=60_000)
    group.advance(999)
    assert member.receive() is None
    group.advance(1)
    assert member.receive() is not None


def test_a_newer_heartbeat_answers_the_older_one(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    member.heartbeat(max_wait_ms=1_000)
    older = member.outstanding
    member.heartbeat(max_wait_ms=1_000)
    assert older is not None
    assert group.answer_of(older) is not None
    assert member.receive() is None


def test_of_two_heartbeats_that_waited_for_one_append_only_the_newer_is_parked(group: SimulatedGroup) -> None:
    first, second = SimulatedMember(group, "a"), SimulatedMember(group, "b")
    first.turn()
    second.turn()
    first.turn()
    first.turn()  # revokes, and receives its share
    commit = first.commit("ORDERS", min(first.owned)[1], 1)  # an append is in flight: later records gather
    ids = []
    for topics in (["ORDERS", "X"], ["ORDERS", "Y"]):
        request = GroupHeartbeat(
            group=GROUP,
            member_id=first.member_id,
            generation=first.generation,
            topics=topics,
            max_wait_ms=900,
        )
        ids.append(group.ask("a", request))
    group.drain()
    assert group.answer_of(commit) is not None
    assert group.answer_of(ids[0]) is not None
    assert group.answer_of(ids[1]) is None


def test_nobody_is_told_of_an_assignment_that_is_not_durable(group: SimulatedGroup) -> None:
    first, second = pair(group)
    first.heartbeat(max_wait_ms=1_000)
    group.ask("b", LeaveGroup(group=GROUP, member_id=second.member_id or ""))
    group.advance(1_000)  # the append that gives everything to the first is still in flight
    reply = first.receive()
    assert len(reply.assignment["ORDERS"]) == 3
    group.drain()
    assert len(first.turn().assignment["ORDERS"]) == 6


def test_a_silent_member_expires_though_its_heartbeat_is_parked(group: SimulatedGroup) -> None:
    first, second = pair(group)
    first.is_frozen = True
    first.heartbeat(max_wait_ms=60_000)
    for _ in range(6):
        group.advance(600)
        second.turn()
    converge([second])
    assert sorted(second.owned) == ORDERS
    first.is_frozen = False
    first.outstanding = None
    assert code(first.turn()) == ErrorCode.UNKNOWN_MEMBER
    converge([first, second])
    assert len(first.owned) == 3


def test_a_frozen_coordinator_expires_nobody(group: SimulatedGroup) -> None:
    first, second = pair(group)
    group.freeze(60_000)
    group.drain()
    assert set(group.state.members) == {first.member_id, second.member_id}
    group.advance(3_000)
    group.drain()
    assert not group.state.members


def test_sessions_restart_in_full_after_a_replay(group: SimulatedGroup) -> None:
    first, second = pair(group)
    group.advance(2_900)
    group.is_partition_up = False
    group.crash(is_append_durable=False)
    group.advance(10_000)
    assert not group.is_ready
    group.partition_up()
    group.drain()
    assert group.is_ready
    group.advance(2_999)
    group.drain()
    assert set(group.state.members) == {first.member_id, second.member_id}
    group.advance(1)
    group.drain()
    assert not group.state.members


def test_a_clock_that_a_test_has_moved_ends_no_session(group: SimulatedGroup) -> None:
    first, second = pair(group)
    group.now += 3_100  # a little behind the end of the sessions, as if a member were late
    group.handle(WallClockStepped(0, 0, 3_100))
    group.freeze(0)
    group.drain()
    assert set(group.state.members) == {first.member_id, second.member_id}
    group.advance(3_000)
    group.drain()
    assert not group.state.members


def test_a_leaver_s_partitions_move_at_once_and_no_others(group: SimulatedGroup) -> None:
    members = [SimulatedMember(group, f"m{number}") for number in range(3)]
    for member in members:
        member.turn()
    converge(members)
    before = [set(member.owned) for member in members]
    assert isinstance(members[2].leave(), Done)
    converge(members[:2])
    assert before[0] < members[0].owned
    assert before[1] < members[1].owned
    assert code(group.request("m2", LeaveGroup(group=GROUP, member_id="nobody"))) == ErrorCode.UNKNOWN_MEMBER


def test_a_repeated_join_under_an_own_name_finds_itself(group: SimulatedGroup) -> None:
    request = GroupHeartbeat(group=GROUP, member_id="mine", topics=["ORDERS"], owned={})
    first = group.request("a", request)
    again = group.request("a", request)
    assert first.member_id == again.member_id == "mine"
    assert first.assignment == again.assignment
    assert list(group.state.members) == ["mine"]


def test_an_expired_member_does_not_come_back_by_a_heartbeat(group: SimulatedGroup) -> None:
    late = GroupHeartbeat(group=GROUP, member_id="mine", generation=1, topics=["ORDERS"])
    assert code(group.request("a", late)) == ErrorCode.UNKNOWN_MEMBER


def test_a_joining_member_names_its_topics(group: SimulatedGroup) -> None:
    assert code(group.request("a", GroupHeartbeat(group=GROUP))) == ErrorCode.INVALID_REQUEST


def test_a_static_member_keeps_its_partitions_over_a_restart(group: SimulatedGroup) -> None:
    other = SimulatedMember(group, "other")
    old = SimulatedMember(group, "old", instance_id="worker-1")
    other.turn()
    converge([other, old])
    owned, others = set(old.owned), set(other.owned)
    new = SimulatedMember(group, "new", instance_id="worker-1")
    reply = new.turn()
    assert new.owned == owned
    assert reply.generation > old.generation
    converge([new, other])
    assert new.owned == owned
    assert other.owned == others
    assert old.commits(*sorted(owned)[0], 5) == ErrorCode.FENCED_MEMBER
    assert code(old.turn()) == ErrorCode.FENCED_MEMBER
    new.heartbeat(max_wait_ms=1_000)
    assert new.receive() is None, "a member at rest is parked"


def test_the_parked_heartbeat_of_a_replaced_process_hears_that_it_is_fenced(group: SimulatedGroup) -> None:
    old = SimulatedMember(group, "old", instance_id="worker-1")
    old.turn()
    old.heartbeat(max_wait_ms=1_000)
    SimulatedMember(group, "new", instance_id="worker-1").turn()
    assert code(old.receive()) == ErrorCode.FENCED_MEMBER


def test_new_partitions_and_new_topics_are_given_out(group: SimulatedGroup) -> None:
    first = SimulatedMember(group, "a", topics=("ORDERS", "PAYMENTS"))
    first.turn()
    assert sorted(first.owned) == ORDERS
    first.heartbeat(max_wait_ms=1_000)
    group.set_topics({"ORDERS": 8})
    group.drain()
    assert first.receive().assignment == {"ORDERS": list(range(8))}
    group.set_topics({"ORDERS": 8, "PAYMENTS": 1})
    group.drain()
    converge([first])
    assert ("PAYMENTS", 0) in first.owned


def test_offsets_of_a_deleted_topic_go_with_it(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    assert member.commits("ORDERS", 0, 7) == "ok"
    group.set_topics({"OTHER": 1})
    group.drain()
    converge([member])
    assert not member.owned
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == []


def test_a_restarted_controller_counts_its_versions_anew(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    group.version = 0
    group.topics = {"ORDERS": 9}
    [watch] = [call for call in group.calls if call.address == "controller"]
    assert watch.request.after_version == 1
    group.drain()
    converge([member])
    assert len(member.owned) == 9


def test_what_cannot_be_kept_is_refused(group: SimulatedGroup) -> None:
    huge = 10**30
    for offset in (
        PartitionOffset("ORDERS", 0, 1, "x" * 5_000),
        PartitionOffset("T" * 300, 0, 1),
        PartitionOffset("ORDERS", huge, 1),
        PartitionOffset("ORDERS", -1, 1),
    ):
        body = group.request("x", CommitOffsets(group=GROUP, offsets=[offset]))
        assert code(body) == ErrorCode.INVALID_REQUEST
    for request in (
        GroupHeartbeat(group=GROUP, topics=["T" * 300]),
        GroupHeartbeat(group=GROUP, topics=["T"], client_id="c" * 300),
        GroupHeartbeat(group=GROUP, topics=[f"T{number}" for number in range(1_001)]),
    ):
        assert code(group.request("x", request)) == ErrorCode.INVALID_REQUEST
    assert code(group.request("x", DescribeGroup(group="other"))) == ErrorCode.INVALID_GROUP
    reply = group.request(
        "x", GroupHeartbeat(group=GROUP, topics=["ORDERS"], owned={"T": [huge]}, generation=0)
    )
    assert group.request("x", DescribeGroup(group=GROUP)).members[0].owned == {}
    ahead = GroupHeartbeat(group=GROUP, member_id=reply.member_id, generation=huge)
    assert code(group.request("x", ahead)) == ErrorCode.STALE_GENERATION


def test_a_full_group_takes_nobody_else(group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    assert members_module.MAX_MEMBERS == 1_000
    monkeypatch.setattr("planaria.actors.coordinator.member_decisions.MAX_MEMBERS", 2)
    pair(group)
    assert code(SimulatedMember(group, "c").turn()) == ErrorCode.GROUP_FULL


def test_too_many_waiting_requests_are_refused(
    group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_WAITING", 6)
    commit = CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)])
    ids = [group.ask("x", commit) for _ in range(5)]
    assert [group.answer_of(number) is None for number in ids] == [True] * 3 + [False] * 2
    assert group.answer_of(ids[3]).code == ErrorCode.OVERLOADED
    assert group.answer_of(ids[3]).retriable
    group.drain()
    assert all(not isinstance(group.answer_of(number), ErrorBody) for number in ids[:3])


def test_a_large_commit_goes_out_in_batches_and_is_answered_after_the_last(
    group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_BATCH_BYTES", 500)
    offsets = [PartitionOffset("ORDERS", number, number) for number in range(100)]
    number = group.ask("x", CommitOffsets(group=GROUP, offsets=offsets))
    before = len(group.log.batches)
    while group.answer_of(number) is None:
        [append] = [call for call in group.answerable() if isinstance(call.request, Produce)]
        group.answer(append)
    assert len(group.log.batches) - before > 5
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == offsets
    group.crash(is_append_durable=False)
    group.drain()
    assert group.request("x", FetchOffsets(group=GROUP)).offsets == offsets


def test_an_append_whose_answer_is_lost_goes_again_and_counts_once(group: SimulatedGroup) -> None:
    commit = CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)])
    number = group.ask("x", commit)
    batches = len(group.log.batches)
    [append] = [call for call in group.answerable() if isinstance(call.request, Produce)]
    group.lose_answer(append)
    assert group.answer_of(number) is None
    group.advance(100)
    group.drain()
    assert not isinstance(group.answer_of(number), ErrorBody)
    assert len(group.log.batches) == batches + 1


def test_an_append_waits_for_the_partition_and_goes_as_soon_as_it_is_up(group: SimulatedGroup) -> None:
    group.is_partition_up = False
    number = group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)]))
    for _ in range(30):
        group.drain()
        group.advance(100)
    group.drain()
    assert group.answer_of(number) is None
    group.partition_up()
    group.drain()
    assert not isinstance(group.answer_of(number), ErrorBody)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ErrorCode.PRODUCER_FENCED, Fenced), (ErrorCode.OUT_OF_ORDER_SEQUENCE, AppendRefused)],
)
def test_a_fenced_or_refused_append_crashes(
    group: SimulatedGroup, error: ErrorCode, expected: type[Exception]
) -> None:
    group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)]))
    body = ErrorBody(error, "no", False)
    reply = ProduceReply(batches=[ProducedBatch(-1, error=body)], high_watermark=0)
    with pytest.raises(expected):
        group.handle(Answered(AppendCall(), reply))


def test_a_newer_incarnation_fences_the_older_one(group: SimulatedGroup) -> None:
    newer = SimulatedGroup()
    newer.log = group.log
    newer.run()
    group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)]))
    with pytest.raises(Fenced):
        group.drain()
    assert newer.request("x", FetchOffsets(group=GROUP)).offsets == []


def test_describe_tells_members_assignment_and_offsets(group: SimulatedGroup) -> None:
    empty = group.request("x", DescribeGroup(group=GROUP))
    assert (empty.state, empty.members, empty.assignor) == ("empty", [], "sticky")
    first, second = SimulatedMember(group, "a"), SimulatedMember(group, "b")
    first.turn()
    second.turn()
    assert group.request("x", DescribeGroup(group=GROUP)).state == "rebalancing"
    converge([first, second])
    first.commits(*min(first.owned), 4)
    body = group.request("x", DescribeGroup(group=GROUP))
    assert body.state == "stable"
    assert [member.client_id for member in body.members] == ["a", "b"]
    assert body.members[0].assignment == body.members[0].owned
    assert body.members[0].generation == first.generation
    assert body.offsets == [PartitionOffset(*min(first.owned), 4)]


def test_the_group_uses_the_assignor_most_members_ask_for(group: SimulatedGroup) -> None:
    for name in ("range", "range", "round_robin"):
        group.request("x", GroupHeartbeat(group=GROUP, topics=["ORDERS"], assignor=name))
    assert group.request("x", DescribeGroup(group=GROUP)).assignor == "range"


def test_a_stop_refuses_the_parked_and_waits_for_what_is_outstanding(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    member.heartbeat(max_wait_ms=1_000)
    commit = member.commit("ORDERS", 0, 9)
    group.handle(StopRequested(group.now + 5_000))
    assert code(member.receive()) == ErrorCode.SHUTTING_DOWN
    assert not group.is_stopped
    late = group.ask("x", DescribeGroup(group=GROUP))
    assert group.answer_of(late).code == ErrorCode.SHUTTING_DOWN
    group.drain()
    assert group.is_stopped
    assert not isinstance(group.answer_of(commit), ErrorBody)
    assert group.snapshot is not None


def test_a_stop_does_not_wait_for_ever(group: SimulatedGroup) -> None:
    group.is_partition_up = False
    group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3)]))
    group.handle(StopRequested(group.now + 5_000))
    group.drain()
    assert not group.is_stopped
    group.advance(1_000)
    assert group.is_stopped
