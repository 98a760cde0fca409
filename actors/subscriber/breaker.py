"""The circuit breaker: pauses the handler when many different records fail, since the records are not the cause. Pure.

    state      means                                        left by
    closed     records go to the handler                    too many different records failed -> open
    open       no record goes to the handler                the pause is over -> probing
    probing    one record at a time goes to the handler     a success -> closed; a failure -> open, for twice as long

"Too many" is a share of the last records that ended. A record counts once, however many attempts it had: a record that
fails repeatedly is a poison record and no reason to pause. A failure while the circuit is not closed does not count as
an attempt, because its cause is unknown.
"""

from collections import deque
from math import ceil
from typing import Literal

from .bisection import Spot

CircuitState = Literal["closed", "open", "probing"]
MAX_PAUSE_MS = 60_000


class Breaker:
    def __init__(self, window: int, share: float, pause_ms: int) -> None:
        """`window` is the number of records considered; 0 never opens the circuit."""
        self.state: CircuitState = "closed"
        self.pause_ms = pause_ms
        """Length of the current pause, or of the next one."""
        self._first_pause_ms = pause_ms
        self._window = window
        self._too_many = max(2, ceil(window * share))
        self._ended: deque[Spot | None] = deque()
        """The records that ended last; None stands for a record that was handled."""
        self._failing: set[Spot] = set()

    def lets(self, in_progress: int) -> bool:
        """Return True if one more record may go to the handler."""
        return self.state == "closed" or (self.state == "probing" and not in_progress)

    def handled(self, count: int) -> None:
        """Count `count` handled records."""
        if not count:
            return
        if self.state == "probing":
            self.state = "closed"
            self.pause_ms = self._first_pause_ms
            self._ended.clear()
            self._failing.clear()
        if self._failing:
            for _ in range(min(count, self._window)):
                self._note(None)

    def failed(self, spot: Spot) -> bool:
        """Count a failure of this record; return True if a pause begins."""
        if self.state == "probing":
            self.state = "open"
            self.pause_ms = min(2 * self.pause_ms, MAX_PAUSE_MS)
            return True
        if self.state == "closed" and self._window and spot not in self._failing:
            self._note(spot)
            self._failing.add(spot)
            if len(self._failing) >= self._too_many:
                self.state = "open"
                return True
        return False

    def pause_over(self) -> None:
        self.state = "probing"

    @property
    def failing(self) -> int:
        """Return the number of different records that failed."""
        return len(self._failing)

    def _note(self, spot: Spot | None) -> None:
        if len(self._ended) == self._window:
            old = self._ended.popleft()
            if old is not None:
                self._failing.discard(old)
        self._ended.append(spot)
