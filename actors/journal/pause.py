"""The wait before a request to another actor is repeated: until its timeout or until the actor is up.

Owns one timer, not the request. Each module that repeats requests has one of its own.
"""

from ...transport.machine import CancelTimer, Effect, Event, PeerUp, SetTimer, TimerFired

RETRY_MS = 100


class Pause:
    def __init__(self, key: str, address: str) -> None:
        self._key = key
        self._address = address
        self._is_on = False

    def begin(self, now: int) -> list[Effect]:
        self._is_on = True
        return [SetTimer(self._key, now + RETRY_MS)]

    def is_over(self, event: Event) -> bool:
        """Return True if this event ends the wait; the repeated request is sent with `end`."""
        is_due = isinstance(event, TimerFired) and event.key == self._key
        is_back = isinstance(event, PeerUp) and event.address == self._address
        is_over = self._is_on and (is_due or is_back)
        self._is_on = self._is_on and not is_over
        return is_over

    @property
    def end(self) -> CancelTimer:
        return CancelTimer(self._key)
