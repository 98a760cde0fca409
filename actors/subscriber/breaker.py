"""The circuit breaker: many different records fail, so it is not the records. Pure.

    state      means                                        left by
    closed     records are given out                        too many different ones failed -> open
    open       nothing is given out                         the pause is over -> probing
    probing    one at a time is given out                   one is handled -> closed; one fails -> open, for twice as long

Too many are a share of the last records that ended. A record counts once, however often it is tried: one that fails again
and again is poison, and no reason to stop. What fails while it is not closed is not charged: nobody knows whose fault
that was.
"""

from collections import deque
from math import ceil
from typing import Literal

from .bisection import Spot

State = Literal["closed", "open", "probing"]
MAX_PAUSE_MS = 60_000


class Breaker:
    def __init__(self, window: int, share: float, pause_ms: int) -> None:
        """`window`: of how many records; 0 never opens."""
        self.state: State = "closed"
        self.pause_ms = pause_ms
        """How long the pause is that has begun, or would begin."""
        self._first_pause_ms = pause_ms
        self._window = window
        self._too_many = max(2, ceil(window * share))
        self._ended: deque[Spot | None] = deque()
        """None for a record that was handled."""
        self._failing: set[Spot] = set()

    def lets(self, in_progress: int) -> bool:
        """Whether one more record may be given out."""
        return self.state == "closed" or (self.state == "probing" and not in_progress)

    def handled(self, count: int) -> None:
        """So many records were."""
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
        """This record did; returns whether a pause begins."""
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
        """How many different records failed."""
        return len(self._failing)

    def _note(self, spot: Spot | None) -> None:
        if len(self._ended) == self._window:
            old = self._ended.popleft()
            if old is not None:
                self._failing.discard(old)
        self._ended.append(spot)
