"""Waits for ZeroMQ sockets and descriptors with one system call, where zmq_poll makes four for each socket.

The descriptor of a ZeroMQ socket is readable when there are commands for the socket, not when there are messages. Each
use of a socket may take in its commands, and the signal with them. So a socket that has been used, and was not found
empty afterwards, is asked for its events before the next wait. Called by the loop, which keeps the set of such sockets.
"""

import select
from collections.abc import Callable
from typing import Any

import zmq

_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


def _has_message(socket: "zmq.Socket[bytes]") -> bool:
    return bool(int(socket.get(_EVENTS)) & _READABLE)


class Poller:
    def __init__(
        self,
        used: "set[zmq.Socket[bytes]]",
        has_message: "Callable[[zmq.Socket[bytes]], bool]" = _has_message,
    ) -> None:
        """`used` are the sockets that may hold messages which their descriptors do not announce. The caller adds to it
        and each wait empties it. `has_message` looks into one; the default never releases the interpreter lock."""
        self._used = used
        self._has_message = has_message
        self._poll = select.poll()
        self._sources: dict[int, Any] = {}

    def register(self, source: Any) -> None:
        """Wait for a socket, a file descriptor, or an object with a `fileno`."""
        if isinstance(source, zmq.Socket):
            descriptor = int(source.fd)
        else:
            descriptor = source if isinstance(source, int) else int(source.fileno())
        self._sources[descriptor] = source
        self._poll.register(descriptor, select.POLLIN)
        if isinstance(source, zmq.Socket):
            self._used.add(source)

    def wait(self, timeout_ms: int) -> list[Any]:
        """Return the sources that may be readable: at once if there are any, otherwise after `timeout_ms` at most."""
        ready: list[Any] = []
        for socket in self._used:
            if self._has_message(socket):
                ready.append(socket)  # noqa: PERF401 - a comprehension is a call
        self._used.clear()
        for descriptor, _ in self._poll.poll(0 if ready else timeout_ms):
            source = self._sources[descriptor]
            if source not in ready:
                ready.append(source)
        return ready
