"""The wait before a request to another actor is repeated: until its timeout or until the actor is up.

Owns one timer, not the request. Each module that repeats requests has one of its own.
"""

from collections.abc import Hashable

from msgspec import Struct

from ...transport.machine import CancelTimer, LoopEffect, LoopEvent, PeerUp, SetTimer, TimerFired

RETRY_MS = 100


class RetryTimer(Struct, frozen=True):
    """The time at which a call is repeated."""

    call: Hashable
    """The key of the call, or of the first of several."""


class Pause:
    def __init__(self, call: Hashable, address: str) -> None:
        self._timer = RetryTimer(call)
        self._address = address
        self._is_on = False

    def begin(self, now: int) -> list[LoopEffect]:
        self._is_on = True
        return [SetTimer(self._timer, now + RETRY_MS)]

    def is_over(self, event: LoopEvent) -> bool:
        """Return True if this event ends the wait; the repeated request is sent with `end`."""
        if not self._is_on:
            return False
        is_due = isinstance(event, TimerFired) and bool(event.key == self._timer)
        is_over = is_due or (isinstance(event, PeerUp) and event.address == self._address)
        self._is_on = not is_over
        return is_over

    @property
    def end(self) -> CancelTimer:
        return CancelTimer(self._timer)
