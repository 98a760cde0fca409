"""The controller's machine: passes every event to the role that decides it. Pure.

Owns no state itself; the roles do: the catalog and undurable decisions (`decisions`), topics, groups, producer ids,
quotas, principals, child commands, orphans, descriptions, watches. Called by `process.py` alone.

    event            state before               effects, state after
    Loaded           nothing                    required children are started, running ones are looked up (`orphans`)
    request          any                        decided, or an answer at once, or parked
    TurnEnds         decisions are gathered     Propose, if none is in flight
    Changed, State   any                        the durable catalog follows; watches are notified of topics; commands
                                                for changes that this controller did not decide
    Applied          decisions are in flight    each one's follow-up: commands, answers
    other outcomes   decisions are in flight    they are void; their requesters get the retriable error
    Answered/Failed  a call is in flight        the role that made the call continues
    PeerUp           a description waits        the description waits for one partition fewer
    StopRequested    any                        Stop; the requesters of undecided changes see their own calls fail
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import assert_never

from ...transport.addresses import DELAYED_TOPIC, TRANSACTIONS_TOPIC, Address, Kind
from ...transport.machine import (
    Answered,
    Connected,
    Disconnected,
    Failed,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Received,
    Reply,
    Sender,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.cluster import CLUSTER_REQUESTS
from ...transport.protocol.control import EnsureGroup, EnsureInternalActors
from ...transport.protocol.data import InitProducer
from ...transport.protocol.deployments import DEPLOYMENT_REQUESTS
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import DeleteGroup, ListGroups
from ...transport.protocol.message import Request
from ...transport.protocol.mirrors import REQUESTS_TO_CONTROLLER as MIRROR_REQUESTS
from ...transport.protocol.quotas import ListQuotas, RemoveQuota, SetQuota
from ...transport.protocol.security import SECURITY_REQUESTS
from ...transport.protocol.topics import (
    AlterTopic,
    CreateTopic,
    DeleteTopic,
    DescribeTopic,
    ListTopics,
    TopicConfig,
    WatchCatalog,
)
from ..metadata.store import Session, SessionLost
from .catalog import Catalog
from .child_commands import ChildCommands, command_refused
from .children import GroupLife, all_specs
from .decisions import Decisions
from .deployments import Deployments, Nodes
from .descriptions import Descriptions
from .effects import (
    DiskKept,
    Effect,
    Event,
    Loaded,
    OutputRead,
    ReplicaLost,
    TopicNotRemoved,
    TopicRemoved,
    TurnEnds,
)
from .follow_ups import STORE_EVENTS, FollowUps
from .groups import Groups
from .internal_actors import AUDIT_CONFIG, InternalActors
from .keys import (
    CallKey,
    ClusterCall,
    ClusterTick,
    CommandCall,
    DescriptionCall,
    DescriptionTimer,
    EraCall,
    GroupDeletion,
    MirrorCall,
    MirrorReportCall,
    NodesWatchTimer,
    OrphanSearch,
    PromotionTimer,
    RemainsTimer,
    StopWatch,
    TimerKey,
    WatchTimer,
)
from .mirrors import Mirrors
from .orphans import Orphans
from .peers import Peers
from .producers import ProducerIds
from .quotas import Quotas
from .replication import Replication
from .room import Room
from .security import Security
from .topics import Topics, known_topic, topics_of
from .watches import Watches

REQUESTS: tuple[type[Request], ...] = (
    CreateTopic,
    AlterTopic,
    DeleteTopic,
    ListTopics,
    DescribeTopic,
    WatchCatalog,
    InitProducer,
    EnsureGroup,
    EnsureInternalActors,
    ListGroups,
    DeleteGroup,
    SetQuota,
    RemoveQuota,
    ListQuotas,
    *SECURITY_REQUESTS,
    *DEPLOYMENT_REQUESTS,
    *MIRROR_REQUESTS,
    *CLUSTER_REQUESTS,
)
NO_CLUSTER = "this broker is not a node of a cluster: start nodes with --node and --cluster"


class ControllerMachine:
    def __init__(
        self,
        catalog: Catalog,
        *,
        topic_defaults: TopicConfig | None = None,
        offsets_partitions: int = 4,
        delayed_partitions: int = 2,
        disk_reserve_bytes: int = 0,
        transaction_coordinators: int = 2,
        max_actors: int = 2**31,
        actors_limit: str = "",
        coordinator_idle_ms: int = 0,
        offsets_retention_ms: int = -1,
        disconnect_grace_ms: int = 0,
        partition_idle_ms: int = 0,
        audit: TopicConfig = AUDIT_CONFIG,
        asleep: Mapping[Address, int | None] | None = None,
        replication: Replication | None = None,
        numbers: Iterator[int] | None = None,
        commands: ChildCommands | None = None,
        nodes: Callable[[], Nodes] = Nodes,
        is_proof: Callable[[str], bool] = lambda _: False,
        is_restarted: bool = False,
    ) -> None:
        """Create the machine.

        `asleep` maps the addresses of the actors that slept when the broker ended to the time when each is to be
        woken. `numbers` are those of the proposals. With `is_restarted` the actors run that the controller before this
        one has started, which may have died before it told them of a change.
        """
        self._asleep, self._is_restarted = asleep or {}, is_restarted
        self._partition_idle_ms, self._disk_reserve_bytes = partition_idle_ms, disk_reserve_bytes
        self.life = GroupLife(coordinator_idle_ms, offsets_retention_ms, disconnect_grace_ms)
        self._decisions = Decisions(catalog, numbers or count(1))
        self.commands, self._peers = commands or ChildCommands(), Peers()
        self._descriptions = Descriptions(self._peers)
        replication = replication or Replication()
        room = Room(self._peers, max_actors, actors_limit)
        self._topics = Topics(
            self._decisions,
            self.commands,
            self._peers,
            self._descriptions,
            room,
            topic_defaults or TopicConfig(),
            disk_reserve_bytes,
            partition_idle_ms,
            replication,
        )
        self._groups = Groups(
            self._decisions, self.commands, self._peers, room, offsets_partitions, self.life, replication
        )
        counts = {DELAYED_TOPIC: delayed_partitions, TRANSACTIONS_TOPIC: transaction_coordinators}
        self._internal_actors = InternalActors(
            self._decisions, self.commands, room, counts, replication, audit
        )
        self._producers = ProducerIds(self._decisions)
        self._quotas = Quotas(self._decisions, self._peers, is_restarted=is_restarted)
        self._security = Security(self._decisions)
        self._watches = Watches(self._decisions)
        self._orphans = Orphans(self._decisions, self.commands, lambda: self.mirrors.running)
        self.deployments = Deployments(self._decisions, self._peers, nodes, is_proof)
        self.mirrors = Mirrors(self._decisions, self._topics, nodes, self.deployments)
        self._follow_ups = FollowUps(
            self._decisions,
            self._topics,
            self._groups,
            self._internal_actors,
            self._producers,
            self._quotas,
            self._security,
            self._watches,
            self._orphans,
            self.deployments,
            self.mirrors,
        )

    @property
    def catalog(self) -> Catalog:
        """Return the durable catalog."""
        return self._decisions.durable

    def handle(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, STORE_EVENTS):
            return self._follow_ups.on_store(event, now)
        match event:
            case Received(sender=sender, request=request):
                return self._on_request(sender, request, now)
            case TurnEnds():
                return self._decisions.propose()
            case Session() | SessionLost():
                return []
            case Answered():
                return self._on_answered(event)
            case Failed():
                return self._on_failed(event, now)
            case TimerFired(key=key):
                return self._on_timer(key)
            case PeerUp(address=address):
                self._peers.up(event)
                return [
                    *self._topics.on_up(address),
                    *self._quotas.on_up(address),
                    *self._producers.on_up(address),
                    *self._descriptions.on_up(address),
                    *self.deployments.on_up(address),
                    *(self.deployments.on_gateway(event.endpoint) if address.kind == Kind.GATEWAY else ()),
                ]
            case PeersAsleep():
                self._peers.sleep(event)
                return self._groups.wake_if_tracked() if self._is_restarted else []
            case Disconnected(connection=connection):
                return self._watches.forget(connection)
            case PeerDown():
                self._peers.down(event)
                return self.deployments.on_down(event)
            case TopicRemoved(topic=topic):
                return self._topics.on_files_removed(topic)
            case TopicNotRemoved(topic=topic, error=error):
                return self._topics.on_files_left(topic, error)
            case OutputRead(sender=sender, reply=reply):
                return [Reply(sender, reply)]
            case Loaded():
                return self._on_loaded(now)
            case StopRequested():
                return [Stop("asked to stop")]
            case Connected() | WallClockStepped() | ReplicaLost() | DiskKept():
                raise AssertionError(f"the controller does not follow these: {event!r}")
            case _:
                assert_never(event)

    def _on_loaded(self, now: int) -> list[Effect]:
        specs = all_specs(self.catalog, self._disk_reserve_bytes, self.life, self._partition_idle_ms)
        asleep = {
            address: None if wake_at_ms is None else max(0, wake_at_ms - now)
            for address, wake_at_ms in self._asleep.items()
        }
        effects = self.commands.start(specs, asleep)
        if self._is_restarted:
            self._topics.configure_all_that_run()
        for topic in sorted(self.catalog.removing):
            effects += self._topics.remove(topic)
        return effects + self._groups.on_loaded() + self.mirrors.on_loaded() + self._orphans.ask()

    def _on_request(self, sender: Sender, request: Request, now: int) -> list[Effect]:
        try:
            return self._decide(sender, request, now)
        except ProtocolError as error:
            return [Reply(sender, error.body)]

    def _decide(self, sender: Sender, request: Request, now: int) -> list[Effect]:
        match request:
            case CreateTopic():
                return self._topics.on_create(sender, request, now)
            case AlterTopic():
                return self._topics.on_alter(sender, request)
            case DeleteTopic():
                return self._topics.on_delete(sender, request)
            case DescribeTopic(topic=topic):
                self._descriptions.check_room()
                return self._descriptions.describe(sender, known_topic(self.catalog, topic), now)
            case ListTopics(internal=internal):
                return [Reply(sender, topics_of(self.catalog, internal=internal))]
            case WatchCatalog():
                return self._watches.on_watch(sender, request, now)
            case InitProducer():
                return self._producers.on_init(sender, now)
            case EnsureGroup():
                return self._groups.on_ensure(sender, request, now)
            case EnsureInternalActors(topic=topic):
                return self._internal_actors.on_ensure(topic, sender, now)
            case ListGroups():
                return self._groups.on_list(sender)
            case DeleteGroup():
                return self._groups.on_delete(sender, request)
            case SetQuota() | RemoveQuota() | ListQuotas():
                return self._quotas.on_request(sender, request)
        if isinstance(request, DEPLOYMENT_REQUESTS):
            return self.deployments.on_request(sender, request)
        if isinstance(request, MIRROR_REQUESTS):
            return self.mirrors.on_request(sender, request, now)
        if isinstance(request, SECURITY_REQUESTS):
            return self._security.on_request(sender, request)
        if isinstance(request, CLUSTER_REQUESTS):
            raise ProtocolError(ErrorCode.INVALID_REQUEST, NO_CLUSTER)
        raise ProtocolError(ErrorCode.UNKNOWN_OP, "not an operation of the controller")

    def _on_answered(self, event: Answered) -> list[Effect]:
        key: CallKey = event.key
        match key:
            case CommandCall() if (owner := self.mirrors.owner(key.address)) is not None:
                done = owner.commands.done(key)
                return [] if done is None else owner.on_command_done(done)
            case MirrorCall() | MirrorReportCall():
                return self.mirrors.on_answered(key, event.reply)
            case CommandCall():
                return self._on_command_done(self.commands.done(key))
            case DescriptionCall():
                return self._descriptions.on_answered(key, event.reply)
            case GroupDeletion():
                return self._groups.on_forgotten(key.group)
            case OrphanSearch():
                return self._orphans.on_answered(event.reply)
            case EraCall():
                return self._producers.on_answered(event.reply)
            case ClusterCall():
                raise AssertionError(f"this broker is not part of a cluster: {key!r}")
            case _:
                assert_never(key)

    def _on_failed(self, event: Failed, now: int) -> list[Effect]:
        key: CallKey = event.key
        match key:
            case MirrorCall() | MirrorReportCall():
                return self.mirrors.on_failed(key, event.error, now)
            case CommandCall():
                return command_refused(key, event.error)
            case DescriptionCall():
                return self._descriptions.on_failed(key, event.error)
            case GroupDeletion():
                return self._groups.on_not_forgotten(key.group, event.error)
            case OrphanSearch():
                raise AssertionError(f"the supervisor refuses its status: {event.error.message}")
            case EraCall():
                return []  # it is asked again when it is up again
            case ClusterCall():
                raise AssertionError(f"this broker is not part of a cluster: {key!r}")
            case _:
                assert_never(key)

    def _on_command_done(self, address: Address | None) -> list[Effect]:
        return [] if address is None else self._topics.on_stopped(address) + self._groups.on_stopped(address)

    def _on_timer(self, key: TimerKey) -> list[Effect]:
        match key:
            case DescriptionTimer():
                return self._descriptions.on_timer(key.number)
            case WatchTimer():
                return self._watches.on_timer(key.number)
            case PromotionTimer():
                return self.mirrors.promotions.drive()
            case RemainsTimer():
                return self._topics.on_files_removed(key.topic)
            case ClusterTick() | NodesWatchTimer() | StopWatch():
                raise AssertionError(f"this broker is not part of a cluster: {key!r}")
            case _:
                assert_never(key)
