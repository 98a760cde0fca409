"""Replies of a coordinator while its records are in flight: none contradicts a decision already made."""

from planaria.transport.protocol.groups import FetchOffsets
from simulated_group import GROUP, SimulatedGroup, SimulatedMember, converge

SESSION_MS = 3_000


def test_offsets_are_told_once_the_commits_before_are_durable() -> None:
    group = SimulatedGroup({"ORDERS": 1}).run()
    member = SimulatedMember(group, "a", session_timeout_ms=SESSION_MS)
    converge([member])
    assert member.commits("ORDERS", 0, 5) == "ok"
    member.commit("ORDERS", 0, 23)
    asked = group.ask("a", FetchOffsets(group=GROUP))
    assert group.answer_of(asked) is None
    group.drain()
    assert [item.offset for item in group.answer_of(asked).offsets] == [23]


def test_a_member_that_was_removed_and_is_back_is_not_told_what_it_had() -> None:
    """Its session ended while the log was unreachable: its partitions may be reassigned the moment the log is back."""
    group = SimulatedGroup({"ORDERS": 2}).run()
    early = SimulatedMember(group, "early", session_timeout_ms=SESSION_MS)
    late = SimulatedMember(group, "late", session_timeout_ms=SESSION_MS)
    converge([early])
    converge([early, late])
    group.is_partition_up = False
    group.advance(SESSION_MS + 1)
    early.generation, early.owned = 0, set()
    for _ in range(2):
        early.heartbeat()
        assert early.receive() is None
    group.partition_up()
    group.drain()
    body = early.receive()
    assert body is not None
    assert body.assignment == {"ORDERS": [0, 1]}
    assert body.generation > 2


def test_a_member_is_not_told_what_was_freed_while_its_join_waited() -> None:
    """Its session ended before the record of its join was durable, and another member is to get its partitions."""
    group = SimulatedGroup({"ORDERS": 2}).run()
    group.is_partition_up = False
    early = SimulatedMember(group, "early", session_timeout_ms=SESSION_MS)
    early.heartbeat()
    group.advance(SESSION_MS + 1)
    other = SimulatedMember(group, "other", session_timeout_ms=SESSION_MS)
    other.heartbeat()
    group.partition_up()
    group.drain()
    told = early.receive()
    assert told is None or told.assignment == {}
    body = other.receive()
    assert body is not None
    assert body.assignment == {"ORDERS": [0, 1]}
