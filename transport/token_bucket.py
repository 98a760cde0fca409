"""A token bucket: an average rate with limited bursts. Pure.

The bucket fills at `rate` a second up to BURST_S seconds' worth. A request is admitted when the level is not below
zero, and is charged whole, so the level may go below zero; later requests then wait until it is back at zero. So one
request larger than the rate passes, and later ones wait for it, as in Kafka.
"""

from math import ceil

BURST_S = 0.2


class TokenBucket:
    def __init__(self, rate: int, now: int) -> None:
        self._rate = rate
        self._level = rate * BURST_S
        self._filled_at = now

    def wait_ms(self, now: int) -> int:
        """Return the time until the next request may be admitted."""
        gained = (now - self._filled_at) * self._rate / 1000
        self._level = min(self._rate * BURST_S, self._level + gained)
        self._filled_at = now
        return 0 if self._level >= 0 else ceil(-self._level * 1000 / self._rate)

    def charge(self, amount: float) -> None:
        """Charge an admitted request; a negative amount gives back an overcharge."""
        self._level -= amount
