"""A shared room: when it is full, its largest holder makes place for smaller ones. Pure.

    room left                   every request is admitted, up to `per_connection`
    full, and the newcomer      it is refused: THROTTLED, or OVERLOADED if it holds nothing
      would hold most
    full otherwise              the largest holder's newest request is evicted, as if it had been refused

The largest holder is the largest connection of the largest host (max-min fairness, by host and then by connection).
So neither one connection nor one host with many can keep others out, and any client may use room that no other needs.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from ...transport.protocol.errors import ErrorCode, ProtocolError


class _Holding(Struct):
    """One connection's share of the room."""

    host: str
    """The host, as reported with the connection's first request."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Sizes by ticket, newest last."""
    size: int = 0


class Shares:
    def __init__(self, what: str, capacity: int, per_connection: int, hosts: Mapping[bytes, str]) -> None:
        """Create a room. `hosts`: the host of each connection, kept by the machine."""
        self._what = what
        self._capacity = capacity
        self._per_connection = per_connection
        self._hosts = hosts
        self._used = 0
        self._of_connection: dict[bytes, _Holding] = {}
        self._of_host: dict[str, int] = {}

    def __len__(self) -> int:
        return self._used

    def room_for(self, connection: bytes, size: int = 1) -> list[int]:
        """Return the tickets to evict before it is admitted. Raises ProtocolError when it is refused."""
        holding = self._of_connection.get(connection)
        held = 0 if holding is None else holding.size
        if held + size > self._per_connection:
            raise self._refusal(held)
        if self._used + size <= self._capacity:
            return []
        host = self._hosts.get(connection, "") if holding is None else holding.host
        return self._evicted_for(connection, host, size)

    def take(self, connection: bytes, number: int, size: int = 1) -> None:
        holding = self._of_connection.get(connection)
        if holding is None:
            holding = self._of_connection[connection] = _Holding(self._hosts.get(connection, ""))
        holding.sizes[number] = size
        holding.size += size
        self._used += size
        self._of_host[holding.host] = self._of_host.get(holding.host, 0) + size

    def give_back(self, connection: bytes, number: int) -> None:
        holding = self._of_connection[connection]
        size = holding.sizes.pop(number)
        holding.size -= size
        self._used -= size
        self._of_host[holding.host] -= size
        if not holding.sizes:
            del self._of_connection[connection]
        if not self._of_host[holding.host]:
            del self._of_host[holding.host]

    def _evicted_for(self, connection: bytes, host: str, size: int) -> list[int]:
        held = {each: holding.size for each, holding in self._of_connection.items()}
        of_host = dict(self._of_host)
        newest: dict[bytes, Iterator[int]] = {}
        evicted: list[int] = []
        missing = self._used + size - self._capacity
        while missing > 0:
            largest_host = max(of_host, key=lambda each: of_host[each], default=host)
            if of_host.get(host, 0) + size > of_host.get(largest_host, 0):
                largest_host = host
            of_largest_host = [
                each for each, holding in self._of_connection.items() if holding.host == largest_host
            ]
            largest = max(of_largest_host, key=lambda each: held[each], default=connection)
            own = held.get(connection, 0)
            # At equal sizes only a client without any: otherwise clients would evict each other in turn.
            is_largest = own + size > held.get(largest, 0) - (own > 0)
            if largest_host == host and is_largest:
                raise self._refusal(own)
            holding = self._of_connection[largest]
            number = next(newest.setdefault(largest, reversed(list(holding.sizes))))
            evicted.append(number)
            freed = holding.sizes[number]
            held[largest] -= freed
            of_host[largest_host] -= freed
            missing -= freed
        return evicted

    def _refusal(self, held: int) -> ProtocolError:
        if not held:
            return ProtocolError(ErrorCode.OVERLOADED, f"there is no room for more {self._what}")
        message = f"this connection has its share of {self._what} ({held}): wait for answers"
        return ProtocolError(ErrorCode.THROTTLED, message)
