"""Placement: the nodes that get the replicas of a new partition, and plans that move replicas. Pure.

    rule                                                                       checked by
    the replicas of a partition are on different nodes                         every function here
    ... and on different racks, as long as there are enough of them            `choose`
    a new replica goes to the node with the fewest                             `choose`
    the first replica, the preferred leader, goes to the node with the fewest  `choose`
    cordoned and leaving nodes get no new replica                              `usable`

A plan (`rebalance`, `evacuate`) is a list of moves. Each move names the whole new list of replicas of one partition;
`reassignment.py` carries it out.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from ....transport.addresses import TopicPartition
from .records import DEFAULT_SETTINGS, NodeSession, NodeSettings, PartitionRecord

Records = Mapping[TopicPartition, PartitionRecord]


class TooFewNodes(Exception):
    """There are fewer usable nodes than replicas."""

    def __init__(self, needed: int, usable: int) -> None:
        super().__init__(f"replication_factor {needed}: only {usable} nodes can hold replicas")
        self.needed = needed
        self.usable = usable


class Move(Struct, frozen=True):
    """A partition and the replicas that it should have."""

    partition: TopicPartition
    replicas: tuple[str, ...]


class Load:
    """The number of replicas and of preferred leaders on each node."""

    def __init__(self, nodes: Collection[str], records: Records) -> None:
        self.replicas = Counter(dict.fromkeys(nodes, 0))
        self.leaders = Counter(dict.fromkeys(nodes, 0))
        for record in records.values():
            self.add(record.target or record.replicas)

    def add(self, replicas: Sequence[str]) -> None:
        self.replicas.update(replicas)
        self.leaders[replicas[0]] += 1

    def remove(self, replicas: Sequence[str]) -> None:
        self.replicas.subtract(replicas)
        self.leaders[replicas[0]] -= 1


def usable(
    sessions: Mapping[str, NodeSession], settings: Mapping[str, NodeSettings]
) -> dict[str, NodeSession]:
    """Return the nodes that may get new replicas."""
    return {
        node: session
        for node, session in sessions.items()
        if not (
            settings.get(node, DEFAULT_SETTINGS).is_cordoned
            or settings.get(node, DEFAULT_SETTINGS).is_leaving
        )
    }


def place(
    nodes: Mapping[str, NodeSession], records: Records, partitions: int, replication_factor: int
) -> list[tuple[str, ...]]:
    """Return the replicas of each of this many new partitions. Raises TooFewNodes."""
    load = Load(nodes, records)
    placed = []
    for _ in range(partitions):
        replicas = choose(nodes, load, replication_factor)
        load.add(replicas)
        placed.append(replicas)
    return placed


def choose(
    nodes: Mapping[str, NodeSession], load: Load, count: int, keep: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return `count` nodes: those to `keep` first, then the least loaded ones, on racks that are not used yet.

    The first one is the node that leads the fewest partitions. Raises TooFewNodes.
    """
    if len(nodes) < count:
        raise TooFewNodes(count, len(nodes))
    chosen = list(keep[:count])
    while len(chosen) < count:
        racks = Counter(nodes[node].rack for node in chosen if node in nodes)
        candidates = [node for node in nodes if node not in chosen]
        chosen.append(min(candidates, key=lambda node: (racks[nodes[node].rack], load.replicas[node], node)))
    first = min(chosen, key=lambda node: (load.leaders[node], load.replicas[node], node))
    if keep and keep[0] in chosen:
        first = keep[0]
    return (first, *(node for node in chosen if node != first))


def evacuate(node: str, nodes: Mapping[str, NodeSession], records: Records) -> list[Move]:
    """Return the moves after which this node holds no replica. Raises TooFewNodes."""
    others = {name: session for name, session in nodes.items() if name != node}
    load = Load(nodes, records)
    moves = []
    for partition, record in sorted(records.items()):
        present = record.target or record.replicas
        if node not in present:
            continue
        load.remove(present)
        replicas = choose(others, load, len(present), [name for name in present if name != node])
        load.add(replicas)
        moves.append(Move(partition, replicas))
    return moves


def rebalance(nodes: Mapping[str, NodeSession], records: Records) -> list[Move]:
    """Return the moves after which every node holds about as many replicas, and leads about as many partitions.

    One replica of a partition is moved at a time, from the fullest node to the emptiest that may take it, while their
    loads differ by more than one. Then preferred leaders are exchanged within the replicas.
    """
    planned = {partition: record.target or record.replicas for partition, record in records.items()}
    load = Load(nodes, records)
    while (step := _best_move(nodes, planned, load)) is not None:
        partition, replicas = step
        load.remove(planned[partition])
        load.add(replicas)
        planned[partition] = replicas
    for partition, replicas in sorted(planned.items()):
        first = min(replicas, key=lambda node: (load.leaders[node], node))
        if load.leaders[replicas[0]] - load.leaders[first] > 1:
            load.remove(replicas)
            planned[partition] = (first, *(node for node in replicas if node != first))
            load.add(planned[partition])
    return [
        Move(partition, replicas)
        for partition, replicas in sorted(planned.items())
        if replicas != (records[partition].target or records[partition].replicas)
    ]


def _best_move(
    nodes: Mapping[str, NodeSession], planned: Mapping[TopicPartition, tuple[str, ...]], load: Load
) -> tuple[TopicPartition, tuple[str, ...]] | None:
    by_load = sorted(nodes, key=lambda node: (load.replicas[node], node))
    for emptiest in by_load:
        for fullest in reversed(by_load):
            if load.replicas[fullest] - load.replicas[emptiest] <= 1:
                break
            for partition, replicas in sorted(planned.items()):
                if fullest in replicas and emptiest not in replicas:
                    moved = tuple(emptiest if node == fullest else node for node in replicas)
                    if _racks(moved, nodes) >= _racks(replicas, nodes):
                        return partition, moved
    return None


def _racks(replicas: Sequence[str], nodes: Mapping[str, NodeSession]) -> int:
    return len({nodes[node].rack for node in replicas if node in nodes})
