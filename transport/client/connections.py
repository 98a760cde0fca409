"""Connections of the exchange and its requests in flight: plain records with their bookkeeping. Pure."""

from collections.abc import Iterator
from itertools import count

from msgspec import Struct, field

from ..addresses import TopicPartition
from ..protocol.errors import ErrorBody
from .asking import Ask, Owner


class Connection(Struct, eq=False):
    """One connection of the client's socket. Each has a new route, so no stale message reaches a successor."""

    route: bytes
    endpoint: str
    partition: tuple[str, int, int] | None = None
    """Topic, partition and incarnation at the other end; None for another actor."""
    in_flight: "dict[int, InFlightRequest | None]" = field(default_factory=dict)
    """By attempt; None for the exchange's own requests."""

    def hand_back(self, attempt: int | None = None) -> None:
        """Return the requests that did not leave: this attempt was not sent, nor any other in flight here."""
        for number in self.in_flight if attempt is None else (attempt,):
            pending = self.in_flight.get(number)
            if pending is not None and pending.ask.receipt is not None:
                pending.ask.receipt.sends -= 1


class InFlightRequest(Struct, eq=False):
    """A request without an outcome yet."""

    serial: int
    owner: Owner
    ask: Ask
    deadline: int
    failures: int = 0
    attempt: int = 0
    """The attempt in flight, 0 if there is none."""
    connection: Connection | None = None
    last_error: ErrorBody | None = None
    partition: TopicPartition | None = None
    waits_for_topic: bool = False
    is_impatient: bool = False
    """True when no further attempt may begin."""

    def land(self) -> None:
        """Record the end of the attempt."""
        if self.connection is not None:
            self.connection.in_flight.pop(self.attempt, None)
        self.connection = None
        self.attempt = 0


class Connections:
    """The open connections, by endpoint and by route."""

    def __init__(self) -> None:
        self._routes = count(1)
        self._by_endpoint: dict[str, Connection] = {}
        self._by_route: dict[bytes, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_endpoint.values()))

    def new(self, endpoint: str, partition: tuple[str, int, int] | None = None) -> Connection:
        connection = Connection(b"%d" % next(self._routes), endpoint, partition)
        self._by_endpoint[endpoint] = self._by_route[connection.route] = connection
        return connection

    def at(self, endpoint: str) -> Connection | None:
        return self._by_endpoint.get(endpoint)

    def on_route(self, route: bytes) -> Connection | None:
        return self._by_route.get(route)

    def drop(self, connection: Connection) -> None:
        if self._by_endpoint.get(connection.endpoint) is connection:
            del self._by_endpoint[connection.endpoint]
        self._by_route.pop(connection.route, None)
