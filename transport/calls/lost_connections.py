"""Follows the connections of a calls socket to other nodes, and reports those that are lost. Impure.

Owns the socket's monitor. The supervisor reports the ends of the peers of this node; ZeroMQ connects again to those of
other nodes by itself, while the replies that were to come on the lost connection never arrive. Called by the loop.
"""

from collections.abc import Callable

import zmq

from ..sockets import monitor_events
from .events import Disconnected
from .performer import Performer


class LostConnections:
    def __init__(self, calls: Performer, now_ms: Callable[[], int]) -> None:
        self._calls = calls
        self._now_ms = now_ms
        self.monitor = calls.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        """To be polled; `follow` reads it."""

    def follow(self) -> None:
        """Have the calls on lost connections repeated, or failed."""
        self._calls.used.add(self.monitor)
        for _, _, endpoint in monitor_events(self.monitor):
            if endpoint.startswith("tcp://"):
                self._calls.handle(Disconnected(endpoint), self._now_ms())

    def close(self) -> None:
        self._calls.socket.disable_monitor()
        self.monitor.close(0)
