"""The replicas of one node: which processes it runs, and which role each of them has. Pure.

Compares each partition's record with the processes of this node, whenever one of them changes, and returns the
steps that are missing. It needs to see no particular change: a controller that starts again finds the same steps.

    record names this node      process here     record's claim            step
    no                          runs             -                         StopReplica
    as replica                  not started      -                         StartReplica, which a process that runs ignores
    as leader                   is up            another, or none          Write: the record, claimed by this process
    as leader                   is up            this process              AssignRole(is_leader)
    as leader, and its disk     any              -                         none: it waits for another leader
    is another one than then
    as leader                   quarantined, or  -                         Write: an in-sync member elsewhere leads, or,
                                its log damaged                            if it is quarantined, an eligible one
    as leader                   its disk is slow this process              Write: likewise, one whose disk is not
    as follower                 is up            -                         AssignRole
    as follower, in a set       has no folder    -                         Write: the record without this member
    as follower, in no set      has no folder    -                         StopReplica, StartReplica: an empty folder
    with an epoch below one     is up            -                         Write: an epoch above, claimed if it leads
    that a process here knows

- A claim is a guarded write of an epoch that no process has had (`elections.claimed`). Only its applied record lets a
  process lead, so no two processes lead under one epoch, even if this controller dies between the write and its answer.
- One write of a partition is open at a time. After an answer that never came, the record read from the store decides.
- A role is sent again when the record's revision or the process changes; receivers ignore one they have.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.protocol.replication import LogDamaged, RelieveLeader
from ...log.epochs import NO_EPOCH
from .deciding import Versioned
from .elections import DataIds, claimed, handed_over, raised, successor, without_damaged
from .records import Member, PartitionRecord, process_name


class StartReplica(Struct, frozen=True):
    partition: TopicPartition


class StopReplica(Struct, frozen=True):
    """End the process and remove its files: the node holds this partition no more.

    The files stay if the record was only found missing, in a whole state of the store: that store may be empty, or
    restored from an old copy.
    """

    partition: TopicPartition
    keeps_files: bool = False


class AssignRole(Struct, frozen=True):
    """Send the record to the process of this partition, which leads or follows by it."""

    partition: TopicPartition
    incarnation: int
    is_leader: bool
    record: PartitionRecord
    revision: int


class Write(Struct, frozen=True):
    """Write a record if the present one still has this revision; `on_written` takes the outcome."""

    partition: TopicPartition
    record: PartitionRecord
    revision: int


Step: TypeAlias = StartReplica | StopReplica | AssignRole | Write


class _Replica(Struct):
    known: Versioned | None = None
    is_started: bool = False
    incarnation: int | None = None
    """The process that is up."""
    is_quarantined: bool = False
    is_lost: bool = False
    """True if it is quarantined because its folder is gone."""
    is_damaged: bool = False
    """True if its process leads and cannot read a part of its log."""
    assigned: tuple[int, int] | None = None
    """Incarnation and revision of the last role sent."""
    used_epoch: int = NO_EPOCH
    """An epoch that its process knows, and its record had not reached, or had reached again."""
    written: int | None = None
    """The revision that the open write expects."""
    keeps_files: bool = False
    """True if its record was missing in the last whole state."""


class LocalReplicas:
    """The replicas of the node and the disk of `own`, in the start `start_id`."""

    def __init__(
        self, own: Member, start_id: str, live: Callable[[], DataIds], minimum: Callable[[str], int]
    ) -> None:
        self._own = own
        self._node = own.node
        self._start_id = start_id
        self._live = live
        self._minimum = minimum
        self._replicas: dict[TopicPartition, _Replica] = {}
        self._is_loaded = False

    def load(self, records: Mapping[TopicPartition, Versioned]) -> list[Step]:
        """Replace all records: at the start, and after a gap in the changes."""
        self._is_loaded = True
        gone = [partition for partition in self._replicas if partition not in records]
        steps: list[Step] = []
        for partition in gone:
            self._at(partition).keeps_files = True
            steps += self.on_record(partition, None)
        for partition, versioned in records.items():
            replica = self._at(partition)
            replica.written = replica.assigned = None
            if replica.known is not None and versioned.revision < replica.known.revision:
                # The store is an old copy: its record says nothing of this epoch's in-sync set.
                replica.used_epoch = max(replica.used_epoch, replica.known.record.leader_epoch)
            steps += self.on_record(partition, versioned)
        return steps

    def on_record(self, partition: TopicPartition, versioned: Versioned | None) -> list[Step]:
        """Take a changed record; None for a partition that exists no more."""
        replica = self._at(partition)
        replica.known = versioned
        return self._reconcile(partition)

    def on_up(self, partition: TopicPartition, incarnation: int) -> list[Step]:
        replica = self._at(partition)
        replica.is_started = True
        replica.is_quarantined = replica.is_lost = False
        if replica.incarnation is None or incarnation > replica.incarnation:
            replica.incarnation = incarnation
            replica.is_damaged = False
        return self._reconcile(partition)

    def on_down(self, partition: TopicPartition, incarnation: int, *, is_quarantined: bool) -> list[Step]:
        replica = self._at(partition)
        if replica.incarnation is not None and incarnation < replica.incarnation:
            return []
        replica.incarnation = None
        replica.is_quarantined = is_quarantined
        return self._reconcile(partition)

    def on_lost(self, partition: TopicPartition) -> list[Step]:
        """Note that the folder of a quarantined replica is gone."""
        replica = self._at(partition)
        replica.is_lost = True
        return self._reconcile(partition)

    def on_asked(self, request: RelieveLeader | LogDamaged, now: int) -> list[Step]:
        """Let another replica lead, which a leader here has asked for."""
        partition = TopicPartition(request.topic, request.partition)
        if isinstance(request, LogDamaged):
            return self.on_damaged(partition)
        return self.relieve(partition, request.leader_epoch, request.successors, now)

    def on_damaged(self, partition: TopicPartition) -> list[Step]:
        """Let another in-sync replica lead, as soon as there is one."""
        self._at(partition).is_damaged = True
        return self._reconcile(partition)

    def on_written(self, write: Write) -> list[Step]:
        """Take the outcome of a write, whichever it is: the record has been updated before, if it is known."""
        replica = self._at(write.partition)
        if replica.written == write.revision:
            replica.written = None
        return self._reconcile(write.partition)

    def on_refused(self, partition: TopicPartition, used_epoch: int) -> list[Step]:
        """Ask for a higher epoch: the process knows one that its record has not reached, or has reached again."""
        replica = self._at(partition)
        replica.used_epoch = max(replica.used_epoch, used_epoch)
        return self._reconcile(partition)

    def assign_again(self, partitions: Iterable[TopicPartition]) -> list[Step]:
        """Send the roles of these partitions again: their topic or the nodes have changed."""
        steps: list[Step] = []
        for partition in partitions:
            replica = self._replicas.get(partition)
            if replica is not None:
                replica.assigned = None
                steps += self._reconcile(partition)
        return steps

    def relieve(
        self, partition: TopicPartition, leader_epoch: int, successors: Sequence[str], now: int
    ) -> list[Step]:
        """Let one of these nodes lead instead of the process here, whose disk is slow."""
        if not self.is_leading(partition, leader_epoch):
            return []
        replica = self._at(partition)
        assert replica.known is not None
        record, live, minimum = replica.known.record, self._live(), self._minimum(partition.topic)
        avoid = [node for node in record.replicas if node not in successors]
        following = handed_over(record, live, minimum, avoid=avoid)
        if following is None:
            return []
        following = msgspec.structs.replace(following, relieved=self._node, relieved_ms=now)
        return self._write(partition, replica, following, replica.known.revision)

    def led(self) -> list[TopicPartition]:
        """Return the partitions whose leader is on this node, by their records."""
        return [
            partition
            for partition, replica in self._replicas.items()
            if replica.known is not None and replica.known.record.leader == self._node
        ]

    def quarantined(self) -> frozenset[TopicPartition]:
        return frozenset(partition for partition, replica in self._replicas.items() if replica.is_quarantined)

    def is_leading(self, partition: TopicPartition, leader_epoch: int) -> bool:
        """Return True if a process of this node leads in this epoch."""
        replica = self._replicas.get(partition)
        if replica is None or replica.known is None or replica.incarnation is None:
            return False
        record = replica.known.record
        return record.leader_epoch == leader_epoch and record.claim == self._process(replica.incarnation)

    def _reconcile(self, partition: TopicPartition) -> list[Step]:
        if not self._is_loaded:
            return []
        replica = self._at(partition)
        if replica.known is None or self._node not in replica.known.record.replicas:
            return self._stop(partition, replica)
        if not replica.is_started:
            replica.is_started = True
            return [StartReplica(partition)]
        record, revision = replica.known.record, replica.known.revision
        is_leader = record.leader == self._node
        if is_leader and self._own not in record.in_sync:
            return []  # the record's leader had another disk: what that had acknowledged is not on this one
        if is_leader and replica.is_quarantined:
            live, minimum = self._live(), self._minimum(partition.topic)
            others = {node: data_id for node, data_id in live.items() if node != self._node}
            following = handed_over(record, live, minimum, avoid={self._node})
            following = following or successor(record, others, minimum)
            return [] if following is None else self._write(partition, replica, following, revision)
        if replica.is_lost and replica.is_quarantined:
            return self._remake(partition, replica, record, revision)
        replica.is_damaged = replica.is_damaged and is_leader
        if replica.is_damaged:
            following = without_damaged(record, self._live(), self._minimum(partition.topic), self._node)
            if following is not None:
                return self._write(partition, replica, following, revision)
        if replica.incarnation is None:
            return []
        process = self._process(replica.incarnation)
        if is_leader and (record.claim != process or record.leader_epoch <= replica.used_epoch):
            record = claimed(record, process, replica.used_epoch)
            return self._write(partition, replica, record, revision)
        if not is_leader and record.leader_epoch < replica.used_epoch:
            return self._write(partition, replica, raised(record, replica.used_epoch), revision)
        if replica.assigned == (replica.incarnation, revision):
            return []
        replica.assigned = (replica.incarnation, revision)
        return [AssignRole(partition, replica.incarnation, is_leader, record, revision)]

    def _remake(
        self, partition: TopicPartition, replica: _Replica, record: PartitionRecord, revision: int
    ) -> list[Step]:
        """Begin with an empty folder, once the record does not count on the lost one."""
        in_sync = tuple(member for member in record.in_sync if member.node != self._node)
        eligible = tuple(member for member in record.eligible if member.node != self._node)
        if (in_sync, eligible) != (record.in_sync, record.eligible):
            without = msgspec.structs.replace(record, in_sync=in_sync, eligible=eligible)
            return self._write(partition, replica, without, revision)
        replica.is_lost = replica.is_quarantined = False
        return [StopReplica(partition, keeps_files=True), StartReplica(partition)]

    def _stop(self, partition: TopicPartition, replica: _Replica) -> list[Step]:
        if replica.known is None or not replica.is_started:
            del self._replicas[partition]
        if not replica.is_started:
            return []
        replica.is_started = False
        replica.incarnation = replica.assigned = None
        return [StopReplica(partition, replica.keeps_files)]

    def _write(
        self, partition: TopicPartition, replica: _Replica, record: PartitionRecord, revision: int
    ) -> list[Step]:
        if replica.written == revision:
            return []
        replica.written = revision
        return [Write(partition, record, revision)]

    def _process(self, incarnation: int) -> str:
        return process_name(self._start_id, incarnation)

    def _at(self, partition: TopicPartition) -> _Replica:
        return self._replicas.setdefault(partition, _Replica())
