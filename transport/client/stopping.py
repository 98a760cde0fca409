"""The end of a wait: `stop` of a share consumer, called from a signal handler or from another thread.

A signal handler runs between any two instructions of the main thread, which may hold any lock. So `stop` only sets a
flag and posts to the network thread, which wakes the waiting thread.
"""

import threading

from ..machine import Effect, Event
from .errors import TimedOut
from .network import Network


class StoppableWaits:
    """The asker of requests which end once `stop` is called, and the end of the pauses between them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.is_stopped = False
        self.ended = threading.Event()
        """Set when a pause is to end."""

    def stop(self) -> None:
        """End the present request and all later ones. Takes no lock."""
        self.is_stopped = True
        self._network.end_calls(self)
        self._network.post(self, None)

    def _refuse_when_closed(self) -> None:
        """Raise TimedOut once stopped; called for each request before it is sent."""
        if self.is_stopped:
            raise TimedOut("stopped")

    def handle(self, event: Event, now: int) -> list[Effect]:
        """End a pause. Runs in the network thread."""
        self.ended.set()
        return []
