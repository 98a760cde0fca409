"""Topics deleted and recreated under a group: state of the old topic does not apply to the new one."""

from typing import Any

import pytest
from msgspec import UNSET

from planaria.actors.coordinator import machine as machine_module
from planaria.transport.protocol.data import Produce
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    FetchOffsets,
    FetchOffsetsReply,
    PartitionOffset,
    ResetOffsets,
)
from planaria.transport.protocol.topics import WatchCatalog
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge

BEGINNING = [("ORDERS", 0, 0), ("ORDERS", 1, 0)]


@pytest.fixture
def group() -> SimulatedGroup:
    return SimulatedGroup({"ORDERS": 2, "PAYMENTS": 1}).run()


def offsets(group: SimulatedGroup) -> list[tuple[str, int, int]]:
    found = group.request("x", FetchOffsets(group=GROUP)).offsets
    return [(item.topic, item.partition, item.offset) for item in found]


def commit(group: SimulatedGroup, topic: str, offset: int) -> None:
    request = CommitOffsets(group=GROUP, offsets=[PartitionOffset(topic, 0, offset)])
    assert not isinstance(group.request("x", request), ErrorBody)


def test_a_topic_created_anew_between_two_looks_has_no_offsets(group: SimulatedGroup) -> None:
    commit(group, "ORDERS", 7)
    commit(group, "PAYMENTS", 3)
    group.recreate("ORDERS")
    group.drain()
    assert offsets(group) == [("PAYMENTS", 0, 3)]
    commit(group, "ORDERS", 1)
    group.drain()
    assert offsets(group) == [("ORDERS", 0, 1), ("ORDERS", 1, 0), ("PAYMENTS", 0, 3)]


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_a_topic_created_anew_while_the_coordinator_was_down(
    group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch, with_snapshot: bool
) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    commit(group, "ORDERS", 7)
    commit(group, "PAYMENTS", 3)
    assert group.snapshot is not None
    group.recreate("ORDERS")
    group.start(with_snapshot=with_snapshot)
    group.drain()
    assert offsets(group) == [("PAYMENTS", 0, 3)]


def test_the_new_topic_is_given_out_once_the_old_one_is_let_go_of(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    old_generation = member.generation
    assert member.commits("ORDERS", 0, 7) == "ok"
    member.heartbeat(max_wait_ms=1_000)
    group.recreate("ORDERS")
    group.drain()
    assert member.receive().assignment == {}
    assert member.owned == {("ORDERS", 0), ("ORDERS", 1)}
    assert member.commits("ORDERS", 0, 9) == "ok", "as for any partition that is being given up"
    group.drain()
    member.let_go()
    converge([member])
    assert member.owned == {("ORDERS", 0), ("ORDERS", 1)}
    assert offsets(group) == BEGINNING, "the last commit was of the old topic"
    assert member.commits("ORDERS", 0, 9, generation=old_generation) == ErrorCode.STALE_GENERATION
    assert member.commits("ORDERS", 0, 1) == "ok"
    assert offsets(group) == [("ORDERS", 0, 1), ("ORDERS", 1, 0)]


def test_grants_of_the_old_topic_are_known_after_a_restart_too(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    group.recreate("ORDERS")
    group.crash(is_append_durable=False)
    group.drain()
    assert member.turn().assignment == {}
    converge([member])
    assert member.owned == {("ORDERS", 0), ("ORDERS", 1)}
    assert offsets(group) == BEGINNING


def test_a_deleted_topics_last_commits_are_not_its_successors(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    member.turn()
    group.set_topics({"PAYMENTS": 1})
    group.drain()
    assert member.commits("ORDERS", 0, 9) == "ok"
    group.set_topics({"PAYMENTS": 1, "ORDERS": 2})
    group.drain()
    converge([member])
    assert offsets(group) == BEGINNING
    assert len(member.owned) == 2


def test_a_reset_that_crosses_the_news_is_of_the_new_topic(group: SimulatedGroup) -> None:
    commit(group, "ORDERS", 7)
    group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset("PAYMENTS", 0, 1)]))
    [append] = [call for call in group.answerable() if isinstance(call.request, Produce)]
    group.recreate("ORDERS")
    [watch] = [call for call in group.answerable() if isinstance(call.request, WatchCatalog)]
    group.answer(watch)
    group.ask("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 2)]))
    group.answer(append)
    group.drain()
    assert offsets(group) == [("ORDERS", 0, 2), ("ORDERS", 1, 0), ("PAYMENTS", 0, 1)]


def test_what_is_committed_before_the_topics_are_known_is_of_the_topic_known_before(
    group: SimulatedGroup,
) -> None:
    commit(group, "ORDERS", 7)
    group.start()
    while not group.is_ready:
        group.answer(group.answerable()[0])
    [watch] = [call for call in group.calls if isinstance(call.request, WatchCatalog)]
    for topic in ("ORDERS", "PAYMENTS"):
        group.ask("x", CommitOffsets(group=GROUP, offsets=[PartitionOffset(topic, 0, 8)]))
        for call in [call for call in group.answerable() if isinstance(call.request, Produce)]:
            group.answer(call)
    group.recreate("ORDERS")
    group.answer(watch)
    group.drain()
    assert offsets(group) == [("PAYMENTS", 0, 8)]


def epochs(group: SimulatedGroup) -> tuple[int, ...]:
    """Return the reset epochs of ORDERS/0 and ORDERS/1."""
    reply = group.request("x", FetchOffsets(group=GROUP))
    assert isinstance(reply, FetchOffsetsReply)
    found = {item.partition: item.reset_epoch for item in reply.offsets if item.topic == "ORDERS"}
    told = (found.get(number, UNSET) for number in (0, 1))
    return tuple(reply.reset_epoch if epoch is UNSET else epoch for epoch in told)


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_a_reset_is_counted_for_its_partition_and_a_deletion_for_all(
    group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch, with_snapshot: bool
) -> None:
    monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    assert epochs(group) == (0, 0)
    for count in (1, 2):
        group.request("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 0)]))
        assert epochs(group) == (count, 0)
    commit(group, "ORDERS", 7)
    assert epochs(group) == (2, 0), "a commit is no reset"
    group.start(with_snapshot=with_snapshot)
    group.drain()
    assert epochs(group) == (2, 0)
    group.request("x", DeleteGroup(group=GROUP))
    group.start(with_snapshot=with_snapshot)
    group.drain()
    assert epochs(group) == (3, 3)


def test_a_commit_of_an_earlier_topic_or_of_before_a_reset_is_refused(group: SimulatedGroup) -> None:
    commit(group, "ORDERS", 7)

    def code_of(**identity: Any) -> str:
        offsets = [PartitionOffset("ORDERS", 0, 9, **identity)]
        reply = group.request("x", CommitOffsets(group=GROUP, offsets=offsets))
        return reply.code if isinstance(reply, ErrorBody) else "ok"

    known = group.request("x", FetchOffsets(group=GROUP)).topic_ids["ORDERS"]
    assert code_of(topic_id=known, reset_epoch=0) == "ok"
    group.request("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 0)]))
    assert code_of(reset_epoch=0) == ErrorCode.STALE_GENERATION
    assert code_of(reset_epoch=1) == "ok"
    group.recreate("ORDERS")
    group.drain()
    assert code_of(topic_id=known) == ErrorCode.UNKNOWN_TOPIC_ID
    assert offsets(group) == []
    assert code_of() == "ok"


@pytest.mark.parametrize("is_down", [True, False])
def test_a_partition_younger_than_the_group_is_read_from_its_beginning(
    group: SimulatedGroup, is_down: bool
) -> None:
    commit(group, "ORDERS", 7)
    group.set_topics({"ORDERS": 3, "PAYMENTS": 1})
    if is_down:
        group.start()
    group.drain()
    assert offsets(group) == [("ORDERS", 0, 7), ("ORDERS", 2, 0)]


@pytest.mark.parametrize("is_down", [True, False])
@pytest.mark.parametrize("gap", [True, False], ids=["seen to be gone", "not seen"])
def test_a_topic_created_again_is_read_from_its_beginning_by_whoever_of_the_group_reads_it(
    group: SimulatedGroup, gap: bool, is_down: bool
) -> None:
    """Until then it has no offset in it: an unused group does not block retention."""
    commit(group, "ORDERS", 7)
    if gap:
        group.set_topics({"PAYMENTS": 1})
        group.drain()
        group.set_topics({"PAYMENTS": 1, "ORDERS": 2})
    else:
        group.recreate("ORDERS")
    if is_down:
        group.start()
    group.drain()
    assert offsets(group) == []
    body = group.request("x", FetchOffsets(group=GROUP, partitions={"ORDERS": [0, 1]}))
    assert [(item.partition, item.offset) for item in body.offsets] == [(0, 0), (1, 0)]
    assert body.topic_ids == {"ORDERS": "ORDERS.1"}


def test_of_a_topic_that_is_gone_no_id_is_told(group: SimulatedGroup) -> None:
    commit(group, "ORDERS", 7)
    group.set_topics({"PAYMENTS": 1})
    group.drain()
    for partitions in (None, {"ORDERS": [0]}):
        body = group.request("x", FetchOffsets(group=GROUP, partitions=partitions))
        assert (body.offsets, body.topic_ids) == ([], {})


def test_a_committed_offset_keeps_the_leader_epoch_that_its_commit_named(group: SimulatedGroup) -> None:
    for leader_epoch in (3, UNSET, 5):
        item = PartitionOffset("ORDERS", 0, 7, leader_epoch=leader_epoch)
        assert not isinstance(group.request("x", CommitOffsets(group=GROUP, offsets=[item])), ErrorBody)
        for _ in range(2):
            [found] = group.request("x", FetchOffsets(group=GROUP)).offsets
            assert found.leader_epoch == leader_epoch
            group.crash(is_append_durable=True)
            group.drain()


def reset(*tps: tuple[str, int]) -> ResetOffsets:
    return ResetOffsets(group=GROUP, offsets=[PartitionOffset(*tp, 1) for tp in tps])


@pytest.mark.parametrize(
    ("tp", "code"),
    [
        (("NOPE", 0), ErrorCode.UNKNOWN_TOPIC),
        (("ORDERS", 2), ErrorCode.UNKNOWN_PARTITION),
        (("ORDERS", -1), ErrorCode.UNKNOWN_PARTITION),
    ],
)
def test_a_reset_of_what_does_not_exist_sets_nothing(
    group: SimulatedGroup, tp: tuple[str, int], code: ErrorCode
) -> None:
    asked = group.ask("x", reset(("ORDERS", 0), tp))
    group.drain()
    assert group.answer_of(asked) is None, "it may have been created a moment ago"
    group.advance(1_000)
    group.drain()
    assert group.answer_of(asked).code == code
    assert offsets(group) == []


def test_a_reset_waits_for_the_news_of_a_topic_that_was_just_created(group: SimulatedGroup) -> None:
    asked = group.ask("x", reset(("NEW", 0)))
    group.drain()
    assert group.answer_of(asked) is None
    group.set_topics({"ORDERS": 2, "PAYMENTS": 1, "NEW": 1})
    group.drain()
    assert not isinstance(group.answer_of(asked), ErrorBody)
    assert offsets(group) == [("NEW", 0, 1)]
