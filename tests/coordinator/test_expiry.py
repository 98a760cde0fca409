"""Offsets of a group without members expire: time, related state, and events that restart the time."""

from typing import Any

import pytest

from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.groups import CommitOffsets, DescribeGroup, FetchOffsets, PartitionOffset
from planaria.transport.protocol.transactions import EndGroupTransaction
from simulated_group import GROUP, SimulatedGroup, SimulatedMember
from simulated_share import SimulatedShare

RETENTION_MS = 3_600_000
IDLE_MS = 10_000
PRODUCER = transactional_producer_id(0, 7)


def make(retention_ms: int = RETENTION_MS, idle_ms: int = 0) -> SimulatedGroup:
    group = SimulatedGroup({"ORDERS": 2})
    group.offsets_retention_ms = retention_ms
    group.idle_ms = idle_ms
    return group.run()


@pytest.fixture
def group() -> SimulatedGroup:
    return make()


def commit(group: SimulatedGroup, offset: int = 7, **more: Any) -> None:
    offsets = [PartitionOffset("ORDERS", 0, offset)]
    group.request("x", CommitOffsets(group=GROUP, offsets=offsets, **more))


def offsets(group: SimulatedGroup) -> list[int]:
    return [each.offset for each in group.request("x", FetchOffsets(group=GROUP)).offsets]


def pass_time(group: SimulatedGroup, milliseconds: int) -> None:
    group.advance(milliseconds, group.drain)


def test_for_ever_is_the_default() -> None:
    group = make(-1)
    commit(group)
    pass_time(group, 1_000 * RETENTION_MS)
    assert offsets(group) == [7]
    assert group.state.unused_since_ms is None


def test_they_expire_when_nobody_has_used_them_for_so_long(group: SimulatedGroup) -> None:
    commit(group)
    pass_time(group, RETENTION_MS - 1)
    assert offsets(group) == [7]
    pass_time(group, 1)
    assert offsets(group) == []
    assert group.state.topic_ids == {}, "a partition that is added later is read as the policy says"


def test_every_commit_begins_the_time_anew(group: SimulatedGroup) -> None:
    for offset in (1, 2, 3):
        commit(group, offset)
        pass_time(group, RETENTION_MS - 1)
    assert offsets(group) == [3]


def test_to_look_is_no_use(group: SimulatedGroup) -> None:
    commit(group)
    for _ in range(4):
        group.request("x", DescribeGroup(group=GROUP))
        assert offsets(group) == [7]
        pass_time(group, RETENTION_MS // 4)
    assert offsets(group) == []


def test_members_keep_them_and_the_last_one_to_leave_begins_the_time(group: SimulatedGroup) -> None:
    commit(group)
    member = SimulatedMember(group, "a", session_timeout_ms=1_800_000)
    member.turn()
    for _ in range(10):
        pass_time(group, 1_000_000)
        member.turn()
    assert offsets(group) == [7]
    member.leave()
    pass_time(group, RETENTION_MS - 1)
    assert offsets(group) == [7]
    pass_time(group, 1)
    assert offsets(group) == []


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_the_time_goes_on_while_nobody_runs(group: SimulatedGroup, with_snapshot: bool) -> None:
    commit(group)
    pass_time(group, RETENTION_MS // 2)
    group.start(with_snapshot=with_snapshot)
    group.drain()
    assert offsets(group) == [7], "a restart does not end it"
    group.now += RETENTION_MS // 2
    group.start(with_snapshot=with_snapshot)
    asked = group.ask("x", FetchOffsets(group=GROUP))
    assert group.answer_of(asked) is not None, "a replaying coordinator refuses"
    group.drain()
    assert offsets(group) == [], "nor begins it anew"


def test_after_the_clock_went_back_it_is_late_by_no_more_than_itself(group: SimulatedGroup) -> None:
    commit(group)
    group.now -= 900_000
    group.run()
    pass_time(group, RETENTION_MS - 1)
    assert offsets(group) == [7]
    pass_time(group, 1)
    assert offsets(group) == []


def test_a_group_from_before_the_option_has_its_time_from_now_on() -> None:
    group = make(-1)
    commit(group)
    pass_time(group, 2 * RETENTION_MS)
    group.offsets_retention_ms = RETENTION_MS
    group.run()
    pass_time(group, RETENTION_MS - 1)
    assert offsets(group) == [7]
    pass_time(group, 1)
    assert offsets(group) == []


def test_what_was_used_while_the_option_was_off_is_not_taken_for_unused(group: SimulatedGroup) -> None:
    commit(group)
    group.offsets_retention_ms = -1
    group.run()
    pass_time(group, 2 * RETENTION_MS)
    commit(group, 8)
    group.offsets_retention_ms = RETENTION_MS
    group.run()
    assert offsets(group) == [8]


def test_an_open_transaction_keeps_them(group: SimulatedGroup) -> None:
    commit(group)
    commit(group, 9, producer_id=PRODUCER, producer_epoch=0)
    pass_time(group, 2 * RETENTION_MS)
    end = EndGroupTransaction(group=GROUP, producer_id=PRODUCER, producer_epoch=0, committed=True)
    group.request("transactions", end)
    assert offsets(group) == [9]
    pass_time(group, RETENTION_MS)
    assert offsets(group) == []


def test_a_sleeping_group_is_woken_for_it() -> None:
    group = make(idle_ms=IDLE_MS)
    commit(group)
    pass_time(group, IDLE_MS)
    assert group.loop.is_asleep
    sleep = group.loop._sleep
    assert sleep is not None
    assert sleep.wake_after_ms == RETENTION_MS - IDLE_MS
    group.now += sleep.wake_after_ms
    group.run()
    assert offsets(group) == []
    pass_time(group, IDLE_MS)
    assert group.loop.is_asleep
    again = group.loop._sleep
    assert again is not None
    assert again.wake_after_ms is None, "there is nothing more to expire"


def test_partitions_hear_that_the_group_has_gone(group: SimulatedGroup) -> None:
    group = SimulatedGroup({"ORDERS": 1})
    group.offsets_retention_ms = RETENTION_MS
    group.tracked = {"ORDERS"}
    group.run()
    commit(group)
    pass_time(group, RETENTION_MS + 1_000)
    assert (group.reports[-1].offset, group.reports[-1].has_members) == (-1, False)


def test_the_progress_of_a_share_group_stays() -> None:
    share = SimulatedShare()
    share.offsets_retention_ms = RETENTION_MS
    share.run()
    share.publish(1)
    share.acquire("a")
    share.acknowledge("a", 0, 0, "accept")
    pass_time(share, 3 * RETENTION_MS)
    assert share.acquire("a") == []
