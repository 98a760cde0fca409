"""Placement: the nodes that get the replicas of a new partition, and plans that move replicas. Pure.

    rule                                                                       checked by
    the replicas of a partition are on different nodes                         every function here
    ... and on different racks, as long as there are enough of them            `choose`
    a new replica goes to the node with the fewest                             `choose`
    the first replica, the preferred leader, goes to the node with the fewest  `choose`
    cordoned and leaving nodes get no new replica                              `usable`
    a draining node gets no preferred leader, and no replica by a plan         `choose`, `rebalance`

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
        nodes = "1 node" if usable == 1 else f"{usable} nodes"
        super().__init__(f"replication_factor {needed}: only {nodes} can hold replicas")
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


def led_elsewhere(
    sessions: Mapping[str, NodeSession], settings: Mapping[str, NodeSettings]
) -> frozenset[str]:
    """Return the nodes that should lead nothing."""
    instructed = {node for node, each in settings.items() if each.is_draining or each.is_leaving}
    return stopping_nodes(sessions) | instructed


def stopping_nodes(sessions: Mapping[str, NodeSession]) -> frozenset[str]:
    return frozenset(node for node, session in sessions.items() if session.is_stopping)


def place(
    nodes: Mapping[str, NodeSession],
    records: Records,
    partitions: int,
    replication_factor: int,
    avoid: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """Return the replicas of each of this many new partitions, led by nodes other than those to `avoid`, if possible.

    Raises TooFewNodes.
    """
    load = Load(nodes, records)
    placed = []
    for _ in range(partitions):
        replicas = choose(nodes, load, replication_factor, avoid=avoid)
        load.add(replicas)
        placed.append(replicas)
    return placed


def choose(
    nodes: Mapping[str, NodeSession],
    load: Load,
    count: int,
    keep: Sequence[str] = (),
    avoid: Collection[str] = (),
) -> tuple[str, ...]:
    """Return `count` nodes: those to `keep` first, then the least loaded ones, on racks that are not used yet.

    The first one is the node that leads the fewest partitions, and not one to `avoid`. Raises TooFewNodes.
    """
    possible = {*nodes, *keep}
    if len(possible) < count:
        raise TooFewNodes(count, len(possible))
    chosen = list(keep[:count])
    while len(chosen) < count:
        racks = Counter(nodes[node].rack for node in chosen if node in nodes)
        candidates = [node for node in nodes if node not in chosen]
        chosen.append(min(candidates, key=lambda node: (racks[nodes[node].rack], load.replicas[node], node)))
    first = min(chosen, key=lambda node: (node in avoid, load.leaders[node], load.replicas[node], node))
    if keep and keep[0] in chosen:
        first = keep[0]
    return (first, *(node for node in chosen if node != first))


def evacuate(
    node: str,
    nodes: Mapping[str, NodeSession],
    records: Records,
    leaving: Collection[str] = (),
    avoid: Collection[str] = (),
) -> list[Move]:
    """Return the moves after which this node holds no replica. Raises TooFewNodes.

    A replica stays on any other node, also on one that is cordoned or down, but for those that are `leaving` as well.
    """
    others = {name: session for name, session in nodes.items() if name != node}
    load = Load(nodes, records)
    moves = []
    for partition, record in sorted(records.items()):
        present = record.target or record.replicas
        if node not in present:
            continue
        load.remove(present)
        staying = [name for name in present if name != node and name not in leaving]
        replicas = choose(others, load, len(present), staying, avoid)
        load.add(replicas)
        moves.append(Move(partition, replicas))
    return moves


def rebalance(nodes: Mapping[str, NodeSession], records: Records, avoid: Collection[str] = ()) -> list[Move]:
    """Return the moves after which every node holds about as many replicas, and leads about as many partitions.

    One replica of a partition is moved at a time, from the fullest node to the emptiest that may take it, while their
    loads differ by more than one. Then preferred leaders are exchanged within the replicas. Nothing is moved to a node
    outside of `nodes`, or to one to `avoid`, and neither becomes a preferred leader.
    """
    planned = {partition: record.target or record.replicas for partition, record in records.items()}
    load = Load(nodes, records)
    takers = [node for node in nodes if node not in avoid]
    while (step := _best_move(nodes, takers, planned, load)) is not None:
        partition, replicas = step
        load.remove(planned[partition])
        load.add(replicas)
        planned[partition] = replicas
    for partition, replicas in sorted(planned.items()):
        possible = [node for node in replicas if node in takers]
        first = min(possible, key=lambda node: (load.leaders[node], node), default=replicas[0])
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
    nodes: Mapping[str, NodeSession],
    takers: Collection[str],
    planned: Mapping[TopicPartition, tuple[str, ...]],
    load: Load,
) -> tuple[TopicPartition, tuple[str, ...]] | None:
    by_load = sorted(nodes, key=lambda node: (load.replicas[node], node))
    for emptiest in [node for node in by_load if node in takers]:
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
