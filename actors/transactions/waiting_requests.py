"""The requests that wait for the end of a transaction, at most TIMEOUT_MS. Pure; called by requests.py."""

from collections import deque
from typing import NamedTuple

from ...transport.machine import Received

MAX_WAITING = 10
"""Maximum number of requests that wait for one transaction to complete."""
TIMEOUT_MS = 1_000
"""The longest time that they wait."""


class WaitingRequest(NamedTuple):
    received: Received
    until: int


class WaitingRequests:
    def __init__(self) -> None:
        self._waiting: dict[str, deque[WaitingRequest]] = {}
        """By transactional id, in the order of their deadlines."""

    def add(self, name: str, received: Received, now: int) -> bool:
        """Let a request wait; return False if too many do."""
        waiting = self._waiting.setdefault(name, deque())
        if len(waiting) >= MAX_WAITING:
            return False
        waiting.append(WaitingRequest(received, now + TIMEOUT_MS))
        return True

    def next_timeout(self) -> int | None:
        """Return the time at which the next waiting request times out."""
        return min((waiting[0].until for waiting in self._waiting.values()), default=None)

    def take(self, name: str) -> list[Received]:
        """Return the requests that waited for this transaction, which has ended."""
        return [each.received for each in self._waiting.pop(name, ())]

    def take_expired(self, now: int) -> list[tuple[str, Received]]:
        """Return the requests that have waited too long."""
        expired: list[tuple[str, Received]] = []
        for name, waiting in list(self._waiting.items()):
            while waiting and waiting[0].until <= now:
                expired.append((name, waiting.popleft().received))
            if not waiting:
                del self._waiting[name]
        return expired
