"""Connections of an exchange and its calls in flight: plain records with their bookkeeping. Pure."""

import ipaddress
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Protocol

from msgspec import Struct, field

from ..addresses import Address
from ..codec import encode_header
from ..machine import Call, Payload
from ..protocol.errors import ErrorBody
from ..protocol.links import Relay
from ..protocol.message import Request


class Owner(Protocol):
    """The sender of a call: a machine, or a waiting user thread."""

    def handle(self, event: Any, now: int) -> Iterable[Any]: ...


class Connection(Struct, eq=False):
    """One connection of the calls socket. Each has a new route, so no stale message reaches a successor.

    The name of a route is never used twice: ZeroMQ aborts the process when it is.
    """

    route: bytes
    endpoint: str
    partition: tuple[str, int, int] | None = None
    """Topic, partition and incarnation at the other end, for a client; None for another actor."""
    relays: dict[Address, tuple[str, Address]] = field(default_factory=dict)
    """Node and target of each address on another node, if it leads to this node's link, which passes requests on."""
    in_flight: "dict[int, InFlight]" = field(default_factory=dict)
    """By attempt."""

    def hand_back(self, attempt: int | None = None) -> None:
        """Note in the receipts that calls did not leave: this attempt, or all in flight here."""
        for number in self.in_flight if attempt is None else (attempt,):
            pending = self.in_flight.get(number)
            if pending is not None and pending.call.receipt is not None:
                pending.call.receipt.sends -= 1


def relayed(
    target: tuple[str, Address], request: Request | bytes, payload: Payload, timeout_ms: int | None
) -> tuple[Relay, Payload]:
    """Return a request and its payload that the link passes on to `target`, a node and an address there.

    `timeout_ms` is that of a call; None: a cast.
    """
    node, address = target
    header = request if isinstance(request, bytes) else encode_header(request)
    if timeout_ms is None:
        return Relay(node=node, address=address, is_cast=True), [header, *payload]
    return Relay(node=node, address=address, timeout_ms=timeout_ms), [header, *payload]


class InFlight(Struct, eq=False):
    """A call without an outcome yet."""

    serial: int
    owner: Owner
    call: Call
    fixed: Connection | None = None
    """The connection that must carry the call, whatever the directory says."""
    connection: Connection | None = None
    """The connection of the attempt in flight, None if there is none."""
    attempt: int = 0
    failures: int = 0
    last_error: ErrorBody | None = None
    is_held: bool = False
    is_final: bool = False
    """True when no further attempt may begin."""
    is_over: bool = False

    def land(self) -> None:
        """Record the end of the attempt."""
        if self.connection is not None:
            self.connection.in_flight.pop(self.attempt, None)
            self.connection = None


class Connections:
    """The open connections, by endpoint and by route."""

    def __init__(self) -> None:
        self._routes = count(1)
        self._by_endpoint: dict[str, Connection] = {}
        self._by_route: dict[bytes, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_endpoint.values()))

    def new(self, endpoint: str, partition: tuple[str, int, int] | None = None) -> Connection:
        return self.add(Connection(b"%d" % next(self._routes), endpoint, partition))

    def add(self, connection: Connection) -> Connection:
        self._by_endpoint[connection.endpoint] = self._by_route[connection.route] = connection
        return connection

    def at(self, endpoint: str) -> Connection | None:
        return self._by_endpoint.get(endpoint)

    def reported_as(self, endpoint: str) -> list[Connection]:
        """Return the connections that a monitor of the socket may mean by an endpoint.

        libzmq names a host by its address once it has looked that up again. Then all connections to a host name at this
        port may be meant.
        """
        found = self._by_endpoint.get(endpoint)
        if found is not None:
            return [found]
        port = endpoint.rpartition(":")[2]
        return [each for each in self if each.endpoint.endswith(f":{port}") and _has_host_name(each.endpoint)]

    def on_route(self, route: bytes) -> Connection | None:
        return self._by_route.get(route)

    def drop(self, connection: Connection) -> None:
        if self._by_endpoint.get(connection.endpoint) is connection:
            del self._by_endpoint[connection.endpoint]
        self._by_route.pop(connection.route, None)


def _has_host_name(endpoint: str) -> bool:
    if not endpoint.startswith("tcp://"):
        return False
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
