"""The leading controller's writes: leaders, replicas of new partitions, the end of deleted ones. Pure.

    order   partitions                                      write
    1       those whose leader should change                `deciding.py`
    2       those whose topic is gone, or is another one    removed
    3       those of the catalog that have no record        placed on the nodes with the fewest replicas
    4       those with a replica on a node that leaves      reassigned, `EVACUATED_AT_ONCE` at a time

Only partitions that may have to change are looked at: those whose record has changed; those with a replica on a node
that has come, gone or got other instructions; all of them each `CHECK_ALL_MS`, because a preferred leader returns after
a time. A catalog and records that have been found to agree (2, 3) are compared again after a change of topics, or of a
record that does not belong to a topic. So the cost of most events does not grow with the cluster.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from ....transport.addresses import TopicPartition
from ...metadata.store import ABSENT, Change, Delete, Guard
from .deciding import CHANGES_AT_ONCE, ClusterView, LeaderDecisions, live_nodes
from .elections import DataIds
from .mirror import Mirror, partition_key, put, removal_key
from .placement import TooFewNodes, evacuate, led_elsewhere, place, usable
from .reassignment import begun
from .records import Member, NodeSession, PartitionRecord, Removal

CHECK_ALL_MS = 10_000
PLACED_AT_ONCE = 80
"""Maximum number of partitions placed, or removed, in one proposal."""
EVACUATED_AT_ONCE = 10
"""Maximum number of reassignments in progress that the departure of nodes adds to: each copies a whole partition."""


class RequiredTopic(Struct, frozen=True):
    """A topic of the catalog, as far as its placement needs it."""

    topic_id: str
    partitions: int
    replication_factor: int
    min_in_sync_replicas: int


Topics = Callable[[], Mapping[str, RequiredTopic]]
"""Returns the same mapping as long as no topic changes, then another one."""
Writes = list[tuple[Change, Guard]]


def guarded(partition: TopicPartition, record: PartitionRecord, revision: int) -> tuple[Change, Guard]:
    """Return the write of a record, and the guard that its key was last written at this revision."""
    key = partition_key(partition)
    return put(key, record), Guard(key, revision)


class Assignments:
    def __init__(self, mirror: Mirror, topics: Topics) -> None:
        self._mirror = mirror
        self._topics = topics
        self._decisions = LeaderDecisions()
        self._unchecked: set[TopicPartition] | None = None
        """Partitions whose leader may have to change; None: any."""
        self._checked_at = 0
        self.unplaced = ""
        """The reason why partitions, or replicas of a node that leaves, wait for a place; empty if none do."""
        self._may_evacuate = True
        """False while no partition is left to move from a node that leaves."""
        self._may_place = True
        """False while each partition of the catalog has its record, and none another one."""
        self._placed_topics: Mapping[str, RequiredTopic] | None = None
        """The topics when that was found."""

    def check_all(self) -> None:
        self._unchecked = None
        self._may_evacuate = self._may_place = True

    def check_nodes(self, nodes: frozenset[str] | set[str]) -> None:
        """Look at the partitions of nodes that have come or gone, or should be used otherwise."""
        self._may_evacuate = True
        self._may_place = self._may_place or bool(self.unplaced)
        if self._unchecked is not None:
            self._unchecked.update(
                partition
                for partition, versioned in self._mirror.partitions.items()
                if not nodes.isdisjoint(versioned.record.replicas)
                or not nodes.isdisjoint(versioned.record.target)
            )

    def check(self, partition: TopicPartition) -> None:
        self._may_evacuate = True
        versioned, topic = self._mirror.partitions.get(partition), self._topics().get(partition.topic)
        if versioned is None or topic is None or topic.topic_id != versioned.record.topic_id:
            self._may_place = True
        if self._unchecked is not None:
            self._unchecked.add(partition)

    def due(self, suspected: frozenset[str], now: int) -> Writes:
        """Return the next writes; none when all is as it should be."""
        if now - self._checked_at >= CHECK_ALL_MS:
            self.check_all()
        writes = self._decided(suspected, now)
        if not writes and (self._may_place or self._topics() is not self._placed_topics):
            writes = self._unneeded(suspected)
            if not writes:
                writes, self.unplaced = self._placed(suspected)
            self._may_place, self._placed_topics = bool(writes), self._topics()
        if not writes:
            writes, waiting = self._evacuated(suspected)
            self.unplaced = self.unplaced or waiting
        return writes

    def waiting(self, suspected: frozenset[str]) -> str:
        """Return the same reason as `unplaced`, also on a node whose controller does not lead."""
        self._may_evacuate = True
        return self._placed(suspected)[1] or self._evacuated(suspected)[1]

    def minimum(self, topic: str) -> int:
        """Return a topic's `min_in_sync_replicas`."""
        found = self._topics().get(topic)
        return 1 if found is None else found.min_in_sync_replicas

    def _decided(self, suspected: frozenset[str], now: int) -> Writes:
        view = ClusterView(
            self._mirror.partitions, self._mirror.sessions, self._mirror.settings, self.minimum
        )
        changes = self._decisions.decide(view, suspected, now, self._unchecked)
        if self._unchecked is None:
            self._checked_at = now
        if not changes:
            self._unchecked = set()
        live = live_nodes(view.sessions, suspected)
        writes: Writes = []
        for change in changes:
            step = [
                guarded(change.partition, change.record, change.revision),
                *self._left_behind(change.partition, change.record, live),
            ]
            if writes and len(writes) + len(step) > CHANGES_AT_ONCE:
                break
            writes += step
        return writes

    def _left_behind(self, partition: TopicPartition, record: PartitionRecord, live: DataIds) -> Writes:
        """Note the files on nodes that are away, and hold this partition no more by its next record."""
        known = self._mirror.partitions[partition].record
        writes: Writes = []
        for node in sorted(set(known.replicas) - set(record.replicas) - live.keys()):
            key = removal_key(node, record.topic_id, partition.partition)
            if key not in self._mirror.removals:
                writes.append((put(key, Removal(partition.topic, partition.partition)), Guard(key, ABSENT)))
        return writes

    def _unneeded(self, suspected: frozenset[str]) -> Writes:
        """Remove the records of partitions that the catalog does not have. Nodes that are away learn it later."""
        topics = self._topics()
        writes: dict[str, tuple[Change, Guard]] = {}
        live = live_nodes(self._mirror.sessions, suspected)
        for partition, versioned in self._mirror.partitions.items():
            topic, record = topics.get(partition.topic), versioned.record
            if topic is not None and topic.topic_id == record.topic_id:
                continue
            key = partition_key(partition)
            writes[key] = (Delete(key), Guard(key, versioned.revision))
            for node in record.replicas:
                removal = removal_key(node, record.topic_id)
                if node not in live and removal not in self._mirror.removals:
                    writes[removal] = (put(removal, Removal(partition.topic)), Guard(removal, ABSENT))
            if len(writes) >= PLACED_AT_ONCE:
                break
        return list(writes.values())

    def _usable(self, suspected: frozenset[str]) -> dict[str, NodeSession]:
        nodes = usable(self._mirror.sessions, self._mirror.settings)
        return {node: session for node, session in nodes.items() if node not in suspected}

    def _placed(self, suspected: frozenset[str]) -> tuple[Writes, str]:
        """Place the partitions of the catalog that have no record. Return the reason why some have to wait as well."""
        nodes = self._usable(suspected)
        avoid = led_elsewhere(self._mirror.sessions, self._mirror.settings)
        records = {partition: versioned.record for partition, versioned in self._mirror.partitions.items()}
        writes: Writes = []
        unplaced = ""
        for name, topic in self._topics().items():
            missing = [
                partition
                for number in range(topic.partitions)
                if (partition := TopicPartition(name, number)) not in records
            ][: PLACED_AT_ONCE - len(writes)]
            factor = topic.replication_factor
            # A node that is suspected may follow later. Without it the partitions would wait for its return.
            chosen = (
                (nodes, avoid) if len(nodes) >= factor else (self._usable(frozenset()), avoid | suspected)
            )
            try:
                placed = place(chosen[0], records, len(missing), factor, chosen[1]) if missing else []
            except TooFewNodes as error:
                unplaced = f"topic {name!r}: {error}"
                continue
            for partition, replicas in zip(missing, placed, strict=True):
                record = self._first_record(topic, replicas)
                records[partition] = record
                writes.append(guarded(partition, record, ABSENT))
            if len(writes) == PLACED_AT_ONCE:
                break
        return writes, unplaced

    def _evacuated(self, suspected: frozenset[str]) -> tuple[Writes, str]:
        """Begin to move replicas away from nodes that leave. Return the reason why some have to wait as well."""
        leaving = sorted(node for node, settings in self._mirror.settings.items() if settings.is_leaving)
        if not leaving or not self._may_evacuate:
            return [], ""
        nodes, partitions = self._usable(suspected), self._mirror.partitions
        avoid = led_elsewhere(self._mirror.sessions, self._mirror.settings)
        records = {partition: versioned.record for partition, versioned in partitions.items()}
        room = EVACUATED_AT_ONCE - sum(record.is_reassigned for record in records.values())
        writes: Writes = []
        for node in leaving:
            try:
                moves = evacuate(node, nodes, records, leaving, avoid)
            except TooFewNodes as error:
                return writes, f"node {node!r} cannot leave: {error}"
            for move in moves[: max(0, room - len(writes))]:
                record = begun(records[move.partition], move.replicas)
                records[move.partition] = record
                writes.append(guarded(move.partition, record, partitions[move.partition].revision))
            if moves:
                break
        self._may_evacuate = bool(writes)
        return writes, ""

    def _first_record(self, topic: RequiredTopic, replicas: tuple[str, ...]) -> PartitionRecord:
        """Return the record of a new partition. The other replicas join the set once they exist.

        Until then each is eligible: nothing has been committed, so an empty log misses nothing.
        """
        members = tuple(Member(node, self._mirror.sessions[node].data_id) for node in replicas)
        return PartitionRecord(
            topic_id=topic.topic_id,
            replicas=replicas,
            leader=replicas[0],
            in_sync=members[:1],
            eligible=members[1:],
            is_new=True,
        )
