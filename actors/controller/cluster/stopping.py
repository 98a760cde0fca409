"""The stop of this node as one step of a rolling restart: allowed or refused, prepared, concluded. Pure.

    state      means                                            left by
    running    no stop is asked for                             begin -> marking
    marking    the node's session is to show that it stops      written -> leaving
    leaving    its leaders move, its followers leave the sets   nothing is left, or too late -> concluded

A node that stops leads nothing and is in no in-sync set when its actors end, so no acknowledgement waits for it then.
The leading controller moves the leaders away from a session that is marked (`deciding.py`), and the leaders take its
replicas out of their sets (`in_sync.py` of the partition), as long as the sets stay at their minimum.

It is refused when a partition would be below its minimum without this node, and without the other nodes that drain or
stop. Of two nodes that stop at the same time, the one whose mark was written later is refused: both see the same order.
A stop that is forced waits for what can be moved, and for no more.
"""

from collections.abc import Mapping

from msgspec import Struct

from ....transport.addresses import TopicPartition
from .deciding import ClusterView, Versioned, live_nodes, would_fall_below
from .mirror import Mirror
from .placement import stopping_nodes
from .records import PartitionRecord

PREPARATION_MS = 10_000
"""Time after which the stop is refused if leaders or followers are left."""
FORCED_PREPARATION_MS = 3_000
NO_STORE = "the metadata store does not answer, so nothing can be moved"
SHOWN = 3


class Conclude(Struct, frozen=True):
    """The stop is prepared, or refused for a reason."""

    refusal: str = ""


class Stopping:
    def __init__(self, node: str) -> None:
        self._node = node
        self._began_at: int | None = None
        self._is_forced = False

    @property
    def is_begun(self) -> bool:
        return self._began_at is not None

    def begin(self, now: int, *, is_forced: bool) -> None:
        self._began_at, self._is_forced = now, is_forced

    def end(self) -> None:
        self._began_at = None

    def decide(
        self, mirror: Mirror, view: ClusterView, suspected: frozenset[str], now: int, *, is_in_session: bool
    ) -> Conclude | None:
        """Return the end of the preparation; None while it goes on."""
        assert self._began_at is not None
        if not is_in_session:
            # Nothing can be moved.
            return Conclude("" if self._is_forced else NO_STORE)
        if not self._is_forced:
            below = would_fall_below(self._node, view, suspected | self._before(mirror))
            if below:
                return Conclude(stop_refusal(below))
        left = self._left(mirror, view, suspected)
        own = mirror.sessions.get(self._node)
        if own is not None and own.is_stopping and not left:
            return Conclude()
        limit_ms = FORCED_PREPARATION_MS if self._is_forced else PREPARATION_MS
        if now - self._began_at < limit_ms:
            return None
        if self._is_forced:
            return Conclude()
        return Conclude(f"{named(left) or 'the session'} could not be moved within {limit_ms // 1_000} s")

    def _before(self, mirror: Mirror) -> frozenset[str]:
        """Return the other nodes that stop, but for those that have said so after this one."""
        others = stopping_nodes(mirror.sessions) - {self._node}
        if self._node not in stopping_nodes(mirror.sessions):
            return others
        revisions = mirror.session_revisions
        return frozenset(node for node in others if revisions[node] < revisions[self._node])

    def _left(self, mirror: Mirror, view: ClusterView, suspected: frozenset[str]) -> list[TopicPartition]:
        stopping = stopping_nodes(mirror.sessions) | {self._node}
        live = live_nodes(mirror.sessions, suspected | stopping)
        return [
            partition
            for partition, versioned in sorted(mirror.partitions.items())
            if self._is_held(versioned, live, view.minimum(partition.topic))
        ]

    def _is_held(self, versioned: Versioned, live: Mapping[str, str], minimum: int) -> bool:
        """Return True if something of a partition can still be moved away from this node."""
        record = versioned.record
        others = _others(record, live)
        if record.leader == self._node:
            return others > 0 or not self._is_forced
        return self._node in record.in_sync_nodes and others >= min(minimum, len(record.replicas))


def _others(record: PartitionRecord, live: Mapping[str, str]) -> int:
    """Return the number of in-sync members on these nodes."""
    return sum(live.get(member.node) == member.data_id for member in record.in_sync)


def stop_refusal(below: list[TopicPartition]) -> str:
    """Return the reason why a node may not stop."""
    return f"without this node {named(below)} would be below min_in_sync_replicas: wait until more replicas are in sync"


def named(partitions: list[TopicPartition]) -> str:
    """Return the first few partitions by name, and the number of the others."""
    shown = ", ".join(f"{partition.topic}/{partition.partition}" for partition in partitions[:SHOWN])
    more = len(partitions) - SHOWN
    return shown if more <= 0 else f"{shown} and {more} more"
