"""Progress reports of a coordinator to the partitions of its topics: the group's offsets, and its liveness."""

import pytest

from planaria.actors.journal.appender import AppendCall
from planaria.transport.addresses import Address
from planaria.transport.machine import PeerUp, StopRequested
from planaria.transport.protocol.groups import CommitOffsets, DeleteGroup, PartitionOffset
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.shares import Acquire
from simulated_group import SimulatedGroup, SimulatedMember
from simulated_share import SimulatedShare

INTERVAL_MS = 100


@pytest.fixture
def group() -> SimulatedGroup:
    group = SimulatedGroup({"ORDERS": 2, "AUDIT": 1})
    group.tracked = {"ORDERS"}
    return group.run()


def told(group: SimulatedGroup) -> list[tuple[str, int, int, bool]]:
    """Return the reports since the last call."""
    found = [(each.topic, each.partition, each.offset, each.has_members) for each in group.reports]
    group.reports.clear()
    return sorted(found)


def commit(group: SimulatedGroup, **offsets: int) -> None:
    """Commit from outside; the group has no members."""
    positions = [PartitionOffset(topic, 0, offset) for topic, offset in offsets.items()]
    group.request("operator", CommitOffsets(group=group.group, generation=0, offsets=positions))


def settle(group: SimulatedGroup) -> None:
    group.advance(INTERVAL_MS)
    group.drain()


def test_a_start_tells_every_partition_even_that_there_is_nothing(group: SimulatedGroup) -> None:
    assert told(group) == [("ORDERS", 0, -1, False), ("ORDERS", 1, -1, False)]


def test_topics_that_do_not_ask_hear_nothing(group: SimulatedGroup) -> None:
    settle(group)
    told(group)
    commit(group, AUDIT=5)
    settle(group)
    assert told(group) == []


def test_members_and_commits_are_told(group: SimulatedGroup) -> None:
    settle(group)
    told(group)
    member = SimulatedMember(group, "a")
    member.turn()
    settle(group)
    assert told(group) == [("ORDERS", 0, -1, True), ("ORDERS", 1, -1, True)]
    member.turn()
    offsets = [PartitionOffset("ORDERS", 1, 7)]
    group.request(
        "a",
        CommitOffsets(
            group=group.group, member_id=member.member_id, generation=member.generation, offsets=offsets
        ),
    )
    settle(group)
    assert told(group) == [("ORDERS", 1, 7, True)]
    group.advance(10_000)  # its session expires
    group.drain()
    settle(group)
    assert told(group) == [("ORDERS", 0, -1, False), ("ORDERS", 1, 7, False)]


def test_many_commits_are_one_report_an_interval(group: SimulatedGroup) -> None:
    settle(group)
    told(group)
    for offset in range(1, 50):
        commit(group, ORDERS=offset)
    settle(group)
    assert told(group) == [("ORDERS", 0, 1, False), ("ORDERS", 0, 49, False)]


def test_what_is_committed_while_an_urgent_report_is_out_follows_its_answer(group: SimulatedGroup) -> None:
    settle(group)
    group.is_urgent = True
    group.ask("a", CommitOffsets(group=group.group, generation=0, offsets=[PartitionOffset("ORDERS", 0, 1)]))
    [append] = list(group.answerable())
    group.answer(append)
    [report] = group.answerable()
    group.ask("a", CommitOffsets(group=group.group, generation=0, offsets=[PartitionOffset("ORDERS", 0, 2)]))
    [append] = [call for call in group.answerable() if call is not report]
    group.answer(append)
    assert group.answerable() == [report]
    told(group)
    group.answer(report)
    group.drain()
    assert told(group) == [("ORDERS", 0, 1, False), ("ORDERS", 0, 2, False)]


def test_a_report_that_takes_longer_than_an_interval_is_followed_by_the_next(group: SimulatedGroup) -> None:
    settle(group)
    told(group)

    def commit_without_report(offset: int) -> None:
        offsets = [PartitionOffset("ORDERS", 0, offset)]
        group.ask("a", CommitOffsets(group=group.group, generation=0, offsets=offsets))
        [append] = [call for call in group.answerable() if isinstance(call.key, AppendCall)]
        group.answer(append)

    commit_without_report(1)
    [report] = group.answerable()
    group.advance(INTERVAL_MS)
    commit_without_report(2)
    assert group.answerable() == [report], "one at a time"
    group.answer(report)
    settle(group)
    assert told(group) == [("ORDERS", 0, 1, False), ("ORDERS", 0, 2, False)]


def test_a_partition_that_came_up_is_told_everything(group: SimulatedGroup) -> None:
    commit(group, ORDERS=3)
    settle(group)
    told(group)
    group.down = {"partition/ORDERS/0"}
    commit(group, ORDERS=4)
    settle(group)
    settle(group)
    assert told(group) == []
    assert not group.answerable(), "a partition that is down is not asked again and again"
    group.down = set()
    group.handle(PeerUp(address=Address.parse("partition/ORDERS/0"), incarnation=2, endpoint="ipc://p"))
    group.drain()
    settle(group)
    assert told(group) == [("ORDERS", 0, 4, False)]


def test_a_topic_that_begins_to_ask_is_told(group: SimulatedGroup) -> None:
    commit(group, AUDIT=9)
    settle(group)
    told(group)
    group.tracked = {"ORDERS", "AUDIT"}
    group.set_topics(dict(group.topics))
    group.drain()
    settle(group)
    assert told(group) == [("AUDIT", 0, 9, False)]


def test_a_new_topic_hears_nothing_of_its_predecessors_offsets(group: SimulatedGroup) -> None:
    commit(group, ORDERS=9)
    settle(group)
    told(group)
    group.recreate("ORDERS")
    group.drain()
    settle(group)
    settle(group)
    assert {each.topic_id for each in group.reports} == {"ORDERS.1"}
    assert {offset for _, _, offset, _ in told(group)} == {-1}


def test_a_deleted_group_says_so_before_its_coordinator_stops(group: SimulatedGroup) -> None:
    commit(group, ORDERS=9)
    settle(group)
    commit(group, ORDERS=10)
    told(group)
    assert group.request("operator", DeleteGroup(group=group.group)) == Done(id=None)
    group.handle(StopRequested(group.now + 1_000))
    group.drain()
    assert told(group)[-1] == ("ORDERS", 0, -1, False)
    assert group.is_stopped


def test_the_next_coordinator_speaks_with_a_higher_epoch(group: SimulatedGroup) -> None:
    settle(group)
    [before] = {each.epoch for each in group.reports}
    told(group)
    group.crash(is_append_durable=True)
    group.drain()
    [after] = {each.epoch for each in group.reports}
    assert after > before


def test_offsets_are_kept_until_the_group_is_deleted(group: SimulatedGroup) -> None:
    commit(group, ORDERS=9)
    for _ in range(3):
        group.advance(365 * 24 * 3600 * 1000)
        group.start(with_snapshot=False)
        group.drain()
        assert group.state.offsets["ORDERS", 0].offset == 9
    group.request("operator", DeleteGroup(group=group.group))
    assert group.state.offsets == {}


def test_a_share_group_tells_up_to_where_all_is_done() -> None:
    group = SimulatedShare({"ORDERS": 1, "AUDIT": 1})
    group.tracked = {"ORDERS"}
    group.run()
    group.publish(10)
    group.acquire("worker", 4)
    settle(group)
    assert told(group)[-1] == ("ORDERS", 0, 0, True)
    group.acknowledge("worker", 1, 3, "accept")
    settle(group)
    assert told(group) == [], "the first one is at work still"
    group.acknowledge("worker", 0, 0, "accept")
    settle(group)
    assert told(group) == [("ORDERS", 0, 4, False)]
    group.crash(is_append_durable=True)
    group.run()
    settle(group)
    assert told(group) == [("ORDERS", 0, 4, False)]
    group.request("operator", DeleteGroup(group=group.group))
    settle(group)
    assert told(group) == [("ORDERS", 0, -1, False)]


def test_members_of_a_share_group_are_those_who_hold_records_or_wait_for_some() -> None:
    group = SimulatedShare({"ORDERS": 1, "AUDIT": 1})
    group.tracked = {"ORDERS"}
    group.run()
    settle(group)
    told(group)
    group.ask("worker", Acquire(group=group.group, topics=["ORDERS"], member_id="w", max_wait_ms=5_000))
    settle(group)
    settle(group)
    assert told(group)[-1] == ("ORDERS", 0, 0, True)
    group.advance(6_000)
    group.drain()
    settle(group)
    assert told(group) == [("ORDERS", 0, 0, False)]
