"""The controllers of several nodes around one store, driven by a seed. No process, no socket, no real time.

The machines are the product's own (`actors/controller/cluster/machine.py`). Simulated are the store, whose events reach
each node late and whose answers may be lost, its sessions, the reports of the links, which may be late, and the
partitions' processes.

Checked after every step: a leader epoch is given to one process at most; each next leader was a member; the replicas of
a partition are on different nodes; a dead node that is suspected stays so until its session ends. At the end, with all
faults healed, each partition is led by a process that is up.
"""

from collections import deque
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

from planaria.actors.controller.cluster.assignments import RequiredTopic
from planaria.actors.controller.cluster.elections import still_eligible
from planaria.actors.controller.cluster.local_replicas import AssignRole, StartReplica, StopReplica
from planaria.actors.controller.cluster.machine import Cluster, InSyncOutcome
from planaria.actors.controller.cluster.mirror import Mirror
from planaria.actors.controller.cluster.placement import stopping_nodes
from planaria.actors.controller.cluster.records import Member, NodeSession
from planaria.actors.controller.cluster.stopping import Conclude
from planaria.actors.controller.cluster.unclean import ANSWER_TIMEOUT_MS
from planaria.actors.controller.effects import RemoveRemains
from planaria.actors.controller.keys import ClusterTick, LogEndCall
from planaria.actors.metadata.entries import Entries
from planaria.actors.metadata.store import (
    Applied,
    Changed,
    Delete,
    Propose,
    Put,
    Rejected,
    Session,
    SessionLost,
    Unknown,
)
from planaria.transport.addresses import TopicPartition
from planaria.transport.machine import Call, Reply, Sender, SetTimer
from planaria.transport.protocol.links import LinkReport, LinkReports, PeerState
from planaria.transport.protocol.replication import LogEndReply

LEASE_MS = 5_000
HANG_MS = 5_000
"""Time after which controller and link of a node end, because their supervisor does not answer."""
STEP_MS = 20


class SimulatedNode:
    def __init__(self, world: "SimulatedCluster", name: str, start: int) -> None:
        self.world = world
        self.name = name
        self.number = start
        self.started_at = world.now
        self.suspected: set[tuple[str, str]] = set()
        """The nodes that its controller suspected after the last step, with their starts."""
        self.own = NodeSession(
            node=name, data_id=f"disk-{name}", start_id=f"{name}-{start}", endpoint="", peer_endpoint=""
        )
        self.cluster = Cluster(self.own, lambda: world.topics, count(1))
        self.is_up = True
        self.is_frozen = False
        self.hung_at: int | None = None
        """The time since which its supervisor alone hangs: no process is started."""
        self.session = 0
        self.live: dict[str, str] = {}
        """The nodes that its controller took for alive when the leaders here were given their roles."""
        self.inbox: deque[tuple[int, Any]] = deque()
        """Events of the store on their way, with the times of their arrival."""
        self.tick_at: int | None = None
        self.incarnations: dict[TopicPartition, int] = {}
        self.running: dict[TopicPartition, int] = {}
        """Incarnation of each process; negative while it is down."""
        self.roles: dict[TopicPartition, AssignRole] = {}
        self.conclusions: list[Conclude] = []
        self.answers: list[Reply] = []
        """Answers to operators."""
        self.removed: list[str] = []
        """Topics whose remains were removed."""

    @property
    def runs(self) -> bool:
        return self.is_up and not self.is_frozen and not self.has_left

    @property
    def has_left(self) -> bool:
        """Return True once its controller and its link have ended, for want of a supervisor."""
        return self.hung_at is not None and self.world.now - self.hung_at >= HANG_MS

    def perform(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Propose():
                    self.world.propose(self, effect)
                case SetTimer(key=ClusterTick(), at=at):
                    self.tick_at = at
                case StartReplica(partition=partition):
                    if partition not in self.running:
                        self.running[partition] = -1
                case StopReplica(partition=partition):
                    self.running.pop(partition, None)
                    self.roles.pop(partition, None)
                case AssignRole(partition=partition):
                    self.world.check_role(self, effect)
                    if self.running.get(partition) == effect.incarnation:
                        self.roles[partition] = effect
                case RemoveRemains():
                    number = "" if effect.partition is None else f".{effect.partition}"
                    self.removed.append(effect.topic_id + number)
                case Conclude():
                    self.conclusions.append(effect)
                case Call(key=LogEndCall() as key):
                    self.world.ask_for_the_end(self, key)
                case Reply():
                    self.answers.append(effect)
                case InSyncOutcome() | SetTimer():
                    pass
                case _:
                    raise AssertionError(effect)

    def process_starts(self, partition: TopicPartition) -> None:
        number = self.incarnations[partition] = self.incarnations.get(partition, 0) + 1
        self.running[partition] = number
        self.roles.pop(partition, None)
        self.perform(self.cluster.steps(self.cluster.replicas.on_up(partition, number)))

    def process_dies(self, partition: TopicPartition, *, is_quarantined: bool = False) -> None:
        number = self.running[partition]
        if number > 0:
            self.running[partition] = -1
            self.roles.pop(partition, None)
            steps = self.cluster.replicas.on_down(partition, number, is_quarantined=is_quarantined)
            self.perform(self.cluster.steps(steps))

    def follow_live(self) -> None:
        """Give the leaders here their roles again, as the node's controller does."""
        self.live = self.cluster.live
        replicas = self.cluster.replicas
        self.perform(self.cluster.steps(replicas.assign_again(replicas.led())))

    def take(self, event: Any) -> None:
        now = self.world.now
        match event:
            case Changed():
                self.perform(self.cluster.on_changed(event, now))
            case Session() | SessionLost():
                self.perform(self.cluster.on_session(event, now))
            case _:
                self.perform(self.cluster.on_outcome(event, now) or [])


class SimulatedCluster:
    def __init__(self, seed: int, nodes: int = 3) -> None:
        self.random = Random(seed)
        self.now = 1_000_000
        self.entries = Entries()
        self.truth = Mirror()
        self.topics: dict[str, RequiredTopic] = {}
        self.leases: dict[int, tuple[SimulatedNode, int, set[str]]] = {}
        """Node, end and keys of each session."""
        self._sessions = count(1)
        self._topic_ids = count(1)
        self.leaders: dict[tuple[TopicPartition, str, int], tuple[str, int]] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.delays: dict[tuple[str, str], tuple[int, LinkReport]] = {}
        """Links whose reports come late: the time at which the one that is on its way arrives."""
        self.ended: dict[str, int] = {}
        """The time at which each node was last killed."""
        self.asked: list[tuple[int, SimulatedNode, LogEndCall, LogEndReply | None]] = []
        """Questions how far a log reaches: the time of the answer, and the answer."""
        self.permits_unclean = False
        """True if an operator has ordered an unclean election."""
        self.nodes: dict[str, SimulatedNode] = {}
        self.starts: Iterator[int] = count(1)
        for number in range(nodes):
            self.start(f"n{number}")

    # -- faults and operations

    def start(self, name: str) -> None:
        node = self.nodes[name] = SimulatedNode(self, name, next(self.starts))
        node.perform(node.cluster.start(self.entries.state(), self.now))
        self._begin_session(node)

    def restart_controller(self, name: str) -> None:
        """Replace the process of a controller; those of its node's partitions go on."""
        before = self.nodes[name]
        before.is_up = False
        node = self.nodes[name] = SimulatedNode(self, name, before.number)
        node.is_frozen = before.is_frozen
        node.incarnations, node.running, node.roles = before.incarnations, before.running, before.roles
        node.perform(node.cluster.start(self.entries.state(), self.now))
        for partition, incarnation in list(node.running.items()):
            if incarnation > 0:
                node.perform(node.cluster.steps(node.cluster.replicas.on_up(partition, incarnation)))
        self._begin_session(node)

    def hang(self, name: str) -> None:
        """Freeze the supervisor of a node alone."""
        self.nodes[name].hung_at = self.now

    def resume(self, name: str) -> None:
        """Let it continue: it starts again what has ended meanwhile."""
        has_left = self.nodes[name].has_left
        self.nodes[name].hung_at = None
        if has_left:
            self.restart_controller(name)

    def kill(self, name: str) -> None:
        if self.nodes[name].is_up:
            self.ended[name] = self.now
        self.nodes[name].is_up = False

    def delay(self, reporter: str, receiver: str, duration_ms: int) -> None:
        """Let the next report of one link to one controller come late, and none before it."""
        report = self._report_of(self.nodes[reporter])
        self.delays[reporter, receiver] = (self.now + duration_ms, report)

    def create(self, topic: str, partitions: int, replication_factor: int = 3, minimum: int = 2) -> None:
        number = next(self._topic_ids)
        required = RequiredTopic(f"id-{number}", partitions, replication_factor, minimum)
        self.topics = {**self.topics, topic: required}

    # -- the store

    def propose(self, node: SimulatedNode, proposal: Propose) -> None:
        if not node.is_up:
            return
        is_lost = self.random.random() < 0.05
        outcome: Any = Unknown(proposal.number)
        if not is_lost or self.random.random() < 0.5:
            for event in self.entries.decide(proposal):
                if isinstance(event, Changed):
                    self._publish(event)
                    for change in proposal.changes:
                        if getattr(change, "in_session", False):
                            for _, _, keys in self.leases.values():
                                keys.discard(change.key)
                            if node.session in self.leases:
                                self.leases[node.session][2].add(change.key)
                elif isinstance(event, Applied | Rejected) and not is_lost:
                    outcome = event
        self._send(node, outcome)

    def write(self, *changes: Put) -> None:
        """Change the store as a node would."""
        self.entries.apply(self.entries.revision + 1, list(changes))
        self._publish(Changed(self.entries.revision, changes))

    def _publish(self, changed: Changed) -> None:
        before = dict(self.truth.partitions)
        self.truth.apply(changed)
        for partition, versioned in self.truth.partitions.items():
            known = before.get(partition)
            if known is not None and known.record.topic_id == versioned.record.topic_id:
                self._check_change(known.record, versioned.record)
        for node in self.nodes.values():
            if node.is_up:
                self._send(node, changed)

    def _send(self, node: SimulatedNode, event: Any) -> None:
        at = self.now + self.random.choice((0, 0, 20, 40, 200))
        if node.inbox:
            at = max(at, node.inbox[-1][0])
        node.inbox.append((at, event))

    def _begin_session(self, node: SimulatedNode) -> None:
        node.session = next(self._sessions)
        self.leases[node.session] = (node, self.now + LEASE_MS, set())
        self._send(node, Session(node.session, self.now + LEASE_MS))

    def _renew(self) -> None:
        for number, (node, ends_at, keys) in list(self.leases.items()):
            if node.runs and node.session == number:
                self.leases[number] = (node, self.now + LEASE_MS, keys)
            elif ends_at <= self.now:
                del self.leases[number]
                if keys:
                    self.entries.apply(self.entries.revision + 1, [Delete(key) for key in sorted(keys)])
                    self._publish(Changed(self.entries.revision, tuple(Delete(key) for key in sorted(keys))))
                if node.is_up and self.nodes[node.name] is node:
                    self._send(node, SessionLost(number))
                    self._begin_session(node)

    # -- time

    def run(self, duration_ms: int) -> None:
        end = self.now + duration_ms
        while self.now < end:
            self.now += STEP_MS
            self._renew()
            if self.now % 100 == 0:
                self._report()
            self._answer()
            for node in list(self.nodes.values()):
                self._step(node)

    def ask_for_the_end(self, node: SimulatedNode, key: LogEndCall) -> None:
        """Answer for a replica that runs; the question to another one is given up after its time."""
        asked = self.nodes[key.node]
        is_answered = asked.runs and any(incarnation > 0 for incarnation in asked.running.values())
        reply = LogEndReply(last_epoch=0, log_end_offset=0) if is_answered else None
        self.asked.append((self.now + (STEP_MS if is_answered else ANSWER_TIMEOUT_MS), node, key, reply))

    def _answer(self) -> None:
        for question in [each for each in self.asked if each[0] <= self.now]:
            self.asked.remove(question)
            _, node, key, reply = question
            if node.runs:
                node.perform(node.cluster.operations.on_log_end(key, reply))

    def _step(self, node: SimulatedNode) -> None:
        while node.runs and node.inbox and node.inbox[0][0] <= self.now:
            node.take(node.inbox.popleft()[1])
        if node.runs and node.tick_at is not None and node.tick_at <= self.now:
            node.perform(node.cluster.on_tick(self.now))
        if node.runs and node.live != node.cluster.live:
            node.follow_live()
        if node.runs and self.now % 100 == 0:
            self._change_in_sync(node)
        if node.runs and node.hung_at is None:
            for partition, incarnation in list(node.running.items()):
                if incarnation < 0 and self.random.random() < 0.5:
                    node.process_starts(partition)
        if node.runs:
            self._check_suspicion(node)

    def _change_in_sync(self, node: SimulatedNode) -> None:
        """Let the leaders on a node take in the followers that run, and put out one that does not."""
        for partition, role in list(node.roles.items()):
            record = role.record
            if not role.is_leader or self.random.random() < 0.3:
                continue
            followers = {
                other for name, other in self.nodes.items() if name in record.replicas and other.runs
            }
            running = {
                Member(other.name, other.own.data_id) for other in followers if partition in other.roles
            }
            stopping = stopping_nodes(node.cluster.mirror.sessions)
            running = {member for member in running if member.node not in stopping}
            running.add(Member(node.name, node.own.data_id))
            in_sync = tuple(sorted(running))
            gone = [member for member in record.in_sync if member not in running]
            minimum = (
                self.topics[partition.topic].min_in_sync_replicas if partition.topic in self.topics else 1
            )
            eligible = still_eligible(in_sync, [*record.eligible, *gone], minimum)
            if (set(in_sync), eligible) != (set(record.in_sync), record.eligible):
                members = (in_sync, eligible)
                sender = Sender((b"leader",), None)
                change = node.cluster.change_in_sync
                node.perform(change(sender, partition, record.leader_epoch, role.revision, members))

    def _report(self) -> None:
        """Deliver the reports of all links to all controllers, as far as the network is whole."""
        reports = [self._report_of(node) for node in self.nodes.values() if node.runs]
        for node in self.nodes.values():
            if node.runs:
                received = [report for each in reports if (report := self._received(each, node.name))]
                node.perform(node.cluster.on_link_reports(LinkReports(reports=tuple(received)), self.now))

    def _received(self, report: LinkReport, receiver: str) -> LinkReport | None:
        """Return the report that arrives now; None if none does."""
        route = (report.reporter, receiver)
        if route in self.delays:
            arrives_at, late = self.delays[route]
            if self.now < arrives_at:
                return None
            del self.delays[route]
            return late
        return None if route in self.cuts else report

    def _report_of(self, node: SimulatedNode) -> LinkReport:
        others = [other for other in self.nodes.values() if other is not node]
        return LinkReport(node.name, tuple(self._peer_state(node, other) for other in others))

    def _peer_state(self, node: SimulatedNode, other: SimulatedNode) -> PeerState:
        if not other.is_up:
            if self.ended[other.name] <= node.started_at:
                return PeerState(other.name, True, self.now - node.started_at, has_pinged=False)
            return PeerState(other.name, False, 100)
        if other.has_left:
            return PeerState(other.name, False, 100)
        is_silent = other.is_frozen or (other.name, node.name) in self.cuts
        return PeerState(other.name, True, 2_000 if is_silent else 0)

    # -- checks

    def check_role(self, node: SimulatedNode, role: AssignRole) -> None:
        if role.is_leader:
            key = (role.partition, role.record.topic_id, role.record.leader_epoch)
            process = (node.own.start_id, role.incarnation)
            assert self.leaders.setdefault(key, process) == process, f"two leaders of one epoch: {key}"

    def _check_suspicion(self, node: SimulatedNode) -> None:
        sessions = node.cluster.mirror.sessions
        suspected = {(name, sessions[name].start_id) for name in node.cluster._suspicion.suspected}
        for name, start_id in node.suspected - suspected:
            other = self.nodes[name]
            is_dead = not other.is_up and other.own.start_id == start_id
            is_in_session = name in sessions and sessions[name].start_id == start_id
            assert not (is_dead and is_in_session), f"{node.name} trusts {name}, which is dead"
        node.suspected = suspected

    def _check_change(self, before: Any, after: Any) -> None:
        assert len(set(after.replicas)) == len(after.replicas)
        if after.leader != before.leader:
            assert after.leader_epoch > before.leader_epoch
            if after.unclean_epochs != before.unclean_epochs and self.permits_unclean:
                return
            members = {*before.in_sync, *before.eligible}
            assert after.leader in {member.node for member in members}
            assert {*after.in_sync, *after.eligible} <= members

    def unled(self) -> list[TopicPartition]:
        """Return the partitions that no process leads now."""
        return [
            partition for partition, topic_id in self._required() if not self._is_led(partition, topic_id)
        ]

    def _required(self) -> list[tuple[TopicPartition, str]]:
        return [
            (TopicPartition(name, number), topic.topic_id)
            for name, topic in self.topics.items()
            for number in range(topic.partitions)
        ]

    def _is_led(self, partition: TopicPartition, topic_id: str) -> bool:
        versioned = self.truth.partitions.get(partition)
        if versioned is None or versioned.record.topic_id != topic_id:
            return False
        node = self.nodes[versioned.record.leader]
        role = node.roles.get(partition)
        return (
            node.runs
            and role is not None
            and role.is_leader
            and role.record.leader_epoch == versioned.record.leader_epoch
        )


def steady(seed: int = 1, partitions: int = 6) -> SimulatedCluster:
    world = SimulatedCluster(seed)
    world.create("T", partitions)
    world.run(3_000)
    assert world.unled() == []
    return world


def leading(world: SimulatedCluster) -> str:
    [name] = [node.name for node in world.nodes.values() if node.runs and node.cluster.leadership.is_leading]
    return name


def time_until_led(world: SimulatedCluster, limit_ms: int) -> int:
    began = world.now
    while world.unled():
        world.run(20)
        assert world.now - began <= limit_ms, world.unled()
    return world.now - began
