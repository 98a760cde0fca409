"""A rate that holds on average, with a little room for bursts. Pure.

The bucket fills at `rate` a second up to BURST_S seconds' worth. A request is let in when the level is not below zero,
and is charged whole, so the level may go below; whoever comes then waits until it is back. So one request larger than
the rate passes, and is paid for by those after it, as in Kafka.
"""

from math import ceil

BURST_S = 0.2


class TokenBucket:
    def __init__(self, rate: int, now: int) -> None:
        self._rate = rate
        self._level = rate * BURST_S
        self._filled_at = now

    def wait_ms(self, now: int) -> int:
        """How long until the next may be let in."""
        gained = (now - self._filled_at) * self._rate / 1000
        self._level = min(self._rate * BURST_S, self._level + gained)
        self._filled_at = now
        return 0 if self._level >= 0 else ceil(-self._level * 1000 / self._rate)

    def charge(self, amount: float) -> None:
        """Of something let in; a negative amount gives back what was charged too much."""
        self._level -= amount
