"""A share group with partitions younger than itself, and with truncated logs."""

from typing import Any

import pytest

from planaria.transport.addresses import Address
from planaria.transport.machine import PeerUp
from planaria.transport.protocol.shares import Acquire, AcquiredRange, ConfigureShareGroup
from simulated_group import GROUP
from simulated_share import SimulatedShare


def some(first: int, last: int, partition: int = 0, deliveries: int = 1, life: int = 0) -> AcquiredRange:
    return AcquiredRange("ORDERS", partition, first, last, deliveries, f"ORDERS.{life}")


@pytest.fixture
def group() -> SimulatedShare:
    """A group from the end on; it knows ORDERS/0."""
    group = SimulatedShare()
    group.run()
    group.publish(5)
    group.request("operator", ConfigureShareGroup(group=GROUP, start="latest"))
    assert group.acquire("a") == []
    return group


def restarted(group: SimulatedShare, with_snapshot: bool | None) -> None:
    if with_snapshot is not None:
        group.start(with_snapshot=with_snapshot)
        group.drain()


@pytest.mark.parametrize("with_snapshot", [None, True, False])
def test_a_partition_that_was_added_is_read_from_its_beginning(
    group: SimulatedShare, with_snapshot: bool | None
) -> None:
    group.set_topics({"ORDERS": 2, "DLQ": 1})
    group.publish(3, partition=1)
    restarted(group, with_snapshot)
    assert group.acquire("a") == [some(0, 2, partition=1)]


@pytest.mark.parametrize("with_snapshot", [None, True, False])
def test_a_topic_that_was_created_again_is_read_from_its_beginning(
    group: SimulatedShare, with_snapshot: bool | None
) -> None:
    group.recreate("ORDERS")
    del group.logs["ORDERS", 0]
    group.publish(3)
    restarted(group, with_snapshot)
    group.drain()
    assert group.acquire("a") == [some(0, 2, life=1)]


def test_a_topic_that_is_created_after_it_was_asked_for_is_read_from_its_beginning() -> None:
    group = SimulatedShare({"DLQ": 1})
    group.run()
    group.request("operator", ConfigureShareGroup(group=GROUP, start="latest"))
    asked = group.ask("a", Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=5_000))
    group.drain()
    group.publish(3)
    group.set_topics({"ORDERS": 1, "DLQ": 1})
    group.drain()
    assert group.answer_of(asked).ranges == [some(0, 2)]


def test_a_group_that_begins_at_the_end_passes_what_was_there_before_it(group: SimulatedShare) -> None:
    group.publish(2)
    assert group.acquire("a") == [some(5, 6)]


@pytest.mark.parametrize("with_snapshot", [None, True, False])
@pytest.mark.parametrize("refill", [0, 1, 9])
def test_what_took_the_place_of_records_that_a_power_cut_took_is_delivered(
    refill: int, with_snapshot: bool | None
) -> None:
    group = SimulatedShare()
    group.run()
    for _ in range(4):
        group.publish(2)
    assert group.acquire("a") == [some(0, 7)]
    assert group.acknowledge("a", 0, 1, "accept") is None
    assert group.acknowledge("a", 4, 5, "accept") is None
    group.log_of("ORDERS").cut(2)
    if refill:
        group.publish(refill)
    restarted(group, with_snapshot)
    group.handle(PeerUp(address=Address.parse("partition/ORDERS/0"), incarnation=2, endpoint="ipc://p"))
    assert group.acknowledge("a", 2, 3, "release") == (None if with_snapshot is None else "NOT_ACQUIRED")
    assert group.acquire("b", 2) == [some(2, 3, deliveries=1 if with_snapshot is None else 2)]
    found: list[Any] = []
    for _ in range(3):
        found += group.acquire("b")
    expected = [some(4, 3 + refill)] if refill else []
    assert found == expected
    assert group.acknowledge("a", 4, 4, "accept") == "NOT_ACQUIRED"
    if refill:
        assert group.acknowledge("b", 4, 3 + refill, "accept") is None


def test_ranges_name_what_their_offsets_stand_for(group: SimulatedShare) -> None:
    group.publish(2)
    group.acquire("a")
    assert [(each.topic_id, each.leader_epoch) for each in group.given] == [("ORDERS.0", 0)]


def test_an_answer_of_the_topic_before_says_nothing_of_the_new_one(group: SimulatedShare) -> None:
    group.ask("a", Acquire(group=GROUP, topics=["ORDERS"], member_id="a", max_wait_ms=5_000))
    group.drain()
    group.recreate("ORDERS")
    del group.logs["ORDERS", 0]
    group.publish(2)
    for _ in range(3):
        group.advance(200)
        group.drain()
    assert group.state.shares["ORDERS", 0].topic_id == "ORDERS.1"
    assert group.state.shares["ORDERS", 0].start == 0
