"""The client's connections to the nodes that lead partitions, beside its gateway: each has a session of its own. Pure.

    state       requests for its actors go       left by
    unused      to the gateway                   a request -> resolving, or greeting
    resolving   to the gateway                   an address -> greeting      none -> pausing
    greeting    to the gateway                   its reply -> open           refused, silent, lost, not named -> pausing
    open        to the node                      lost, not named -> pausing
    pausing     to the gateway                   time, and a request -> resolving, or greeting

Its actors are the leaders of partitions and the coordinators of groups that run there. A node that the client cannot
reach costs nothing but one hop more: the gateway passes requests on. The requests to one actor stay in order when their
way changes: a request that could overtake an earlier one takes the same way. When the leader of a partition changes,
requests on the way to the old one are attempted again; a node that has a group's coordinator no more passes requests on.
A node that the broker does not name any more has ended, or is taken for dead: it may be frozen, and answer nothing. Calls
on their way there are attempted again, as after any lost connection. Called by the broker's directory.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import TypeAlias

from msgspec import Struct, UnsetType

from ..addresses import GATEWAY, Address, TopicPartition, partition_address
from ..calls.connections import Connection, Connections, InFlight
from ..calls.directory import Ask, Lost
from ..calls.events import Connect, Resolve, Resolved
from ..endpoints import numeric_endpoint
from ..machine import Call, Effect
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.session import Hello, HelloReply, Node, PartitionMetadata

NODE_HELLO = "node_hello"
HELLO_TIMEOUT_MS = 3_000
FIRST_PAUSE_MS = 500
LONGEST_PAUSE_MS = 30_000

Changes: TypeAlias = Mapping[TopicPartition, tuple[PartitionMetadata | None, PartitionMetadata | None]]


class _Link(Struct):
    """The connection to one node, as far as it exists."""

    endpoint: str
    connection: Connection | None = None
    is_open: bool = False
    is_resolving: bool = False
    greeting: int = 0
    """Number of the greeting in flight, 0 if there is none."""
    pauses: int = 0
    paused_until: int = 0


class NodeLinks:
    def __init__(self, connections: Connections, hello: Hello) -> None:
        self._connections = connections
        self._hello_request = hello
        self._links: dict[str, _Link] = {}
        self._ways: dict[Address, Connection] = {}
        """The connection that the last call to an actor of another node has taken."""
        self._numbers = count(1)

    @property
    def are_named(self) -> bool:
        """Return True if the broker is a cluster."""
        return bool(self._links)

    @property
    def are_used(self) -> bool:
        return any(link.is_open for link in self._links.values())

    @property
    def partitions(self) -> Iterable[TopicPartition]:
        """Return the partitions of other nodes that have been called."""
        return [tp for address in self._ways if (tp := address.topic_partition) is not None]

    def owns(self, connection: Connection) -> bool:
        return bool(self._links) and self._of(connection) is not None

    def on_nodes(self, nodes: list[Node]) -> list[Effect]:
        """Note the endpoints of the nodes that run, and leave the others. A connection to one that runs stays until it
        is lost."""
        for node in nodes:
            link = self._links.get(node.node)
            if link is None or (link.endpoint != node.endpoint and link.connection is None):
                self._links[node.node] = _Link(node.endpoint)
        effects: list[Effect] = []
        for name in sorted(self._links.keys() - {node.node for node in nodes}):
            connection = self._links[name].connection
            if connection is not None:
                error = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, f"node {name!r} is taken for dead", True)
                effects.append(Lost(connection, error))
        return effects

    def locate(
        self, node: str, pending: InFlight, gateway: Connection | None, now: int
    ) -> tuple[Connection | None, list[Effect]]:
        """Return the connection to the node of an actor, or the gateway; the one from before while a request is on its
        way there that could be overtaken."""
        way, effects = self._way_to(node, now)
        way = way or gateway
        before = self.way_to_await(pending, way)
        if before is not None:
            return before, effects
        if way is not None:
            self._ways[pending.call.address] = way
        return way, effects

    def is_at(self, node: str, endpoint: str) -> bool:
        """Return True if the node takes requests of clients at this endpoint."""
        link = self._links.get(node)
        return link is not None and link.endpoint == endpoint

    def open_to(self, node: str) -> Connection | None:
        """Return the connection to a node if it is open, for a request that needs no order with others."""
        link = self._links.get(node)
        return link.connection if link is not None and link.is_open else None

    def way_to_await(self, pending: InFlight, way: Connection | None) -> Connection | None:
        """Return the connection that a call has to take instead of `way`, for an earlier one that it could overtake."""
        before = self._ways.get(pending.call.address)
        if before is None or before is way or not is_overtaking(pending, before):
            return None
        return before

    def leave(self, changes: Changes) -> list[Effect]:
        """Attempt calls again that are on their way to a node which does not lead their partition any more. `changes`
        have the metadata of `partitions` from before and from now."""
        effects: list[Effect] = []
        for tp, (before, found) in changes.items():
            address = partition_address(*tp)
            if not self._is_moved(address, before, found):
                continue
            way = self._ways.pop(address)
            if self.owns(way):
                error = ErrorBody(ErrorCode.PARTITION_OFFLINE, f"{address} is led by another process", True)
                effects.append(Lost(way, error, address=address))
        return effects

    def _is_moved(
        self, address: Address, before: PartitionMetadata | None, found: PartitionMetadata | None
    ) -> bool:
        """Return True if another process leads than before. Metadata of another gateway is forgotten (`before` is
        None); the connections to nodes are not."""
        if before is not None:
            return found is None or _leader(found) != _leader(before)
        if found is None:
            return False
        link = None if isinstance(found.node, UnsetType) else self._links.get(found.node)
        return link is None or link.connection is not self._ways[address]

    def _way_to(self, node: str, now: int) -> tuple[Connection | None, list[Effect]]:
        """Return the connection to a node, if it is open; otherwise begin to connect, unless that has just failed."""
        link = self._links.get(node)
        if link is None:
            return None, []
        if link.is_open or link.connection is not None or link.is_resolving or now < link.paused_until:
            return (link.connection if link.is_open else None), []
        fixed = numeric_endpoint(link.endpoint)
        if fixed is None:
            link.is_resolving = True
            return None, [Resolve(link.endpoint)]
        return None, self._greet(link, fixed, now)

    def takes(self, event: Resolved) -> bool:
        """Return True if a lookup was made here."""
        return any(link.is_resolving and link.endpoint == event.endpoint for link in self._links.values())

    def on_resolved(self, event: Resolved, now: int) -> list[Effect]:
        effects: list[Effect] = []
        for link in self._links.values():
            if link.is_resolving and link.endpoint == event.endpoint:
                link.is_resolving = False
                if event.endpoints:
                    effects += self._greet(link, event.endpoints[0], now)
                else:
                    _pause(link, now)
        return effects

    def on_hello(self, number: int, reply: HelloReply) -> bool:
        """Return True if a node's connection is open now."""
        link = self._greeted(number)
        if link is None:
            return False
        link.greeting, link.is_open, link.pauses = 0, True, 0
        return True

    def on_hello_failed(self, number: int, error: ErrorBody) -> list[Effect]:
        """Give up the connection; `on_lost` follows."""
        link = self._greeted(number)
        if link is None or link.connection is None:
            return []
        return [Lost(link.connection, error)]

    def on_lost(self, connection: Connection, now: int) -> bool:
        """Return True if it led to a node."""
        link = self._of(connection)
        if link is None:
            return False
        link.connection, link.is_open, link.greeting = None, False, 0
        _pause(link, now)
        return True

    def greet_again(self, connection: Connection) -> list[Effect]:
        """Greet a node whose gateway does not know this connection."""
        link = self._of(connection)
        return [] if link is None or link.greeting else [self._hello(link, connection)]

    def _greet(self, link: _Link, address: str, now: int) -> list[Effect]:
        if self._connections.at(address) is not None:
            _pause(link, now)  # the gateway's connection, or an alias of another node
            return []
        link.connection = connection = self._connections.new(address)
        return [Connect(connection.route, connection.endpoint), self._hello(link, connection)]

    def _hello(self, link: _Link, connection: Connection) -> Ask:
        link.greeting = next(self._numbers)
        call = Call(
            (NODE_HELLO, link.greeting),
            GATEWAY,
            self._hello_request,
            HelloReply,
            timeout_ms=HELLO_TIMEOUT_MS,
        )
        return Ask(connection, call)

    def _greeted(self, number: int) -> _Link | None:
        return next((link for link in self._links.values() if link.greeting == number), None)

    def _of(self, connection: Connection) -> _Link | None:
        return next((link for link in self._links.values() if link.connection is connection), None)


def is_overtaking(pending: InFlight, connection: Connection) -> bool:
    """Return True if an earlier request to the same actor, which does not wait there, could be overtaken elsewhere. A
    connection that is lost has none."""
    address = pending.call.address
    return any(
        each.call.address == address and not getattr(each.call.request, "max_wait_ms", 0)
        for each in connection.in_flight.values()
    )


def _leader(partition: PartitionMetadata) -> tuple[bool, int, str | UnsetType]:
    return partition.online, partition.incarnation, partition.node


def _pause(link: _Link, now: int) -> None:
    link.paused_until = now + min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(link.pauses, 10))
    link.pauses += 1
