"""The cluster's part of a controller: its node's session and replicas; if it leads, the leaders of all partitions. Pure.

Follows the metadata store, the reports of the links and the processes of its node, and proposes the missing
writes. Holds no decision that the store does not have: after any event it compares the state with the one that should
be (`act`).

    part                  decides                                                  writes
    registration          here                                                     nodes/<node>, in its session
    generations.py        whether this node's directory is an old copy             disks/<node>
    leadership.py         which controller leads                                   controller, in its session
    local_replicas.py     which replicas run here, and their roles                 partitions/..: claims, hand-overs
    suspicion.py          which nodes are taken for dead before their sessions end
    stopping.py           whether this node may stop, and when
    assignments.py        replicas and leaders of all partitions, if it leads      partitions/..

Every write is guarded by the last revision of its key; those of the leading controller by its entry as well.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec
from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.machine import Effect, Reply, Sender, SetTimer
from ....transport.protocol.control import StopState
from ....transport.protocol.links import (
    PING_INTERVAL_MS,
    LinkReports,
)
from ...metadata.store import (
    ABSENT,
    Applied,
    Changed,
    Delete,
    Guard,
    Outcome,
    Propose,
    Session,
    SessionLost,
    State,
    Unknown,
)
from ..catalog import Catalog
from ..effects import RemoveRemains
from ..keys import ClusterTick
from .assignments import Assignments, Topics, guarded
from .deciding import ClusterView, Versioned, live_nodes
from .disk import DiskState, KeepDisk
from .generations import Generations
from .leadership import Leadership
from .local_replicas import AssignRole, LocalReplicas, StartReplica, Step, StopReplica, Write
from .mirror import (
    CONTROLLER_KEY,
    NODES,
    PARTITIONS,
    SETTINGS,
    Mirror,
    node_key,
    partition_of,
    put,
)
from .node_watches import NodeWatches
from .operating import Operating, reply_to
from .operators import EMPTY_CATALOG, Situation
from .proposals import InSyncChange, Leading, OperatorChange, Proposals, Registration, RemovalDone, Takeover
from .records import Member, NodeSession, PartitionRecord
from .stopping import Conclude, Stopping
from .suspicion import Suspicion

SESSION_MARGIN_MS = 1_000
"""Time before the end of a session from which on a leader here does not trust it any more."""


class InSyncOutcome(Struct, frozen=True):
    """The outcome of a local leader's change of its in-sync set. `is_applied` is None if it is not known."""

    sender: Sender
    is_applied: bool | None
    present: Versioned | None


ClusterEffect: TypeAlias = (
    KeepDisk
    | Effect
    | Propose
    | RemoveRemains
    | StartReplica
    | StopReplica
    | AssignRole
    | InSyncOutcome
    | Conclude
)


class Cluster:
    """The cluster as the node of `own` sees it. `topics` returns the topics of the durable catalog."""

    def __init__(
        self,
        own: NodeSession,
        topics: Topics,
        numbers: Iterator[int],
        catalog: Callable[[], Catalog] = lambda: EMPTY_CATALOG,
        disk: DiskState | None = None,
    ) -> None:
        """`disk` is the state of the data directory, as it is in the directory."""
        self.own = own
        self._topics = topics
        self.mirror = Mirror()
        self._proposals = Proposals(numbers)
        self.generation = Generations(own.node, disk, self.mirror, self._proposals)
        self._is_in_session = False
        self._is_bound = False
        """True once this process has registered the node in the present session: an entry of the process before it
        disappears with the session of that."""
        self._was_registered = False
        self.trusted_until_ms = 0
        """Time until which the session certainly lives, on the clock that counts the machine's sleep."""
        self.leadership = Leadership(own.node, own.start_id)
        self._suspicion = Suspicion()
        self.suspected: frozenset[str] = frozenset()
        self._live: tuple[Mapping[str, NodeSession], frozenset[str], dict[str, str]] = (
            {},
            self.suspected,
            {},
        )
        """The live nodes, and the sessions and the suspected nodes from which they follow."""
        self._starts: dict[str, str] = {}
        """The start of each node, by its session."""
        self.assignments = Assignments(self.mirror, topics)
        self.replicas = LocalReplicas(
            Member(own.node, own.data_id), own.start_id, lambda: self.live, self.assignments.minimum
        )
        self.watches = NodeWatches()
        self._stopping = Stopping(own.node)
        self.operations = Operating(
            own.node,
            lambda: Situation(
                self.mirror,
                self.suspected,
                topics(),
                catalog(),
                own.node,
                self.replicas.quarantined(),
                self._is_in_session,
            ),
            self.assignments,
            self.leadership,
            self._proposals,
        )
        self._written: list[Write] = []
        """Writes with an outcome, which may have to be repeated."""

    # -- state

    @property
    def live(self) -> dict[str, str]:
        """The data id of each node that has a session and is not suspected."""
        sessions, suspected, found = self._live
        if sessions is not self.mirror.sessions or suspected is not self.suspected:
            found = live_nodes(self.mirror.sessions, self.suspected)
            self._live = (self.mirror.sessions, self.suspected, found)
        return found

    @property
    def is_registered(self) -> bool:
        return self.mirror.sessions.get(self.own.node) == self.own

    @property
    def rival(self) -> NodeSession | None:
        """Another node of the same id, whose session lives: this one must not run.

        It has another data directory, or has replaced the session of this start, with a copy of the directory.
        """
        found = self.mirror.sessions.get(self.own.node)
        if found is None or found.start_id == self.own.start_id:
            return None
        return found if found.data_id != self.own.data_id or self._was_registered else None

    # -- events

    def start(self, state: State, now: int) -> list[ClusterEffect]:
        effects = [SetTimer(ClusterTick(), now + PING_INTERVAL_MS), *self.on_state(state, now)]
        return [*effects, *self._remove_remains()]

    def _remove_remains(self) -> Iterator[ClusterEffect]:
        """Remove the files of topics that were deleted, and of replicas that were moved, while this node was away."""
        for key, (removal, revision) in list(self.mirror.removals.items()):
            _, node, topic_id = key.split("/")
            if node == self.own.node:
                if removal.partition is None:
                    yield RemoveRemains(removal.topic, topic_id)
                elif not self.mirror.holds(node, TopicPartition(removal.topic, removal.partition)):
                    yield RemoveRemains(removal.topic, topic_id.partition(".")[0], removal.partition)
                yield self._proposals.propose(RemovalDone(), (Delete(key),), (Guard(key, revision),))

    def on_state(self, state: State, now: int) -> list[ClusterEffect]:
        self.mirror.load(state)
        self.assignments.check_all()
        effects = self.steps(self.replicas.load(self.mirror.partitions))
        return effects + self._on_nodes(now) + self.act(now)

    def on_changed(self, changed: Changed, now: int) -> list[ClusterEffect]:
        effects: list[ClusterEffect] = []
        kinds, nodes = set(), set()
        for key in self.mirror.apply(changed):
            kind, _, name = key.partition("/")
            kinds.add(kind)
            if kind in {NODES, SETTINGS}:
                nodes.add(name)
            if kind == PARTITIONS:
                partition = partition_of(key)
                self.assignments.check(partition)
                effects += self.steps(
                    self.replicas.on_record(partition, self.mirror.partitions.get(partition))
                )
        if nodes:
            self.assignments.check_nodes(nodes)
        if kinds & {NODES, CONTROLLER_KEY}:
            effects += self._on_nodes(now)
        return effects + self.act(now)

    def on_outcome(self, outcome: Outcome, now: int) -> list[ClusterEffect] | None:
        """Return the effects of a proposal's outcome; None if the proposal was not the cluster's.

        After a failure the next attempt follows a change of the state, or the next tick.
        """
        purpose = self._proposals.close(outcome.number)
        if purpose is None:
            return None
        effects: list[ClusterEffect] = []
        match purpose:
            case Registration():
                self._is_bound = isinstance(outcome, Applied)
            case Takeover():
                self.leadership.on_taken(is_applied=isinstance(outcome, Applied))
            case Write():
                self._written.append(purpose)
            case InSyncChange(sender=sender, write=write):
                present = self.mirror.partitions.get(write.partition)
                is_applied = None
                if not isinstance(outcome, Unknown):
                    # The record may have changed again since: that state is the answer then.
                    revision = outcome.revision if isinstance(outcome, Applied) else None
                    is_applied = present is not None and present.revision == revision
                effects.append(InSyncOutcome(sender, is_applied, present))
            case OperatorChange(sender=sender):
                effects.append(Reply(sender, reply_to(outcome)))
        return effects + self._go_on(now) if isinstance(outcome, Applied) else effects

    def on_session(self, event: Session | SessionLost, now: int) -> list[ClusterEffect]:
        self._is_in_session = isinstance(event, Session)
        self._is_bound = self._is_bound and self._is_in_session
        alive_until_ms = event.alive_until_ms if isinstance(event, Session) else None
        self.trusted_until_ms = 0 if alive_until_ms is None else alive_until_ms - SESSION_MARGIN_MS
        self.leadership.on_session(is_alive=self._is_in_session)
        return self.act(now)

    def on_link_reports(self, reports: LinkReports, now: int) -> list[ClusterEffect]:
        for report in reports.reports:
            self._suspicion.on_report(report, now)
        return self._judge(now)

    def on_tick(self, now: int) -> list[ClusterEffect]:
        effects = [SetTimer(ClusterTick(), now + PING_INTERVAL_MS), *self._judge(now), *self._go_on(now)]
        return [*self.generation.age(now), *effects]

    def change_in_sync(
        self,
        sender: Sender,
        partition: TopicPartition,
        leader_epoch: int,
        revision: int,
        members: tuple[tuple[Member, ...], tuple[Member, ...]],
    ) -> list[ClusterEffect]:
        """Propose the in-sync and eligible members that a local leader asks for, if it still leads."""
        present = self.mirror.partitions.get(partition)
        is_current = present is not None and present.revision == revision
        if present is None or not is_current or not self.replicas.is_leading(partition, leader_epoch):
            return [InSyncOutcome(sender, False, present)]
        in_sync, eligible = members
        record = _with_members(present.record, in_sync, eligible)
        write = Write(partition, record, revision)
        return [self._propose_write(InSyncChange(sender, write), write)]

    def prepare_stop(self, state: StopState, now: int) -> list[ClusterEffect]:
        """Prepare the stop of this node; none is asked for any more if the state is `none`."""
        if state == "none":
            self._withdraw_stop()
            return self.act(now)
        self._stopping.begin(now, is_forced=state == "forced")
        return self.act(now)

    def _withdraw_stop(self) -> None:
        self._stopping.end()
        self.own = msgspec.structs.replace(self.own, is_stopping=False)

    def _conclude(self, now: int) -> Iterator[ClusterEffect]:
        if not self._stopping.is_begun:
            return
        view = ClusterView(
            self.mirror.partitions, self.mirror.sessions, self.mirror.settings, self.assignments.minimum
        )
        conclusion = self._stopping.decide(
            self.mirror, view, self.suspected, now, is_in_session=self._is_in_session
        )
        self.own = msgspec.structs.replace(self.own, is_stopping=True)
        if conclusion is not None:
            self._stopping.end()
            if conclusion.refusal:
                self._withdraw_stop()
            yield conclusion

    # -- missing writes

    def _on_nodes(self, now: int) -> list[ClusterEffect]:
        """Follow the sessions and the controllers' entry."""
        self._was_registered = self._was_registered or self.is_registered
        self._suspicion.on_sessions(self.mirror.sessions.keys())
        for node, session in self.mirror.sessions.items():
            if self._starts.get(node) != session.start_id:
                self._suspicion.on_new_start(node, now)
        self._starts = {node: session.start_id for node, session in self.mirror.sessions.items()}
        self.leadership.on_entry(self.mirror.present)
        return [*self.watches.on_changed(self.mirror.sessions, self.leadership.leader, self.suspected)]

    def _judge(self, now: int) -> list[ClusterEffect]:
        before, suspected = self.suspected, self._suspicion.decide(now)
        if suspected == before:
            return []
        self.suspected = suspected
        self.assignments.check_nodes(before ^ self.suspected)
        told = self.watches.on_changed(self.mirror.sessions, self.leadership.leader, suspected)
        return [*told, *self.act(now)]

    def _go_on(self, now: int) -> list[ClusterEffect]:
        written, self._written = self._written, []
        return [
            *(step for write in written for step in self.steps(self.replicas.on_written(write))),
            *self.act(now),
        ]

    def act(self, now: int) -> list[ClusterEffect]:
        """Propose the missing writes, unless such a proposal is open. Also called when the catalog's topics change."""
        return [
            *self._conclude(now),
            *self._register(),
            *(self.generation.due() if self.is_registered else ()),
            *self._take(),
            *self._lead(now),
        ]

    def _register(self) -> Iterator[ClusterEffect]:
        is_done = self.is_registered and self._is_bound
        if not self._is_in_session or is_done or self._proposals.is_open(Registration):
            return
        if self.rival is None:
            key = node_key(self.own.node)
            guard = Guard(key, self.mirror.session_revisions.get(self.own.node, ABSENT))
            yield self._proposals.propose(Registration(), (put(key, self.own, in_session=True),), (guard,))

    def _take(self) -> Iterator[ClusterEffect]:
        if not self.is_registered:
            return
        take = self.leadership.decide(self.suspected)
        if take is not None:
            guard = Guard(CONTROLLER_KEY, ABSENT if take.expected is None else take.expected)
            change = put(CONTROLLER_KEY, take.entry, in_session=True)
            yield self._proposals.propose(Takeover(), (change,), (guard,))

    def _lead(self, now: int) -> Iterator[ClusterEffect]:
        revision = self.leadership.guard_revision
        if revision is None or self._proposals.is_open(Leading):
            return
        writes = self.assignments.due(self.suspected, now)
        if writes:
            changes = tuple(change for change, _ in writes)
            guards = tuple(guard for _, guard in writes)
            yield self._proposals.propose(Leading(), changes, (Guard(CONTROLLER_KEY, revision), *guards))

    # -- steps of the local replicas

    def steps(self, steps: list[Step]) -> list[ClusterEffect]:
        """Return the effects of steps of `replicas`: writes become proposals."""
        return [self._propose_write(step, step) if isinstance(step, Write) else step for step in steps]

    def _propose_write(self, purpose: Write | InSyncChange, write: Write) -> Propose:
        change, guard = guarded(write.partition, write.record, write.revision)
        return self._proposals.propose(purpose, (change,), (guard,))


def _with_members(
    record: PartitionRecord, in_sync: tuple[Member, ...], eligible: tuple[Member, ...]
) -> PartitionRecord:
    return msgspec.structs.replace(record, in_sync=in_sync, eligible=eligible, is_new=False)
