"""Limits of connections and of requests in flight, by principal or client id, and by address. Pure.

Owns the connections that have a place and the open requests of each limited name. Names are those of the quotas: a
principal or client id, or `address:IP`; the limits of `default` and `address:default` apply to each one without its own.

    connection         takes a place with its first request, for as long as it lasts; beyond the limit its requests are
                       refused until another one ends
    request            is counted from its admission to its answer, a waiting poll too; beyond the limit it is refused
    limit is lowered   the connections that took a place last lose it

Refusals are THROTTLED, which a client repeats later. A name without a limit costs nothing. Each gateway counts its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.quotas import ADDRESS_PREFIX, DEFAULT_ADDRESS, DEFAULT_CLIENT, Quota
from ...transport.security.principals import RESERVED


class _Limit(NamedTuple):
    connections: int
    requests_in_flight: int


class Limits:
    def __init__(self) -> None:
        self._limits: dict[str, _Limit] = {}
        self._places: dict[str, dict[bytes, None]] = {}
        """Connections with a place, the newest last, by name."""
        self._names: dict[bytes, set[str]] = {}
        self._open: dict[str, int] = {}
        self.is_set = False
        """False while there are no limits."""
        self.refused = 0
        """Requests that were refused."""

    @property
    def open_connections(self) -> int:
        """Return the number of connections that hold a place."""
        return len(self._names)

    def configure(self, quotas: Mapping[str, Quota]) -> None:
        self._limits = {
            name: _Limit(quota.connections, quota.requests_in_flight)
            for name, quota in quotas.items()
            if quota.connections > 0 or quota.requests_in_flight > 0 or self._has_default(name, quotas)
        }
        self.is_set = bool(self._limits)
        for name, places in list(self._places.items()):
            limit = self._limit_of(name)
            most = 0 if limit is None or limit.connections < 0 else limit.connections
            for connection in list(places)[most:]:
                self._leave(name, connection)

    def enter(self, connection: bytes, client: str, host: str) -> Callable[[], None] | None:
        """Count a request; return the function to call when it is answered, None for one that is not counted.

        Raises ProtocolError for one connection or request too many."""
        names = [name for name in (client, ADDRESS_PREFIX + host) if self._limit_of(name) is not None]
        for name in names:
            self._take_place(name, connection)
        counted = []
        for name in names:
            limit = self._limit_of(name)
            assert limit is not None
            if limit.requests_in_flight < 0:
                continue
            if self._open.get(name, 0) >= limit.requests_in_flight:
                raise self._refusal(name, limit.requests_in_flight, "requests in flight: wait for answers")
            counted.append(name)
        for name in counted:
            self._open[name] = self._open.get(name, 0) + 1
        return (lambda: self._answered(counted)) if counted else None

    def on_disconnected(self, connection: bytes) -> None:
        for name in list(self._names.get(connection, ())):
            self._leave(name, connection)

    def _take_place(self, name: str, connection: bytes) -> None:
        limit = self._limit_of(name)
        assert limit is not None
        places = self._places.get(name, {})
        if limit.connections < 0 or connection in places:
            return
        if len(places) >= limit.connections:
            raise self._refusal(name, limit.connections, "connections: close some")
        self._places.setdefault(name, {})[connection] = None
        self._names.setdefault(connection, set()).add(name)

    def _leave(self, name: str, connection: bytes) -> None:
        del self._places[name][connection]
        if not self._places[name]:
            del self._places[name]
        self._names[connection].remove(name)
        if not self._names[connection]:
            del self._names[connection]

    def _answered(self, names: Iterable[str]) -> None:
        for name in names:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _limit_of(self, name: str) -> _Limit | None:
        found = self._limits.get(name)
        if found is None and name not in RESERVED:
            found = self._limits.get(DEFAULT_ADDRESS if name.startswith(ADDRESS_PREFIX) else DEFAULT_CLIENT)
        return found

    @staticmethod
    def _has_default(name: str, quotas: Mapping[str, Quota]) -> bool:
        """Return True for a name without limits of its own, whose default has some: it is exempt from those."""
        default = DEFAULT_ADDRESS if name.startswith(ADDRESS_PREFIX) else DEFAULT_CLIENT
        return default in quotas and name != default

    def _refusal(self, name: str, limit: int, what: str) -> ProtocolError:
        self.refused += 1
        is_address = name.startswith(ADDRESS_PREFIX)
        who = f"address {name.removeprefix(ADDRESS_PREFIX)}" if is_address else f"client {name!r}"
        return ProtocolError(ErrorCode.THROTTLED, f"{who} is limited to {limit} {what}")
