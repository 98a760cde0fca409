"""Large messages that have not left yet, counted in bytes: by connection and in total. Pure.

ZeroMQ limits the messages that wait for a connection by number, and a message may have 64 MiB. So a peer that
requests much and does not read would fill the actor's memory, and the kernel would kill it. The loop reserves room
here for each large reply before building it. If there is none, the sender gets OVERLOADED, which is small. A reply
counts until ZeroMQ has passed it to the system, or has dropped it with the connection. Casts with a payload count
likewise (`calls/`): beyond the limit they are lost, as casts may be.
"""

from collections import deque
from typing import NamedTuple, Protocol

MAX_UNTAKEN_BYTES = 512 * 1024 * 1024
MAX_UNTAKEN_BYTES_PER_CONNECTION = 64 * 1024 * 1024
"""A connection with no untaken reply accepts one reply of any size."""


class Departure(Protocol):
    """ZeroMQ's tracker, which reports when a message has left."""

    @property
    def done(self) -> bool: ...


class _Leaving(NamedTuple):
    departure: Departure
    size_bytes: int


class Untaken:
    def __init__(
        self,
        max_bytes: int = MAX_UNTAKEN_BYTES,
        max_bytes_per_connection: int = MAX_UNTAKEN_BYTES_PER_CONNECTION,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_per_connection = max_bytes_per_connection
        self._bytes: dict[bytes, int] = {}
        self._leaving: dict[bytes, deque[_Leaving]] = {}
        self.bytes = 0

    def take_room(self, connection: bytes, size_bytes: int) -> bool:
        """Reserve room for a connection, until it is given back. Return False if there is none."""
        self._settle(connection)
        if self.bytes + size_bytes > self._max_bytes:
            self.settle_all()
        used = self._bytes.get(connection, 0)
        if used and used + size_bytes > self._max_bytes_per_connection:
            return False
        if self.bytes and self.bytes + size_bytes > self._max_bytes:
            return False
        self._bytes[connection] = used + size_bytes
        self.bytes += size_bytes
        return True

    def on_sent(self, connection: bytes, size_bytes: int, departure: Departure) -> None:
        """Hold the room until ZeroMQ has sent the message."""
        self._leaving.setdefault(connection, deque()).append(_Leaving(departure, size_bytes))

    def give_back(self, connection: bytes, size_bytes: int) -> None:
        """Give back the room of a message that has left, or will never leave."""
        self.bytes -= size_bytes
        left = self._bytes[connection] - size_bytes
        if left:
            self._bytes[connection] = left
        else:
            del self._bytes[connection]

    def settle_all(self) -> None:
        """Give back the room of messages that have left since; called now and then, so that lost connections are
        forgotten."""
        for connection in list(self._leaving):
            self._settle(connection)

    def _settle(self, connection: bytes) -> None:
        leaving = self._leaving.get(connection)
        if leaving is None:
            return
        while leaving and leaving[0].departure.done:
            self.give_back(connection, leaving.popleft().size_bytes)
        if not leaving:
            del self._leaving[connection]
