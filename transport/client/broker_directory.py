"""The directory of a client: the broker's partitions and coordinators, and the way to them. Pure.

The gateway names their endpoints in its replies to `metadata`. Partitions, the coordinators of groups, and other actors
whose endpoint a call names are reached directly when the broker runs on this machine, and through the gateway otherwise.
Without a session nothing but a greeting is sent to the gateway (`gateway_link.py`).

    call to an offline partition     held: no message waits in a socket for the wrong peer
    any call without a session       held
    unknown topic                    held for `metadata_timeout_ms`, because it may just have been created, then refused
    topic without any right          refused (`metadata_polls.py`)
    held calls to partitions         a `metadata` long poll is in flight, so they leave as soon as the directory changes
    call to a partition of another   to that node's gateway once a connection to it is open, and no earlier one is on its
    node of a cluster                way elsewhere; through the gateway until then (`node_links.py`)
    call to a coordinator            through the gateway, which starts or wakes it, until its endpoint is known; then
                                     there, as soon as no earlier one of the client is on its way through the gateway;
                                     to its node, as a call to a partition there, in a cluster
"""

from typing import Any

from msgspec import UNSET, UnsetType, structs

from ..addresses import Address, Kind, TopicPartition
from ..calls.connections import Connection, Connections, InFlight
from ..calls.directory import Held, Location, Lost, Refused, Release
from ..calls.events import (
    CheckLocality,
    CheckSilence,
    Connect,
    GreetingRead,
    HandshakeFailed,
    LocalityKnown,
    Resolved,
    SilenceMeasured,
    Wanted,
)
from ..calls.retry import Jitter, RetryPolicy
from ..endpoints import host_and_port, is_tls
from ..machine import Answered, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.data import Fetch, Produce
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.message import Request
from ..protocol.session import Hello, HelloReply, MetadataReply, Node
from ..security.keys import NO_CREDENTIALS, ClientCredentials
from .errors import unknown_topic
from .gateway_link import DIAL, HELLO, GatewayLink
from .metadata_polls import REFRESH_MS, MetadataPolls
from .node_links import NODE_HELLO, NodeLinks, is_overtaking
from .topic_cache import TopicCache

COORDINATORS_MS = 50
"""Least time between two requests for the endpoints of coordinators that are not known."""

_OFFLINE = frozenset({ErrorCode.PARTITION_OFFLINE, ErrorCode.ACTOR_UNAVAILABLE, ErrorCode.SHUTTING_DOWN})
_ASKING = frozenset({ErrorCode.NOT_LEADER, ErrorCode.SHUTTING_DOWN})
"""Refusals after which the metadata is asked for at once."""
_DIRECT = (Produce, Fetch)
"""Requests to partitions that name the client. (A union of types would be built again with each check.)"""
_REFRESH = "refresh"
_BELIEVE = "believe"
_ASK_AGAIN = "ask_again"
_UNKNOWN = "unknown"


class BrokerDirectory:
    uses_envelopes = False

    def __init__(
        self,
        endpoints: tuple[str, ...],
        *,
        client_id: str,
        credentials: ClientCredentials = NO_CREDENTIALS,
        metadata_timeout_ms: int,
        retry: RetryPolicy,
        jitter: Jitter,
    ) -> None:
        self.topics = TopicCache()
        self._endpoints = endpoints
        self._client_id = client_id
        self._credentials = credentials
        self._metadata_timeout_ms = metadata_timeout_ms
        self._retry = retry
        self._jitter = jitter
        self._connections: Connections
        self._held: Held
        self._link: GatewayLink
        self._nodes: NodeLinks
        self._polls: MetadataPolls
        self._ask_groups_at = 0
        self._lost: set[str] = set()
        """Endpoints of coordinators that were lost, so these incarnations have ended or take no connections."""
        self._instance_id: str | None = None
        """The start of the node that answered the last greeting."""
        self._is_local: bool | None = None
        """True if that node runs on this machine; None while this is not known."""
        self._unknown: dict[int, TopicPartition] = {}
        """Calls to topics or partitions that are not known, by serial, until their time is over."""

    @property
    def has_session(self) -> bool:
        """Return True while the gateway accepts calls of this client."""
        return self._link.session is not None

    def attach(self, connections: Connections, held: Held) -> None:
        self._connections = connections
        self._held = held
        given = self._credentials
        hello = Hello(client_id=self._client_id, token=given.token, user=given.user, password=given.password)
        self._link = GatewayLink(
            self._endpoints,
            connections,
            hello=hello,
            is_encrypted=given.keys is not None,
            retry=self._retry,
            jitter=self._jitter,
        )
        self._polls = MetadataPolls(self._link)
        self._nodes = NodeLinks(connections, hello)

    # Events.

    def start(self, now: int) -> list[Effect]:
        return [*self._link.dial(now), SetTimer(_REFRESH, now + REFRESH_MS)]

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Answered(key=(kind, number), reply=reply) if kind == NODE_HELLO:
                return [Release()] if self._nodes.on_hello(number, reply) else []
            case Failed(key=(kind, number), error=error) if kind == NODE_HELLO:
                return self._nodes.on_hello_failed(number, error)
            case Answered(key=(kind, number), reply=reply):
                return self._on_hello(reply, now) if kind == HELLO else self._on_metadata(number, reply, now)
            case Failed(key=(kind, number), error=error):
                return (
                    self._on_hello_failed(number, error)
                    if kind == HELLO
                    else self._on_no_metadata(number, error, now)
                )
            case Wanted(topic=topic):
                return self._polls.want(topic)
            case LocalityKnown(instance_id=instance_id, is_local=is_local):
                session = self._link.session
                if session is None or session.instance_id != instance_id:
                    return []
                self._is_local = is_local
                return [Release()]
            case SilenceMeasured(endpoint=endpoint, silence_ms=silence_ms):
                gateway = self._link.connection
                if gateway is None or self._connections.at(endpoint) is not gateway:
                    return []
                return self._without(gateway) if self._link.is_dead(silence_ms) else []
            case Resolved() if self._nodes.takes(event):
                return self._nodes.on_resolved(event, now)
            case Resolved() if event.endpoint != self._link.lookup:
                return []  # of a node that has another endpoint by now
            case Resolved():
                effects = self._link.on_resolved(event, now)
                if event.is_untrusted:
                    error = ErrorBody(ErrorCode.UNAUTHENTICATED, self._link.absence)
                    return [Refused(error), *effects]
                return effects
            case HandshakeFailed(endpoint=endpoint, fault=fault):
                gateway = self._link.connection
                if gateway is None or self._connections.at(endpoint) is not gateway:
                    return []
                return self._link.on_handshake_failed(fault)
            case GreetingRead(mechanism=mechanism):
                return self._link.on_greeting_read(mechanism)
            case TimerFired(key=key):
                return self._on_timer(key, now)
        raise AssertionError(f"no such event: {event!r}")

    def _on_timer(self, key: Any, now: int) -> list[Effect]:
        gateway = self._link.connection
        match key:
            case (kind, serial) if kind == _UNKNOWN:
                return self._on_still_unknown(serial)
            case _ if key == HELLO:
                return self._without(gateway) if gateway is not None and self._link.session is None else []
            case _ if key == DIAL:
                return self._link.on_time_to_dial(now)
            case _ if key == _REFRESH:
                effects = [*self._polls.ask(), *self._link.greet_after_refusal()]
                if gateway is not None and self._link.session is not None:
                    effects.append(CheckSilence(gateway.endpoint))
                return [*effects, SetTimer(_REFRESH, now + REFRESH_MS)]
        assert key in (_BELIEVE, _ASK_AGAIN), key
        return [Release()]

    # The session.

    def _on_hello(self, reply: HelloReply, now: int) -> list[Effect]:
        effects = [*self._link.on_hello(reply), *self._note_nodes(reply.nodes)]
        if self._instance_id not in (None, reply.instance_id):
            self.topics.forget()
            self._is_local = None
            for connection in self._connections:
                # Endpoints of another start, or of another node, are not used any longer.
                is_kept = connection is self._link.connection or self._nodes.owns(connection)
                effects += [] if is_kept else self._without(connection)
        self._instance_id = reply.instance_id
        self.topics.expire_version()
        if self._is_local is None:
            effects.append(CheckLocality(reply.run_directory, reply.instance_id))
        return [*effects, *self._polls.ask(), Release()]

    def _note_nodes(self, nodes: list[Node] | UnsetType) -> list[Effect]:
        """Note the nodes that a broker has named, which then is a cluster."""
        if nodes is UNSET:
            return []
        usable = usable_nodes(nodes, self._credentials)
        self._link.on_nodes(usable)
        return self._nodes.on_nodes(usable)

    def _on_hello_failed(self, number: int, error: ErrorBody) -> list[Effect]:
        gateway = self._link.connection
        if number != self._link.greeting or gateway is None:
            return []
        if error.code == ErrorCode.SHUTTING_DOWN and self._can_leave(gateway):
            return self._without(gateway)
        return self._link.on_hello_failed(error)

    def _without(self, connection: Connection) -> list[Effect]:
        message = f"lost the connection to {connection.endpoint}"
        return [Lost(connection, ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, message, retriable=True))]

    def on_lost(self, connection: Connection, now: int) -> list[Effect]:
        if connection is self._link.connection:
            self._polls.clear()
            return self._link.on_lost(now)
        if self._nodes.on_lost(connection, now):
            return []
        if connection.partition is not None:
            self.topics.suspect(*connection.partition, now)
        else:
            self._lost.add(connection.endpoint)
        return []

    def reconnects(self, connection: Connection) -> bool:
        return connection is self._link.connection and self._link.is_dialled_by_zeromq

    # Calls.

    def locate(self, pending: InFlight, now: int) -> tuple[Location, list[Effect]]:
        if self._link.refusal is not None:
            return self._link.refusal, []
        gateway = self._link.connection if self._link.session is not None else None
        address = pending.call.address
        if address.kind != Kind.PARTITION:
            if address.kind == Kind.COORDINATOR:
                return self._locate_coordinator(address.name, pending, now)
            endpoint, node = pending.call.endpoint, pending.call.node
            is_here = self._is_local and (node is None or self._nodes.is_at(node, self._link.endpoint))
            if endpoint is not None and is_here and endpoint not in self._lost:
                return self._connection_at(endpoint, None)
            return (self._nodes.open_to(node) if node is not None else None) or gateway, []
        topic, number = address.name, address.number
        assert number is not None
        found = self.topics.partition(topic, number)
        if found is None:
            forbidden = self._polls.refusal(topic, now)
            if forbidden is not None:
                return forbidden, []
            tp = TopicPartition(topic, number)
            return None, [*self._polls.want(topic), *self._watch_unknown(pending, tp, now), *self._poll()]
        if not self.topics.is_online_now(found, topic, number, now):
            believed_at = self.topics.believed_at(topic, number, now)
            believe = [SetTimer(_BELIEVE, believed_at)] if believed_at is not None else []
            return None, [*believe, *self._poll()]
        if self._is_local is None:
            return None, []
        if found.node is not UNSET:
            way, effects = self._nodes.locate(found.node, pending, gateway, now)
            # No other reply reports that the leader has been replaced.
            return way, [*effects, *self._poll()] if way is not gateway or way is None else effects
        if not self._is_local or found.endpoint is None:
            return gateway, self._poll() if gateway is None else []
        return self._connection_at(found.endpoint, (topic, number, found.incarnation))

    def _locate_coordinator(self, group: str, pending: InFlight, now: int) -> tuple[Location, list[Effect]]:
        gateway = self._link.connection if self._link.session is not None else None
        found = self.topics.coordinator(group)
        if found is not None and found.node is not UNSET:
            return self._nodes.locate(found.node, pending, gateway, now)
        before = self._nodes.way_to_await(pending, gateway)
        if before is not None:
            return before, []
        endpoint = found.endpoint if found is not None and self._is_local else None
        if endpoint is None or endpoint in self._lost:
            if not (self._is_local or (found is None and self._nodes.are_named)):
                return gateway, []
            self._polls.groups[group] = None
            if now < self._ask_groups_at:
                return gateway, []
            self._ask_groups_at = now + COORDINATORS_MS
            return gateway, self._polls.ask()
        if self._connections.at(endpoint) is None and gateway is not None and is_overtaking(pending, gateway):
            return gateway, []
        return self._connection_at(endpoint, None)

    def connection_to(self, address: Address) -> tuple[Connection | None, list[Effect]]:
        raise AssertionError("a client sends no casts")

    def _connection_at(
        self, endpoint: str, partition: tuple[str, int, int] | None
    ) -> tuple[Connection, list[Effect]]:
        connection = self._connections.at(endpoint)
        if connection is not None:
            return connection, []
        connection = self._connections.new(endpoint, partition)
        return connection, [Connect(connection.route, connection.endpoint)]

    def addressed(self, attempt: int, connection: Connection, request: Request) -> Request:
        if connection is self._link.connection:
            if isinstance(request, Hello):
                return structs.replace(request, id=attempt)
            return structs.replace(request, id=attempt, greeted=True)
        if self._nodes.owns(connection):
            is_greeting = isinstance(request, Hello)
            return structs.replace(request, id=attempt, greeted=UNSET if is_greeting else True)
        if isinstance(request, _DIRECT):
            # Partitions need no greeting.
            return structs.replace(request, id=attempt, client_id=self._client_id)
        return structs.replace(request, id=attempt)

    def on_refusal(
        self, pending: InFlight, connection: Connection, error: ErrorBody, now: int
    ) -> list[Effect]:
        tp = pending.call.address.topic_partition
        if tp is not None and error.code in _OFFLINE:
            found = self.topics.partition(*tp)
            if found is not None and found.node is UNSET:
                # At another node the next attempt decides: the incarnation known here is not of the process there.
                self.topics.suspect(*tp, found.incarnation, now)
        gateway = self._link.connection
        if error.code == ErrorCode.TOPIC_IS_MIRRORED and gateway is not None:
            return self._without(gateway) if self._link.leaves(now) else []
        if error.code != ErrorCode.HELLO_REQUIRED:
            # The gateway itself answers a poll, and so tells whether it is stopping, too.
            return self._polls.ask() if error.code in _ASKING else []
        if connection is self._link.connection:
            return self._link.greet_again()
        return self._nodes.greet_again(connection)

    def absence(self, pending: InFlight) -> str:
        if self._link.session is None:
            return self._link.absence
        return "it is offline" if pending.is_held else ""

    # Unknown topics and partitions.

    def _watch_unknown(self, pending: InFlight, tp: TopicPartition, now: int) -> list[Effect]:
        """Refuse the call only after a while, because the topic may just have been created."""
        is_known = self.topics.is_unknown(tp.topic) or self.topics.partition_count(tp.topic) is not None
        if pending.serial in self._unknown or not is_known:
            return []
        self._unknown[pending.serial] = tp
        return [SetTimer((_UNKNOWN, pending.serial), now + self._metadata_timeout_ms)]

    def _on_still_unknown(self, serial: int) -> list[Effect]:
        topic, number = self._unknown.pop(serial)
        if self.topics.partition(topic, number) is not None:
            return []
        partitions = self.topics.partition_count(topic)
        if partitions is None:
            return [Refused(unknown_topic(topic), serial)]
        message = f"{topic!r} has {partitions} partitions, no {number}"
        return [Refused(ErrorBody(ErrorCode.UNKNOWN_PARTITION, message), serial)]

    # Metadata.

    def _poll(self) -> list[Effect]:
        """Keep exactly one long poll in flight while calls wait for a partition."""
        if self._polls.are_in_flight or self.topics.version is None:
            return []
        return self._polls.ask(self.topics.version)

    def _on_metadata(self, number: int, reply: MetadataReply, now: int) -> list[Effect]:
        is_of_all = self._polls.answered(number)
        lost = self._note_nodes(reply.nodes)
        before = {tp: self.topics.partition(*tp) for tp in self._nodes.partitions}
        self.topics.update(reply, is_of_all=is_of_all)
        moved = {tp: (known, self.topics.partition(*tp)) for tp, known in before.items()}
        effects = [*lost, *self._nodes.leave(moved)]
        for connection in self._connections:
            partition, endpoint = connection.partition, connection.endpoint
            if partition is not None and self.topics.is_replaced(*partition, endpoint):
                effects += self._without(connection)
        if not is_of_all:
            effects += self._polls.ask()
        elif self._nodes.are_used:
            effects += self._poll()
        return [*effects, Release()]

    def _on_no_metadata(self, number: int, error: ErrorBody, now: int) -> list[Effect]:
        alone = self._polls.topic_of(number)
        if alone is not None and error.code == ErrorCode.FORBIDDEN:
            self.topics.remove(alone)
            return [*self._polls.forbidden(number, alone, error, now), Release()]
        if not self._polls.has_failed(number):
            return []  # the connection was lost, and the next session asks again
        if error.code == ErrorCode.FORBIDDEN:
            return self._polls.ask_for_each()
        gateway = self._link.connection
        if error.code == ErrorCode.SHUTTING_DOWN and gateway is not None and self._can_leave(gateway):
            return self._without(gateway)
        if error.code == ErrorCode.TIMED_OUT:
            return self._polls.ask()
        return [SetTimer(_ASK_AGAIN, now + self._retry.delay_ms(4, self._jitter))]

    def _can_leave(self, gateway: Connection) -> bool:
        """Return True if a gateway that is stopping can be left for another one before it has stopped. It still answers
        the requests that it has; one that is not repeatable waits for that answer."""
        in_flight = gateway.in_flight.values()
        return self._link.has_alternatives and all(
            each.owner is self or each.call.is_retried or each.call.is_endless for each in in_flight
        )


def usable_nodes(nodes: list[Node], credentials: ClientCredentials) -> list[Node]:
    """Return the nodes at well-formed endpoints, over TLS alone for a client over TLS: its credentials never travel
    otherwise."""
    over_tls = credentials.tls is not None
    return [
        node
        for node in nodes
        if host_and_port(node.endpoint) is not None and is_tls(node.endpoint) == over_tls
    ]
