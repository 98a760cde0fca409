"""The controller of a node of a cluster: the controller's machine, and the cluster's part beside it. Pure.

Every node's controller follows the same store. Each decides on topics, groups, quotas and producer ids by guarded writes,
as on one machine; the one that leads also decides where partitions are and who leads them. Actors that keep their state
in a partition follow its leader: coordinators of groups and of transactions, schedulers.

    event                                     controller   cluster   effects of the cluster
    Changed, State                            yes          yes       children of this node start and stop; Locate
    outcome of a proposal                     its own      its own   Lead, Follow: a call to the replica
    PeerUp, PeerDown of a replica             -            yes       Propose
    PeerUp, PeerDown of any other             yes          -
    WatchNodes, LinkReports, ProposeInSync    -            yes       an answer
    requests of a cluster's operators         -            yes       an answer, when a change is applied
    other requests                            yes          -

Who answers for the address of a partition, or of an actor that follows its leader, is reported to the supervisor
(`Locate`), and so to all actors of this node: a process here, or one of another node, through the link.
"""

from collections.abc import Iterable, Iterator, Mapping

from ...transport.addresses import (
    OFFSETS_TOPIC,
    Address,
    Kind,
    TopicPartition,
    replica_address,
)
from ...transport.machine import (
    Answered,
    Cast,
    Disconnected,
    Failed,
    PeerDown,
    PeerUp,
    Received,
    Reply,
    SetTimer,
    TimerFired,
)
from ...transport.protocol.cluster import CLUSTER_REQUESTS
from ...transport.protocol.control import (
    AwaitStopReply,
    ChildSpec,
)
from ...transport.protocol.links import LinkReports, WatchNodes
from ...transport.protocol.message import Done, Request
from ...transport.protocol.replication import (
    ConfirmSession,
    ConfirmSessionReply,
    LogDamaged,
    ProposeInSync,
    RelieveLeader,
    RoleReply,
)
from ..log.epochs import NO_EPOCH
from ..metadata.store import (
    Applied,
    Changed,
    NotApplied,
    Rejected,
    Session,
    SessionLost,
    State,
    Unknown,
)
from .catalog import Catalog, TopicEntry
from .child_commands import ChildCommands
from .children import DEFAULT_REPLICAS, ReplicaSettings, replica_spec
from .cluster.assignments import RequiredTopic
from .cluster.disk import DiskState
from .cluster.distant_leaders import DistantLeaders
from .cluster.ending_replicas import EndingReplicas
from .cluster.followers import followers
from .cluster.led_here import FollowerCommands, LedHere
from .cluster.local_replicas import AssignRole, StartReplica, Step, StopReplica
from .cluster.machine import Cluster, ClusterEffect, InSyncOutcome
from .cluster.messages import (
    conclusion_call,
    configure_replica,
    files_to_make,
    in_sync_reply,
    replica_ended,
    role_call,
    stop_watch,
    used_epoch_of,
)
from .cluster.mirror import NODES, PARTITIONS, partition_of
from .cluster.placement import stopping_nodes
from .cluster.records import NodeSession
from .cluster.stopping import Conclude
from .effects import (
    RETRY_MS,
    DiskKept,
    Effect,
    Event,
    Loaded,
    LookForReplica,
    RemoveReplica,
    ReplicaLost,
)
from .keys import (
    ClusterTick,
    CommandCall,
    ConclusionCall,
    LivenessCall,
    LocateCall,
    LogEndCall,
    NodesWatchTimer,
    RoleCall,
    StopWatch,
)
from .machine import REQUESTS as REQUESTS_OF_ONE
from .machine import ControllerMachine

REQUESTS: tuple[type[Request], ...] = (
    *REQUESTS_OF_ONE,
    WatchNodes,
    LinkReports,
    ProposeInSync,
    ConfirmSession,
    RelieveLeader,
    LogDamaged,
)
PARTITION_KEYS = f"{PARTITIONS}/"


class ClusteredController:
    """The machine of a controller in a cluster of this name. `state` is the store's at the start."""

    def __init__(
        self,
        controller: ControllerMachine,
        commands: FollowerCommands,
        own: NodeSession,
        state: State,
        numbers: Iterator[int],
        *,
        name: str = "",
        settings: ReplicaSettings = DEFAULT_REPLICAS,
        disk: DiskState | None = None,
    ) -> None:
        self.controller = controller
        self._own = own
        self._name = name
        self._state = state
        self._settings = settings
        self.cluster = Cluster(own, self._required, numbers, lambda: self.catalog, disk)
        controller.mirrors.promotions.leader_epoch_of = self.cluster.mirror.leader_epoch_of
        self._led_here = LedHere(
            own, commands, lambda partition: followers(partition, self.catalog, controller.life, own.node)
        )
        self._commands = ChildCommands()
        """Commands for replicas. Those for other children are the controller's."""
        self._members: dict[str, str] = {}
        """The data id of each node that is alive, as the leaders here know them."""
        self._stopping: frozenset[str] = frozenset()
        """The nodes that are about to stop, likewise."""
        self._ending = EndingReplicas()
        self._distant_leaders = DistantLeaders(own.node)
        self._required_topics: tuple[int, dict[str, RequiredTopic]] = (-1, {})

    @property
    def catalog(self) -> Catalog:
        """Return the durable catalog."""
        return self.controller.catalog

    def nodes(self) -> int:
        """Return the number of nodes that may hold replicas."""
        return len(self.cluster.mirror.sessions)

    def _required(self) -> Mapping[str, RequiredTopic]:
        catalog = self.controller.catalog
        if self._required_topics[0] != catalog.topics_revision:
            topics = {
                name: RequiredTopic(
                    entry.topic_id,
                    entry.partitions,
                    max(1, entry.config.replication_factor),
                    max(1, entry.config.min_in_sync_replicas),
                )
                for name, entry in catalog.topics.items()
            }
            self._required_topics = (catalog.topics_revision, topics)
        return self._required_topics[1]

    # -- events

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Loaded():
                effects = self.controller.handle(event, now)
                effects += [*self._perform(self.cluster.start(self._state, now)), stop_watch("none")]
                return effects + self._relocate(self.cluster.mirror.partitions)
            case Changed():
                return self._on_changed(event, now)
            case State():
                before = self.catalog.topics
                effects = self.controller.handle(event, now)
                effects += self._perform(self.cluster.on_state(event, now))
                changed = [name for name, entry in self.catalog.topics.items() if before.get(name) != entry]
                effects += self._configure(changed)
                return effects + self._relocate(self.cluster.mirror.partitions)
            case Applied() | Rejected() | NotApplied() | Unknown():
                own = self.cluster.on_outcome(event, now)
                return self.controller.handle(event, now) if own is None else self._perform(own)
            case Session() | SessionLost():
                return self._perform(self.cluster.on_session(event, now))
            case DiskKept(state=state):
                self.cluster.generation.on_kept(state)
                return self._perform(self.cluster.act(now))
            case PeerUp(address=address) if address.kind == Kind.REPLICA:
                return self._on_replica_up(event)
            case PeerDown(address=address) if address.kind == Kind.REPLICA:
                return self._on_replica_down(event)
            case Received(sender=sender, request=RelieveLeader() | LogDamaged() as request):
                effects = self._perform_steps(self.cluster.replicas.on_asked(request, now))
                return [*effects, Reply(sender, Done())]
            case Received(sender=sender, request=ConfirmSession()):
                return [Reply(sender, ConfirmSessionReply(trusted_until_ms=self.cluster.trusted_until_ms))]
            case ReplicaLost(partition=partition):
                return self._perform_steps(self.cluster.replicas.on_lost(partition))
            case Received(request=WatchNodes() | LinkReports() | ProposeInSync()):
                return self._on_received(event, now)
            case Received(sender=sender, request=request) if isinstance(request, CLUSTER_REQUESTS):
                return self._perform(self.cluster.operations.operate(sender, request, self._name))
            case Answered(key=RoleCall() as key):
                return self._on_role(key, event.reply)
            case Failed(key=RoleCall() as key):
                return self._perform_steps(self.cluster.replicas.assign_again([key.partition]))
            case Answered(key=LogEndCall() as key) | Failed(key=LogEndCall() as key):
                found = event.reply if isinstance(event, Answered) else None
                return self._perform(self.cluster.operations.on_log_end(key, found))
            case Answered(key=LivenessCall() as key) | Failed(key=LivenessCall() as key):
                return self._distant_leaders.on_outcome(key)
            case Answered(key=LocateCall() | ConclusionCall()):
                return []
            case Answered(key=StopWatch(), reply=AwaitStopReply(state=state)):
                return [*self._perform(self.cluster.prepare_stop(state, now)), stop_watch(state)]
            case Failed(key=StopWatch()):
                return [SetTimer(StopWatch(), now + RETRY_MS)]
            case TimerFired(key=StopWatch()) | Failed(key=ConclusionCall()):
                return [stop_watch("none")]
            case Failed(key=LocateCall()):
                self._led_here.forget_locations()
                return self._relocate(self.cluster.mirror.partitions)
            case Answered(key=CommandCall() as key) if key.address.kind == Kind.REPLICA:
                return self._on_stopped(self._commands.done(key))
            case TimerFired(key=ClusterTick()):
                return self._perform(self.cluster.on_tick(now)) + self._on_live()
            case TimerFired(key=NodesWatchTimer() as key):
                return [*self.cluster.watches.on_timer(key.number)]
            case Disconnected(connection=connection):
                return [*self.cluster.watches.forget(connection), *self.controller.handle(event, now)]
        return self.controller.handle(event, now)

    def _on_changed(self, changed: Changed, now: int) -> list[Effect]:
        effects = self.controller.handle(changed, now)
        effects += self._perform(self.cluster.on_changed(changed, now))
        keys = [change.key for change in changed.changes]
        touched = {partition_of(key) for key in keys if key.startswith(PARTITION_KEYS)}
        kinds = {change.key.partition("/")[0] for change in changed.changes}
        if "topics" in kinds:
            effects += self._perform(self.cluster.act(now))
            topics = {change.key.partition("/")[2] for change in changed.changes}
            led = [partition for partition in self.cluster.replicas.led() if partition.topic in topics]
            effects += self._perform_steps(self.cluster.replicas.assign_again(led))
            effects += self._configure(topics)
        if "groups" in kinds:
            partitions = self.cluster.mirror.partitions
            touched |= {partition for partition in partitions if partition.topic == OFFSETS_TOPIC}
        return effects + self._relocate(touched) + (self._on_live() if NODES in kinds else [])

    def _on_received(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        match request:
            case WatchNodes():
                return [*self.cluster.watches.on_watch(received.sender, request, now)]
            case LinkReports():
                return self._perform(self.cluster.on_link_reports(request, now)) + self._on_live()
            case ProposeInSync():
                partition = TopicPartition(request.topic, request.partition)
                members = (request.in_sync, request.eligible)
                return self._perform(
                    self.cluster.change_in_sync(
                        received.sender, partition, request.leader_epoch, request.revision, members
                    )
                )
        raise AssertionError(f"no request of the cluster: {request!r}")

    def _on_live(self) -> list[Effect]:
        """Follow the nodes that are alive: locations change, and the leaders here have to know."""
        live, stopping = self.cluster.live, stopping_nodes(self.cluster.mirror.sessions)
        if live == self._members and stopping == self._stopping:
            return []
        ending, self._stopping = self._stopping ^ stopping, stopping
        before, self._members = self._members, live
        changed = {node for node in (*before, *live) if before.get(node) != live.get(node)}
        records = self.cluster.mirror.partitions
        effects = self._relocate([each for each, known in records.items() if known.record.leader in changed])
        effects += [*self.controller.deployments.follow(), *self.controller.mirrors.follow()]
        led = self.cluster.replicas.led()
        concerned = [each for each in led if not (changed | ending).isdisjoint(records[each].record.replicas)]
        effects += self._perform_steps(self.cluster.replicas.assign_again(concerned))
        return [*effects, *self._distant_leaders.on_changed(self.cluster.mirror, changed, live)]

    # -- replicas

    def _on_replica_up(self, peer: PeerUp) -> list[Effect]:
        partition = peer.address.replica_of
        assert partition is not None
        self._led_here.confirm(partition, None)
        # It may have been started with an older configuration, or this controller was not there when that changed.
        effects = self._perform_steps(self.cluster.replicas.on_up(partition, peer.incarnation))
        return self._configure_replica(partition) + effects + self._relocate([partition])

    def _on_replica_down(self, peer: PeerDown) -> list[Effect]:
        partition = peer.address.replica_of
        assert partition is not None
        self._led_here.confirm(partition, None)
        effects = self._perform_steps(
            self.cluster.replicas.on_down(partition, peer.incarnation, is_quarantined=peer.quarantined)
        )
        versioned = self.cluster.mirror.partitions.get(partition)
        if versioned is not None and versioned.record.leader != self._own.node:
            effects.append(replica_ended(partition, versioned.record, self._own.node))
        if versioned is not None and peer.quarantined:
            effects.append(LookForReplica(partition, versioned.record.topic_id))
        return effects + self._relocate([partition])

    def _on_role(self, key: RoleCall, reply: RoleReply) -> list[Effect]:
        used_epoch = used_epoch_of(reply, self.cluster.mirror.partitions.get(key.partition))
        if used_epoch > NO_EPOCH:
            return self._perform_steps(self.cluster.replicas.on_refused(key.partition, used_epoch))
        self._led_here.confirm(key.partition, reply.leader_epoch if reply.role == "leader" else None)
        return self._relocate([key.partition])

    def _configure(self, topics: Iterable[str]) -> list[Effect]:
        """Pass a changed configuration to the replicas here, the followers included."""
        effects: list[Effect] = []
        for partition in self.cluster.mirror.partitions:
            configured = self._configure_replica(partition) if partition.topic in topics else []
            if configured:
                effects += self._commands.start([self._spec(self.catalog.topics[partition.topic], partition)])
                effects += configured
        return effects

    def _configure_replica(self, partition: TopicPartition) -> list[Cast]:
        if self._ending.is_waiting(partition):
            return []  # that of an earlier topic ends first
        present = self.cluster.mirror.partitions.get(partition)
        return configure_replica(partition, present, self._own, self.catalog)

    def _spec(self, entry: TopicEntry, partition: TopicPartition) -> ChildSpec:
        own = self._own
        return replica_spec(entry, partition.partition, own.node, own.data_id, self._settings)

    def _on_stopped(self, address: Address | None) -> list[Effect]:
        partition = None if address is None else address.replica_of
        if partition is None or not self._ending.is_stopping(partition):
            return []  # a start has been carried out
        is_removed, waiting = self._ending.on_stopped(partition)
        removed = [RemoveReplica(partition)] if is_removed else []
        return [*removed, *(effect for each in waiting for effect in self._start(each))]

    def _perform_steps(self, steps: list[Step]) -> list[Effect]:
        return self._perform(self.cluster.steps(steps))

    def _perform(self, effects: Iterable[ClusterEffect]) -> list[Effect]:
        found: list[Effect] = []
        for effect in effects:
            match effect:
                case StartReplica(partition=partition):
                    if self._ending.may_start(partition):
                        found += self._start(partition)
                case StopReplica(partition=partition, keeps_files=keeps_files):
                    self._ending.stop(partition, keeps_files=keeps_files)
                    found += self._commands.stop([replica_address(*partition)])
                case AssignRole():
                    found.append(role_call(effect, self._own, self.cluster, self.catalog))
                case InSyncOutcome():
                    found.append(in_sync_reply(effect))
                case Conclude(refusal=refusal):
                    found.append(conclusion_call(refusal))
                case _:
                    found.append(effect)
        return found

    def _start(self, partition: TopicPartition) -> list[Effect]:
        entry = self.controller.catalog.topics.get(partition.topic)
        versioned = self.cluster.mirror.partitions[partition]
        if entry is None or entry.topic_id != versioned.record.topic_id:
            return []
        make = files_to_make(versioned.record, self._own, entry, partition.partition)
        return [*make, *self._commands.start([self._spec(entry, partition)])]

    def _relocate(self, partitions: Iterable[TopicPartition]) -> list[Effect]:
        """Report who answers for these partitions, and start or stop the actors that follow their leaders."""
        return self._led_here.relocate(partitions, self.cluster.mirror.partitions, self.cluster.live)
