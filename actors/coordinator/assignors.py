"""Assignors: pure functions of members, partition counts and the previous assignment.

Owns the three strategies, not their timing: reconcile.py moves a member from the partitions it holds to those assigned
here. Called by decisions.py whenever members, subscriptions or topics have changed. Deterministic: ties are resolved by
the order of `members`, which the caller fixes, and partitions are assigned in ascending order. A subscribed topic that
does not exist adds no partitions.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from ...transport.addresses import TopicPartition
from ...transport.protocol.groups import AssignorName

Subscriptions: TypeAlias = Mapping[str, Collection[str]]
"""Subscribed topics by member."""
PartitionCounts: TypeAlias = Mapping[str, int]
Assignment: TypeAlias = dict[str, frozenset[TopicPartition]]
Assignor: TypeAlias = Callable[
    [Subscriptions, PartitionCounts, Mapping[str, Collection[TopicPartition]]], Assignment
]


def range_assignor(
    members: Subscriptions,
    partitions: PartitionCounts,
    previous: Mapping[str, Collection[TopicPartition]],  # noqa: ARG001  one signature for every assignor
) -> Assignment:
    """Cut each topic into runs, one for each subscriber: equal partition numbers of two topics go to the same member.

    As in Kafka's RangeAssignor, the first subscribers get the remainder.
    """
    chosen: dict[str, set[TopicPartition]] = {member: set() for member in members}
    for topic in _topics(members, partitions):
        subscribers = [member for member in members if topic in members[member]]
        share, remainder = divmod(partitions[topic], len(subscribers))
        first = 0
        for index, member in enumerate(subscribers):
            end = first + share + (index < remainder)
            chosen[member].update(TopicPartition(topic, partition) for partition in range(first, end))
            first = end
    return _frozen(chosen)


def round_robin_assignor(
    members: Subscriptions,
    partitions: PartitionCounts,
    previous: Mapping[str, Collection[TopicPartition]],  # noqa: ARG001  one signature for every assignor
) -> Assignment:
    """Deal all partitions of all topics out in a circle that skips members not subscribed to the topic."""
    chosen: dict[str, set[TopicPartition]] = {member: set() for member in members}
    circle = list(members)
    position = 0
    for topic, partition in _all_partitions(members, partitions):
        while topic not in members[circle[position % len(circle)]]:
            position += 1
        chosen[circle[position % len(circle)]].add(TopicPartition(topic, partition))
        position += 1
    return _frozen(chosen)


def sticky_assignor(
    members: Subscriptions,
    partitions: PartitionCounts,
    previous: Mapping[str, Collection[TopicPartition]],
) -> Assignment:
    """Balance the load, moving as few partitions as balance allows.

    Where all members subscribe to the same topics, loads differ by one at most and the number of moves is minimal.
    Elsewhere no single move from one member to another could improve the balance.
    """
    wanted = _all_partitions(members, partitions)
    kept = _still_valid(members, set(wanted), previous)
    if len({frozenset(topics) for topics in members.values()}) == 1:
        _trim_to_quotas(kept, len(wanted))
    _place(kept, wanted, members)
    _level(kept, members)
    return _frozen(kept)


ASSIGNORS: dict[AssignorName, Assignor] = {
    "sticky": sticky_assignor,
    "range": range_assignor,
    "round_robin": round_robin_assignor,
}
DEFAULT_ASSIGNOR: AssignorName = "sticky"


def _topics(members: Subscriptions, partitions: PartitionCounts) -> list[str]:
    subscribed = {topic for topics in members.values() for topic in topics}
    return sorted(topic for topic in subscribed if topic in partitions)


def _all_partitions(members: Subscriptions, partitions: PartitionCounts) -> list[TopicPartition]:
    return [
        TopicPartition(topic, partition)
        for topic in _topics(members, partitions)
        for partition in range(partitions[topic])
    ]


def _frozen(chosen: Mapping[str, Iterable[TopicPartition]]) -> Assignment:
    return {member: frozenset(partitions) for member, partitions in chosen.items()}


def _still_valid(
    members: Subscriptions,
    wanted: set[TopicPartition],
    previous: Mapping[str, Collection[TopicPartition]],
) -> dict[str, set[TopicPartition]]:
    """Return each member's previous partitions that exist, are subscribed to, and not claimed by an earlier member."""
    kept: dict[str, set[TopicPartition]] = {}
    unclaimed = set(wanted)
    for member, topics in members.items():
        mine = {item for item in previous.get(member, ()) if item in unclaimed and item[0] in topics}
        unclaimed -= mine
        kept[member] = mine
    return kept


def _trim_to_quotas(kept: dict[str, set[TopicPartition]], total: int) -> None:
    """Cut each member to its fair share; the larger shares go to the members with the most partitions to keep."""
    share, remainder = divmod(total, len(kept))
    by_load = sorted(kept, key=lambda member: -len(kept[member]))
    for index, member in enumerate(by_load):
        quota = share + (index < remainder)
        kept[member] = set(sorted(kept[member])[:quota])


def _place(
    kept: dict[str, set[TopicPartition]], wanted: list[TopicPartition], members: Subscriptions
) -> None:
    """Assign each unowned partition to the least loaded subscriber."""
    taken = set().union(*kept.values()) if kept else set()
    subscribers: dict[str, list[str]] = {}
    for topic, partition in wanted:
        if (topic, partition) in taken:
            continue
        if topic not in subscribers:
            subscribers[topic] = [member for member in members if topic in members[member]]
        least = min(subscribers[topic], key=lambda member: len(kept[member]))
        kept[least].add(TopicPartition(topic, partition))


def _level(kept: dict[str, set[TopicPartition]], members: Subscriptions) -> None:
    """Move single partitions from a fuller to an emptier subscriber until no move helps.

    Terminates: every move lowers the sum of the squared loads.
    """
    topics = sorted({topic for topics in members.values() for topic in topics})
    subscribers = {topic: [member for member in members if topic in members[member]] for topic in topics}
    is_moving = True
    while is_moving:
        is_moving = False
        for topic in topics:
            while _move_one(kept, topic, subscribers[topic]):
                is_moving = True


def _move_one(kept: dict[str, set[TopicPartition]], topic: str, subscribers: list[str]) -> bool:
    least = min(subscribers, key=lambda member: len(kept[member]))
    fuller = [member for member in subscribers if len(kept[member]) - len(kept[least]) >= 2]
    for member in sorted(fuller, key=lambda member: -len(kept[member])):
        movable = [item for item in kept[member] if item[0] == topic]
        if movable:
            item = max(movable)
            kept[member].remove(item)
            kept[least].add(item)
            return True
    return False
