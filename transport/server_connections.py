"""The connections of the server socket: waiting, open and lost.

Owns the socket's monitor, the door of an `ipc` socket (door.py) and the table from file descriptor to connection.
ZeroMQ reports the end of a connection by its descriptor alone, and a frame has the descriptor of its connection
(`SRCFD`), so a connection is entered with its first message. The kernel reuses a descriptor as soon as it is closed,
but the event is queued before that: when a new connection arrives at a known descriptor, the monitor is read first.

Messages of a connection may be read after its end, above all by a process that was frozen. Such a connection is entered
once more, or for the first time, if its descriptor is free, so an entry may be wrong. Two connections that both have a
descriptor are distinguished by the end that was seen there:

    newcomer                     entry                                             outcome
    the last that ended there    any                                               a late message: not entered
    another one                  made after an end there that may have been its    the newcomer takes its place
    another one                  any other                                         a late message: not entered

Called by the loop, and by the supervisor's.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import zmq

from .door import Door
from .sockets import monitor_events

_LOCAL_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED
_numbers = count(1)


class ServerConnections:
    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        server: "zmq.Socket[bytes]",
        endpoint: str,
        on_new: Callable[[bytes, str], None] | None = None,
        limit: int | None = None,
        *,
        follows_accepted: bool = False,
    ) -> None:
        """Follow the connections of a socket at `endpoint`, which is bound unless that is an `ipc` one: its
        connections are admitted here, up to `limit`. `on_new` receives each connection that is entered, and its
        host. With `follows_accepted` those are known that have not sent anything yet."""
        events = f"inproc://planaria-connections-{next(_numbers)}"
        self._server = server
        self._on_new = on_new
        self._by_descriptor: dict[int, bytes] = {}
        self._descriptors: dict[bytes, int] = {}
        self._gone: list[bytes] = []
        self._last_ended: dict[int, bytes | None] = {}
        """The connection that ended last at a descriptor; None if no message of it had been read."""
        self._doubtful: set[int] = set()
        """Descriptors of connections that may have ended before they were entered."""
        self.monitor: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self.monitor.setsockopt(zmq.LINGER, 0)
        # Without a limit, because ZeroMQ's own thread would wait for room.
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        # A TCP listener without descriptors is slow, but survives.
        is_local = endpoint.startswith("ipc://")
        followed = zmq.EVENT_DISCONNECTED | (zmq.EVENT_ACCEPTED if follows_accepted else 0)
        self._accepted: dict[int, int | None] | None = {} if follows_accepted else None
        """Descriptors of connections that have not been judged, the oldest first, and the time to do that; None until
        it is set."""
        server.monitor(events, _LOCAL_EVENTS if is_local else followed)
        self.monitor.connect(events)
        self._door = Door(server, endpoint, limit) if is_local else None
        self.queue = -1 if self._door is None else self._door.descriptor
        """The descriptor that is readable when connections wait to be admitted; -1 if there is none."""

    def __len__(self) -> int:
        return len(self._descriptors)

    def note(self, frame: zmq.Frame) -> None:
        """Enter the connection of a message by its first frame, the connection's name."""
        connection = frame.bytes
        if connection in self._descriptors:
            return
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # an in-process peer has none
        if descriptor in self._by_descriptor:
            self._read_monitor()
            if descriptor in self._by_descriptor and not self._gives_way(descriptor, connection):
                return
        if descriptor in self._last_ended and self._last_ended[descriptor] in (None, connection):
            self._doubtful.add(descriptor)
        self._by_descriptor[descriptor] = connection
        self._descriptors[connection] = descriptor
        if self._on_new is not None:
            self._on_new(connection, str(frame.get("Peer-Address")))

    def _gives_way(self, descriptor: int, newcomer: bytes) -> bool:
        """End the connection that was entered at a descriptor, if that one had ended before, and not the newcomer."""
        if descriptor not in self._doubtful or self._last_ended.get(descriptor) == newcomer:
            return False
        self._doubtful.remove(descriptor)
        self._remove(descriptor)
        return True

    def forget(self, connection: bytes) -> None:
        """Remove a connection whose name belongs to another one now."""
        descriptor = self._descriptors.pop(connection, None)
        if descriptor is not None:
            del self._by_descriptor[descriptor]
            self._doubtful.discard(descriptor)

    def judge(self, now: int, due_ms: int, is_kept: Callable[[bytes | None], bool | None]) -> None:
        """Cut each connection that is `due_ms` old, unless it is kept, which is looked at again `due_ms` later if the
        answer is None. `is_kept` takes its name; None if it has not sent anything. Called about twice a second."""
        assert self._accepted is not None
        self._read_monitor()
        again: list[int] = []
        for descriptor, at in list(self._accepted.items()):
            if at is None:
                self._accepted[descriptor] = now + due_ms
            elif at <= now:
                del self._accepted[descriptor]
                kept = is_kept(self._by_descriptor.get(descriptor))
                if kept is None:
                    again.append(descriptor)
                elif not kept:
                    _cut(descriptor)
        self._accepted.update((descriptor, now + due_ms) for descriptor in again)

    def admit(self) -> None:
        """Admit the connections that wait, as far as there is room."""
        if self._door is not None:
            self._door.admit()

    @property
    def has_gone(self) -> bool:
        """Return True if `gone` has something to return, whatever the monitor has."""
        return bool(self._gone)

    def gone(self) -> list[bytes]:
        """Return the connections that have ended since the last call, of those that have sent a message."""
        self._read_monitor()
        gone, self._gone = self._gone, []
        return gone

    def close(self) -> None:
        if self._door is not None:
            self._door.close()
        self._server.disable_monitor()
        self.monitor.close()

    def _read_monitor(self) -> None:
        self._read_events()
        if self._door is not None and self._door.is_drained():
            self._read_events()  # of connections accepted meanwhile
            self._door.on_drained()

    def _read_events(self) -> None:
        for event, descriptor, endpoint in monitor_events(self.monitor):
            if event == zmq.EVENT_DISCONNECTED:
                if self._door is not None:
                    self._door.on_ended(descriptor)
                if self._accepted is not None:
                    self._accepted.pop(descriptor, None)
                self._end(descriptor)
            elif event == zmq.EVENT_ACCEPTED and self._door is not None:
                self._door.on_accepted(endpoint, descriptor)
            elif event == zmq.EVENT_ACCEPTED and self._accepted is not None:
                self._accepted[descriptor] = None

    def _end(self, descriptor: int) -> None:
        self._doubtful.discard(descriptor)
        self._last_ended[descriptor] = self._remove(descriptor)

    def _remove(self, descriptor: int) -> bytes | None:
        connection = self._by_descriptor.pop(descriptor, None)
        if connection is not None:
            del self._descriptors[connection]
            self._gone.append(connection)
        return connection


def _cut(descriptor: int) -> None:
    """Have ZeroMQ find a connection closed by its peer: it offers no other way to end one."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
