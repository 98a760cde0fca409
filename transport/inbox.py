"""Messages that have been read and not handled, queued so that a busy sender delays only itself. Pure.

Reading costs a tenth of handling. So the loop of an actor with external clients reads ahead for a part of each turn,
and handles the messages round-robin: by host, then by connection, each in its own order. A new sender waits for one
message of each other host, whatever they have sent. At MAX_MESSAGES or MAX_BYTES nothing more is read until there is
room: ZeroMQ then takes from the connections in turn, one message each, and blocks the senders.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import TypeAlias

MAX_MESSAGES = 20_000
MAX_BYTES = 64 * 1024 * 1024

_Message: TypeAlias = tuple[list[bytes], int]
"""A message's frames and their size."""


class Inbox:
    def __init__(
        self, hosts: Mapping[bytes, str], max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES
    ) -> None:
        """Make an inbox. `hosts` maps each connection to its host."""
        self._hosts = hosts
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._host_of: dict[bytes, str] = {}
        """Host of each connection with a queued message."""
        self._waiting: OrderedDict[str, OrderedDict[bytes, deque[_Message]]] = OrderedDict()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        return self._count >= self._max_messages or self._bytes >= self._max_bytes

    def put(self, frames: list[bytes]) -> None:
        """Add a message; its first frame names the connection."""
        connection = frames[0]
        host = self._host_of.setdefault(connection, self._hosts.get(connection, ""))
        connections = self._waiting.setdefault(host, OrderedDict())
        size_bytes = sum(map(len, frames))
        connections.setdefault(connection, deque()).append((frames, size_bytes))
        self._count += 1
        self._bytes += size_bytes

    def take(self) -> list[bytes]:
        """Return the next message; there must be one."""
        host, connections = next(iter(self._waiting.items()))
        connection, messages = next(iter(connections.items()))
        frames, size_bytes = messages.popleft()
        self._count -= 1
        self._bytes -= size_bytes
        if messages:
            connections.move_to_end(connection)
        else:
            self._remove(host, connection)
        if connections:
            self._waiting.move_to_end(host)
        return frames

    def forget(self, connection: bytes) -> None:
        """Discard a lost connection's messages: no sender waits for the replies."""
        host = self._host_of.get(connection)
        if host is None:
            return
        for _, size_bytes in self._waiting[host][connection]:
            self._count -= 1
            self._bytes -= size_bytes
        self._remove(host, connection)

    def _remove(self, host: str, connection: bytes) -> None:
        del self._host_of[connection]
        connections = self._waiting[host]
        del connections[connection]
        if not connections:
            del self._waiting[host]
