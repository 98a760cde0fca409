"""Operators' view of a share group's records that failed and wait for their next delivery."""

from typing import Any

import pytest

from planaria.transport.protocol.groups import DescribeGroup
from planaria.transport.protocol.operations import RETRY_ALARM_MS
from planaria.transport.protocol.shares import RetryingRange
from simulated_group import GROUP
from simulated_share import SimulatedShare


@pytest.fixture
def group() -> SimulatedShare:
    group = SimulatedShare()
    group.run()
    return group


def retrying(group: SimulatedShare) -> list[RetryingRange]:
    reply = group.request("ops", DescribeGroup(group=GROUP))
    assert reply is not None
    [part] = [each for each in reply.share.partitions if each.topic == "ORDERS"]
    found: list[RetryingRange] = part.retrying
    return found


def told(each: RetryingRange) -> Any:
    return each.first_offset, each.last_offset, each.delivery_count, each.reason


def test_a_record_that_waits_is_shown_with_its_reason_and_time(group: SimulatedShare) -> None:
    group.publish(5)
    group.acquire("a", 4)
    group.acknowledge("a", 0, 1, "fail", delay_ms=60_000, reason="disk\nfull")
    group.acknowledge("a", 2, 2, "fail", reason="other")
    group.acknowledge("a", 3, 3, "release")
    first, second = retrying(group)
    assert (told(first), told(second)) == ((0, 1, 1, "disk full"), (2, 2, 1, "other"))
    assert first.first_failed_ms == group.now
    assert (first.next_try_ms, second.next_try_ms) == (group.now + 60_000, 0)
    assert group.actor.retrying().count == 3
    assert [each.offset for each in group.actor.retrying().records] == [2, 0, 1]


def test_a_lock_that_expired_is_a_failure(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    group.advance(30_000)
    group.drain()
    [each] = retrying(group)
    assert told(each) == (0, 0, 1, "its lock expired")


def test_what_is_at_hand_or_done_or_dead_is_not_shown(group: SimulatedShare) -> None:
    group.publish(3)
    group.acquire("a")
    group.acknowledge("a", 0, 2, "fail", reason="no")
    group.acquire("a")
    assert retrying(group) == []
    group.acknowledge("a", 0, 0, "accept")
    group.acknowledge("a", 1, 1, "reject")
    group.acknowledge("a", 2, 2, "fail", reason="again")
    assert [told(each) for each in retrying(group)] == [(2, 2, 2, "again")]


def test_after_a_restart_the_reason_is_unknown_and_the_count_is_kept(group: SimulatedShare) -> None:
    group.publish(1)
    group.acquire("a")
    group.acknowledge("a", 0, 0, "fail", reason="no", delay_ms=60_000)
    group.crash(is_append_durable=True)
    group.start()
    group.run()
    [each] = retrying(group)
    assert told(each) == (0, 0, 1, None)


def test_a_record_that_keeps_failing_is_an_alarm_until_it_is_done(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a")
    group.acknowledge("a", 0, 1, "fail", delay_ms=2 * RETRY_ALARM_MS, reason="disk full")
    group.advance(RETRY_ALARM_MS - 1)
    group.drain()
    assert group.alarms == ()
    group.advance(1)
    group.drain()
    assert group.alarms == (
        "retrying: ORDERS/0 offset 0 (and 1 more) has been failing for more than 600 s, 1 times: disk full",
    )
    group.advance(RETRY_ALARM_MS)
    group.drain()
    group.acquire("a")
    group.acknowledge("a", 0, 1, "accept")
    assert group.alarms == ()
