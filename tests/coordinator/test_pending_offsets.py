"""Offsets pending until a transaction ends: unseen until it commits, removed when it aborts, never left behind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.coordinator import machine as machine_module
from planaria.actors.coordinator import offset_decisions as decisions_module
from planaria.actors.coordinator.pending_offsets import FENCE_MS
from planaria.actors.journal import recorder as recorder_module
from planaria.actors.journal.appender import AppendCall
from planaria.actors.journal.transaction_reports import REPORT_AGAIN_MS, REPORT_LATER_MS
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    DeleteGroup,
    FetchOffsets,
    LeaveGroup,
    PartitionOffset,
    ResetOffsets,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.transactions import (
    REPORT_AFTER_MS,
    AddToTransaction,
    EndGroupTransaction,
)
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge

A, B = transactional_producer_id(0, 7), transactional_producer_id(1, 8)
PARTITIONS = 3


@pytest.fixture
def group() -> SimulatedGroup:
    return SimulatedGroup({"ORDERS": PARTITIONS}).run()


def committing(offset: int, partition: int = 0, by: int | None = A, epoch: int | None = 0) -> CommitOffsets:
    offsets = [PartitionOffset("ORDERS", partition, offset)]
    return CommitOffsets(group=GROUP, offsets=offsets, producer_id=by, producer_epoch=epoch)


def ending(committed: bool, by: int = A, epoch: int = 0) -> EndGroupTransaction:
    return EndGroupTransaction(group=GROUP, producer_id=by, producer_epoch=epoch, committed=committed)


def commit(group: SimulatedGroup, offset: int, partition: int = 0, by: int = A, epoch: int = 0) -> None:
    assert group.request("x", committing(offset, partition, by, epoch)) == CommitOffsetsReply()


def end(group: SimulatedGroup, committed: bool, by: int = A, epoch: int = 0) -> None:
    assert group.request("c", ending(committed, by, epoch)) == Done()


def offsets(group: SimulatedGroup, *, require_stable: bool = False) -> dict[int, int]:
    body = group.request("x", FetchOffsets(group=GROUP, require_stable=require_stable))
    return {item.partition: item.offset for item in body.offsets}


def code(group: SimulatedGroup, request: Any) -> str:
    body = group.request("x", request)
    assert isinstance(body, ErrorBody), body
    return body.code


def fetching(*partitions: int) -> FetchOffsets:
    return FetchOffsets(group=GROUP, partitions={"ORDERS": list(partitions)})


def test_they_take_effect_together_when_it_commits(group: SimulatedGroup) -> None:
    commit(group, 5, partition=0)
    commit(group, 6, partition=1)
    commit(group, 9, partition=0)
    assert offsets(group) == {}
    end(group, True)
    assert offsets(group, require_stable=True) == {0: 9, 1: 6}


def test_they_are_forgotten_when_it_aborts(group: SimulatedGroup) -> None:
    group.request("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 0, 3, "kept")]))
    commit(group, 5)
    end(group, False)
    [found] = group.request("x", fetching(0)).offsets
    assert (found.offset, found.metadata) == (3, "kept")


def test_a_commit_that_came_later_is_not_undone(group: SimulatedGroup) -> None:
    """As in Kafka: of two commits the later one counts, whichever takes effect first."""
    commit(group, 5, partition=0)
    commit(group, 5, partition=1)
    group.request("x", committing(9, partition=0, by=None, epoch=None))
    group.request("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 2, 3)]))
    assert offsets(group) == {0: 9, 2: 3}
    assert group.request("x", fetching(0)).offsets, "nothing is about to move it any more"
    end(group, True)
    assert offsets(group, require_stable=True) == {0: 9, 1: 5, 2: 3}


def test_of_two_transactions_the_later_commit_counts(group: SimulatedGroup) -> None:
    commit(group, 5, by=A)
    commit(group, 6, by=A, partition=1)
    commit(group, 7, by=B)
    commit(group, 8, by=B, partition=1)
    commit(group, 9, by=A, partition=1)
    end(group, True, by=B)
    assert offsets(group) == {0: 7, 1: 8}
    group.crash(is_append_durable=False)
    group.drain()
    end(group, True, by=A)
    assert offsets(group) == {0: 7, 1: 9}


def test_a_later_commit_that_is_aborted_undoes_nothing(group: SimulatedGroup) -> None:
    commit(group, 5, by=A)
    commit(group, 7, by=B)
    end(group, False, by=B)
    end(group, True, by=A)
    assert offsets(group) == {0: 5}


@pytest.mark.parametrize("committed", [True, False])
def test_a_repeated_end_does_no_harm(group: SimulatedGroup, committed: bool) -> None:
    commit(group, 5)
    end(group, committed)
    commit(group, 8, epoch=1)
    end(group, True, epoch=1)
    commit(group, 9, epoch=2)
    for repeated in (committed, not committed):
        end(group, repeated)
        assert offsets(group) == {0: 8}
    end(group, True, epoch=2)
    assert offsets(group) == {0: 9}


@pytest.mark.parametrize("committed", [True, False])
def test_what_comes_late_is_fenced(group: SimulatedGroup, committed: bool) -> None:
    commit(group, 5, epoch=1)
    end(group, committed, epoch=1)
    for epoch in (0, 1):
        assert code(group, committing(9, epoch=epoch)) == ErrorCode.PRODUCER_FENCED
    commit(group, 6, by=B, epoch=0)
    commit(group, 9, partition=1, epoch=2)


def test_an_end_that_comes_before_the_commit_fences_it(group: SimulatedGroup) -> None:
    end(group, False)
    assert code(group, committing(9)) == ErrorCode.PRODUCER_FENCED
    assert offsets(group, require_stable=True) == {}


def test_who_goes_on_waits_for_the_end(group: SimulatedGroup) -> None:
    commit(group, 5)
    commit(group, 6, partition=1, by=B)
    body = group.request("x", fetching(0, 2))
    assert (body.code, body.retriable) == (ErrorCode.UNSTABLE_OFFSETS, True)
    assert code(group, FetchOffsets(group=GROUP)) == ErrorCode.UNSTABLE_OFFSETS
    assert group.request("x", fetching(2)).offsets == []
    end(group, True)
    assert [item.offset for item in group.request("x", fetching(0, 2)).offsets] == [5]
    assert code(group, fetching(1)) == ErrorCode.UNSTABLE_OFFSETS


def test_an_end_counts_for_nobody_until_it_is_durable(group: SimulatedGroup) -> None:
    commit(group, 5)
    ended = group.ask("c", ending(True))
    asked = group.ask("x", fetching(0))
    assert group.answer_of(ended) is None
    assert group.answer_of(asked) is None
    group.drain()
    assert group.answer_of(ended) == Done()
    assert [item.offset for item in group.answer_of(asked).offsets] == [5]


def test_it_is_judged_like_any_other_commit(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a")
    converge([member])
    assert code(group, committing(5)) == ErrorCode.GROUP_NOT_EMPTY
    stranger = CommitOffsets(
        group=GROUP,
        offsets=[PartitionOffset("ORDERS", 0, 5)],
        member_id="nobody",
        producer_id=A,
        producer_epoch=0,
    )
    assert code(group, stranger) == ErrorCode.UNKNOWN_MEMBER
    assert not group.state.pending.open


def commit_as(member: SimulatedMember, offset: int) -> None:
    request = CommitOffsets(
        group=GROUP,
        offsets=[PartitionOffset("ORDERS", 0, offset)],
        member_id=member.member_id,
        generation=member.generation,
        producer_id=A,
        producer_epoch=0,
    )
    assert member.group.request(member.name, request) == CommitOffsetsReply()


def test_it_moves_though_its_member_has_gone(group: SimulatedGroup) -> None:
    """The transaction was valid when it was written: its end does not depend on the present owner."""
    member = SimulatedMember(group, "a")
    converge([member])
    commit_as(member, 5)
    member.leave()
    end(group, True)
    assert offsets(group) == {0: 5}


@pytest.mark.parametrize(
    ("by", "epoch", "expected"),
    [
        (5, 0, ErrorCode.INVALID_TRANSACTION),
        (A, None, ErrorCode.INVALID_REQUEST),
        (None, 0, ErrorCode.INVALID_REQUEST),
    ],
)
def test_a_commit_without_a_whole_producer_is_refused(
    group: SimulatedGroup, by: int | None, epoch: int | None, expected: ErrorCode
) -> None:
    assert code(group, committing(5, by=by, epoch=epoch)) == expected
    assert offsets(group, require_stable=True) == {}


def test_so_many_may_wait_and_no_more(group: SimulatedGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions_module, "MAX_PENDING", 2)
    commit(group, 1, by=A)
    commit(group, 1, by=B)
    assert code(group, committing(1, epoch=1)) == ErrorCode.OVERLOADED
    commit(group, 2, by=B)
    end(group, True, by=B)
    commit(group, 1, epoch=1)


def test_a_group_is_not_deleted_under_a_transaction(group: SimulatedGroup) -> None:
    commit(group, 5)
    body = group.request("x", DeleteGroup(group=GROUP))
    assert (body.code, body.retriable) == (ErrorCode.CONCURRENT_TRANSACTIONS, True)
    end(group, True)
    assert offsets(group) == {0: 5}
    assert group.request("x", DeleteGroup(group=GROUP)) == Done()
    assert group.state.is_blank


@pytest.mark.parametrize("is_seen_before_the_end", [True, False])
def test_they_are_not_of_a_topic_that_was_created_anew(
    group: SimulatedGroup, is_seen_before_the_end: bool
) -> None:
    commit(group, 500)
    group.recreate("ORDERS")
    if is_seen_before_the_end:
        group.drain()
        assert offsets(group, require_stable=True) == {}
    end(group, True)
    assert offsets(group, require_stable=True) == {}
    commit(group, 2, epoch=1)
    end(group, True, epoch=1)
    assert offsets(group) == {0: 2, 1: 0, 2: 0}, "the new topic is younger than the group"


def test_a_holder_of_the_topic_before_moves_nothing_in_the_new_one(group: SimulatedGroup) -> None:
    """It is revoked and its transaction ends while the group's log is slow: everything is decided at once."""
    member = SimulatedMember(group, "a")
    converge([member])
    group.recreate("ORDERS")
    group.drain()
    commit_as(member, 500)
    assert member.member_id is not None
    group.ask("c", ending(False, by=B))
    group.ask("a", LeaveGroup(group=GROUP, member_id=member.member_id))
    group.ask("c", ending(True))
    group.drain()
    assert offsets(group, require_stable=True) == {}


def test_a_topic_that_is_gone_takes_nothing_else_with_it() -> None:
    group = SimulatedGroup({"ORDERS": PARTITIONS, "GONE": 1}).run()
    commit(group, 5)
    gone = CommitOffsets(
        group=GROUP, offsets=[PartitionOffset("GONE", 0, 7)], producer_id=A, producer_epoch=0
    )
    assert group.request("x", gone) == CommitOffsetsReply()
    group.set_topics({"ORDERS": PARTITIONS})
    group.drain()
    group.crash(is_append_durable=False)
    group.drain()
    assert code(group, DeleteGroup(group=GROUP)) == ErrorCode.CONCURRENT_TRANSACTIONS
    end(group, True)
    body = group.request("x", FetchOffsets(group=GROUP))
    assert body.offsets == [PartitionOffset("ORDERS", 0, 5)]


@pytest.mark.parametrize("is_from_snapshot", [True, False])
def test_what_waits_and_what_is_fenced_survives(
    monkeypatch: pytest.MonkeyPatch, is_from_snapshot: bool
) -> None:
    if is_from_snapshot:
        monkeypatch.setattr(machine_module, "SNAPSHOT_RECORDS", 1)
    group = SimulatedGroup({"ORDERS": PARTITIONS}).run()
    commit(group, 4, partition=1, by=B, epoch=3)
    end(group, True, by=B, epoch=3)
    commit(group, 5)
    assert (group.snapshot is not None) == is_from_snapshot
    for _ in range(2):
        group.crash(is_append_durable=False)
        group.drain()
    assert offsets(group) == {1: 4}
    assert code(group, FetchOffsets(group=GROUP)) == ErrorCode.UNSTABLE_OFFSETS
    assert code(group, committing(9, by=B, epoch=3)) == ErrorCode.PRODUCER_FENCED
    assert code(group, DeleteGroup(group=GROUP)) == ErrorCode.CONCURRENT_TRANSACTIONS
    end(group, True)
    assert offsets(group, require_stable=True) == {0: 5, 1: 4}


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_end_on_its_way_at_the_crash_may_be_repeated(group: SimulatedGroup, is_durable: bool) -> None:
    commit(group, 5)
    group.ask("c", ending(True))
    group.crash(is_append_durable=is_durable)
    group.drain()
    assert offsets(group) == ({0: 5} if is_durable else {})
    end(group, True)
    assert offsets(group, require_stable=True) == {0: 5}


@pytest.mark.parametrize("is_restarted", [True, False])
def test_fences_are_kept_for_as_long_as_they_keep_something_out(
    group: SimulatedGroup, is_restarted: bool
) -> None:
    commit(group, 5)
    end(group, True)
    group.advance(FENCE_MS // 2, group.drain)
    commit(group, 6, by=B)
    end(group, True, by=B)
    group.advance(FENCE_MS // 2 - 2 * 3600 * 1000, group.drain)
    assert code(group, committing(9)) == ErrorCode.PRODUCER_FENCED
    if is_restarted:
        group.now += 3 * 3600 * 1000
        group.crash(is_append_durable=False)
        group.drain()
    else:
        group.advance(3 * 3600 * 1000, group.drain)
    assert list(group.state.pending.fences) == [B]
    assert code(group, committing(9, by=B)) == ErrorCode.PRODUCER_FENCED
    group.advance(FENCE_MS, group.drain)
    group.crash(is_append_durable=False)
    group.drain()
    assert group.state.pending.fences == {}
    assert offsets(group, require_stable=True) == {0: 6}


def test_fences_expire_in_time_after_a_boot_that_set_the_clock_back(group: SimulatedGroup) -> None:
    group.now += 10 * FENCE_MS
    commit(group, 5)
    end(group, True)
    group.now -= 10 * FENCE_MS
    group.crash(is_append_durable=False)
    group.drain()
    group.advance(FENCE_MS - 2 * 3600 * 1000, group.drain)
    assert code(group, committing(9)) == ErrorCode.PRODUCER_FENCED
    group.advance(4 * 3600 * 1000, group.drain)
    assert group.state.pending.fences == {}


def reported(group: SimulatedGroup, milliseconds: int) -> list[tuple[str, AddToTransaction]]:
    """Return the reports to the coordinators of transactions while the time passes."""
    group.open_transactions.clear()
    group.advance(milliseconds, group.drain)
    return list(group.open_transactions)


def test_what_stays_open_is_reported_until_it_is_heard(group: SimulatedGroup) -> None:
    commit(group, 5, by=B, epoch=2)
    group.down.add("transactions/1")
    assert reported(group, REPORT_AFTER_MS) == []
    group.down.clear()
    expected = ("transactions/1", AddToTransaction(producer_id=B, producer_epoch=2, groups=[GROUP]))
    assert reported(group, REPORT_AGAIN_MS - 1) == []
    assert reported(group, 1) == [expected]
    assert reported(group, REPORT_LATER_MS - 1) == []
    assert reported(group, 1) == [expected]
    end(group, False, by=B, epoch=2)
    assert reported(group, 2 * REPORT_LATER_MS) == []


def test_what_ends_in_time_is_not_reported(group: SimulatedGroup) -> None:
    commit(group, 5)
    assert reported(group, REPORT_AFTER_MS - 1) == []
    end(group, True)
    assert reported(group, REPORT_LATER_MS) == []


def test_after_a_restart_it_is_reported_again(group: SimulatedGroup) -> None:
    commit(group, 5)
    assert len(reported(group, REPORT_AFTER_MS)) == 1
    group.crash(is_append_durable=False)
    group.drain()
    assert reported(group, REPORT_AFTER_MS - 1) == []
    [(address, request)] = reported(group, 1)
    assert (address, request.producer_id, request.groups) == ("transactions/0", A, [GROUP])


@given(st.data())
def test_offsets_are_those_of_the_transactions_that_committed(data: st.DataObject) -> None:
    """Random commits and ends, repeated and late, by two producers, over crashes and snapshots of any age."""
    group = SimulatedGroup({"ORDERS": PARTITIONS}).run()
    epochs = {A: 0, B: 0}
    waiting: dict[int, dict[int, int]] = {A: {}, B: {}}
    expected: dict[int, int] = {}
    """By partition; offsets fall, so that the later commit is the lower one."""
    for number in range(data.draw(st.integers(1, 25))):
        by = data.draw(st.sampled_from([A, B]))
        partition = data.draw(st.integers(0, PARTITIONS - 1))
        step = data.draw(
            st.sampled_from(["commit", "commit", "at once", "end", "repeat", "late", "crash", "snapshot"])
        )
        offset = 100 - number
        if step == "commit":
            commit(group, offset, partition, by, epochs[by])
            waiting[by][partition] = offset
        elif step == "at once":
            group.request("x", committing(offset, partition, None, None))
            expected[partition] = offset
            for each in waiting.values():
                each.pop(partition, None)
        elif step == "end":
            committed, is_durable = data.draw(st.booleans()), data.draw(st.booleans())
            group.ask("c", ending(committed, by, epochs[by]))
            if data.draw(st.booleans()):
                group.crash(is_append_durable=is_durable)
                group.drain()
            end(group, committed, by, epochs[by])
            ended, waiting[by], epochs[by] = waiting[by], {}, epochs[by] + 1
            if committed:
                expected |= ended
                for each in waiting.values():
                    for moved in [moved for moved in each if each[moved] > ended.get(moved, 100)]:
                        del each[moved]
        elif step == "repeat" and epochs[by]:
            end(group, data.draw(st.booleans()), by, data.draw(st.integers(0, epochs[by] - 1)))
        elif step == "late" and epochs[by]:
            late = committing(number, partition, by, epochs[by] - 1)
            assert code(group, late) == ErrorCode.PRODUCER_FENCED
        elif step == "crash":
            group.crash(is_append_durable=data.draw(st.booleans()))
            group.drain()
        elif step == "snapshot":
            for effect in group.machine._snapshot(group.now, least=0):
                group.actor.perform(effect)
        assert offsets(group) == expected
        is_open = any(waiting.values())
        body = group.request("x", FetchOffsets(group=GROUP))
        assert isinstance(body, ErrorBody) == is_open


@given(st.data())
def test_a_crash_between_the_batches_of_an_end_leaves_no_half(data: st.DataObject) -> None:
    """An end with many offsets takes several batches; whichever is the last, no reader sees a half."""
    before = recorder_module.MAX_BATCH_BYTES
    recorder_module.MAX_BATCH_BYTES = data.draw(st.sampled_from([1, 150]))
    try:
        group = SimulatedGroup({"ORDERS": 5}).run()
        for partition in range(5):
            commit(group, 7, partition, by=B)
        for partition in range(5):
            commit(group, 5, partition)
        group.ask("c", ending(True))
        for _ in range(data.draw(st.integers(0, 12))):
            if appends := [call for call in group.calls if isinstance(call.key, AppendCall)]:
                group.answer(appends[0])
        group.crash(is_append_durable=data.draw(st.booleans()))
        group.drain()
        found = group.request("x", FetchOffsets(group=GROUP))
        whole = dict.fromkeys(range(5), 5)
        is_waiting = isinstance(found, ErrorBody) and found.code == ErrorCode.UNSTABLE_OFFSETS
        assert is_waiting or {item.partition: item.offset for item in found.offsets} == whole
        end(group, True, by=B)
        end(group, True)
        assert offsets(group, require_stable=True) == whole
    finally:
        recorder_module.MAX_BATCH_BYTES = before
