"""Conditions under which a coordinator falls asleep, without any loss: the real actor, without a process."""

import pytest

from planaria.actors.coordinator.resets import TIMEOUT_MS
from planaria.actors.journal.machine import IDLE_CHECK_MS
from planaria.transport.addresses import Address
from planaria.transport.machine import PeerUp, StopRequested
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.errors import ErrorCode
from planaria.transport.protocol.groups import (
    CommitOffsets,
    DescribeGroup,
    FetchOffsets,
    PartitionOffset,
    ResetOffsets,
)
from planaria.transport.protocol.shares import AcquiredRange
from planaria.transport.protocol.transactions import EndGroupTransaction
from simulated_group import GROUP, SimulatedGroup, SimulatedMember
from simulated_share import SimulatedShare

IDLE_MS = 10_000


@pytest.fixture
def group() -> SimulatedGroup:
    group = SimulatedGroup({"ORDERS": 2})
    group.idle_ms = IDLE_MS
    return group.run()


def pass_time(group: SimulatedGroup, milliseconds: int) -> None:
    group.advance(milliseconds, group.drain)


def is_asleep(group: SimulatedGroup) -> bool:
    return group.loop.is_asleep


def commit(group: SimulatedGroup, offset: int, **more: int) -> None:
    offsets = [PartitionOffset("ORDERS", 0, offset)]
    group.request("operator", CommitOffsets(group=GROUP, generation=0, offsets=offsets, **more))


def test_a_group_without_members_and_requests_sleeps(group: SimulatedGroup) -> None:
    pass_time(group, IDLE_MS - 1)
    assert not is_asleep(group)
    pass_time(group, 1)
    assert is_asleep(group)


def test_zero_is_never() -> None:
    group = SimulatedGroup({"ORDERS": 2}).run()
    pass_time(group, 100 * 3_600_000)
    assert not is_asleep(group)


def test_a_request_begins_the_time_anew(group: SimulatedGroup) -> None:
    for _ in range(3):
        pass_time(group, IDLE_MS - 1)
        group.request("x", DescribeGroup(group=GROUP))
    assert not is_asleep(group)
    pass_time(group, IDLE_MS)
    assert is_asleep(group)


def test_members_keep_it_awake_until_the_last_session_is_over(group: SimulatedGroup) -> None:
    member = SimulatedMember(group, "a", session_timeout_ms=3 * IDLE_MS)
    member.turn()
    pass_time(group, 3 * IDLE_MS - 1)
    assert not is_asleep(group)
    pass_time(group, IDLE_CHECK_MS)
    assert is_asleep(group)


def test_it_wakes_with_all_it_knew(group: SimulatedGroup) -> None:
    commit(group, 7)
    pass_time(group, IDLE_MS)
    assert is_asleep(group)
    group.run()
    assert group.request("x", FetchOffsets(group=GROUP)).offsets[0].offset == 7
    assert not is_asleep(group)


def test_the_mark_is_there_while_it_sleeps(group: SimulatedGroup) -> None:
    pass_time(group, IDLE_MS)
    assert group.files.marks == {f"{GROUP}.asleep"}  # type: ignore[attr-defined]
    group.start()
    assert not group.is_ready
    assert group.files.marks == set()  # type: ignore[attr-defined]


def test_a_full_disk_keeps_nobody_awake(group: SimulatedGroup) -> None:
    group.files.is_full = True  # type: ignore[attr-defined]
    pass_time(group, IDLE_MS)
    assert is_asleep(group)


def test_what_is_not_durable_keeps_it_awake(group: SimulatedGroup) -> None:
    offsets = [PartitionOffset("ORDERS", 0, 1)]
    asked = group.ask("x", CommitOffsets(group=GROUP, generation=0, offsets=offsets))
    group.advance(10 * IDLE_MS)  # and no append is answered
    assert not is_asleep(group)
    group.drain()
    assert group.answer_of(asked) is not None
    pass_time(group, IDLE_CHECK_MS)
    assert is_asleep(group)


def test_a_request_that_waits_is_answered_before_it_sleeps() -> None:
    group = SimulatedGroup({"ORDERS": 2})
    group.idle_ms = 300
    group.run()
    asked = group.ask("x", ResetOffsets(group=GROUP, offsets=[PartitionOffset("ORDERS", 9, 0)]))
    pass_time(group, TIMEOUT_MS - 1)  # in which the partition may be added
    assert not is_asleep(group)
    pass_time(group, 1)
    assert group.answer_of(asked).code == ErrorCode.UNKNOWN_PARTITION
    pass_time(group, 2 * group.idle_ms)
    assert is_asleep(group)


def test_an_open_transaction_keeps_it_awake(group: SimulatedGroup) -> None:
    producer_id = transactional_producer_id(0, 7)
    commit(group, 5, producer_id=producer_id, producer_epoch=0)
    pass_time(group, 20 * IDLE_MS)
    assert not is_asleep(group)
    end = EndGroupTransaction(group=GROUP, producer_id=producer_id, producer_epoch=0, committed=True)
    group.request("transactions", end)
    pass_time(group, IDLE_MS + IDLE_CHECK_MS)
    assert is_asleep(group)


def test_a_partition_that_has_not_been_told_keeps_it_awake(group: SimulatedGroup) -> None:
    group = SimulatedGroup({"ORDERS": 2})
    group.idle_ms = IDLE_MS
    group.tracked = {"ORDERS"}
    group.down.add("partition/ORDERS/1")
    group.run()
    pass_time(group, 10 * IDLE_MS)
    assert not is_asleep(group)
    group.down.clear()
    group.handle(PeerUp(address=Address.parse("partition/ORDERS/1"), incarnation=2, endpoint="ipc://x"))
    pass_time(group, IDLE_CHECK_MS)
    assert is_asleep(group)


def test_a_stop_comes_before_sleep(group: SimulatedGroup) -> None:
    group.handle(StopRequested(group.now + 1_000))
    pass_time(group, 10 * IDLE_MS)
    assert group.is_stopped
    assert not is_asleep(group)


@pytest.fixture
def share() -> SimulatedShare:
    share = SimulatedShare()
    share.idle_ms = IDLE_MS
    share.run()
    return share


def test_locks_keep_a_share_group_awake(share: SimulatedShare) -> None:
    share.publish(2)
    assert share.acquire("a", lock_ms=5 * IDLE_MS)
    pass_time(share, 5 * IDLE_MS - 1)
    assert not is_asleep(share)
    share.acknowledge("a", 0, 1, "release")
    pass_time(share, IDLE_MS)
    assert is_asleep(share)
    share.run()
    assert share.acquire("b") == [AcquiredRange("ORDERS", 0, 0, 1, 1, "ORDERS.0")]


def test_records_that_failed_keep_a_share_group_awake(share: SimulatedShare) -> None:
    """Their times and reasons, and the alarm about them, are in memory only."""
    share.publish(2)
    assert share.acquire("a", lock_ms=1_000)
    pass_time(share, 10 * IDLE_MS + IDLE_CHECK_MS)
    assert not is_asleep(share)


def test_delays_keep_a_share_group_awake(share: SimulatedShare) -> None:
    share.publish(1)
    share.acquire("a")
    share.acknowledge("a", 0, 0, "fail", delay_ms=5 * IDLE_MS)
    pass_time(share, 5 * IDLE_MS - 1)
    assert not is_asleep(share)


def test_a_share_group_of_finished_work_sleeps(share: SimulatedShare) -> None:
    share.publish(2)
    share.acquire("a")
    share.acknowledge("a", 0, 1, "accept")
    pass_time(share, IDLE_MS)
    assert is_asleep(share)
    share.run()
    assert share.acquire("a") == []


def test_dead_records_without_a_place_to_go_keep_the_alarm_up(share: SimulatedShare) -> None:
    share.publish(1)
    share.acquire("a")
    share.acknowledge("a", 0, 0, "reject")
    assert share.alarms
    pass_time(share, 10 * IDLE_MS)
    assert not is_asleep(share)
