"""Limits by key of a subscriber with several threads: when a key's records may start, which of them are dropped. Pure.

    rate_per_key   a bucket for each key that was started within the last second; a lane whose bucket is empty waits
    coalesce       a lane's older records are done without the handler, the newest is handled
    max_wait_ms    before that the lane waits, once, for further records of its key

Applies to lanes of keys alone: records without a key have no limits. A record that has failed is never dropped here: its
retries are. Called by `handling.py`.
"""

from math import ceil

from ...transport.subscription import SubscriberOptions
from .lanes import Lane

BURST_S = 1
SWEEP = 10_000
"""Number of buckets from which full ones are removed."""


class KeyLimits:
    def __init__(self, options: SubscriberOptions) -> None:
        self._rate = options.rate_per_key
        self._burst = max(1.0, self._rate * BURST_S)
        self._is_coalescing = options.coalesce == "latest"
        self._collect_ms = options.max_wait_ms
        self._buckets: dict[bytes, tuple[float, int]] = {}
        """The level of each key's bucket, and the time at which it was computed."""
        self._sweep_at = SWEEP
        self.is_limiting = options.is_limited_by_key

    def wait_ms(self, lane: Lane, now: int) -> int:
        """Return the time until the lane may start; 0: now, and then it is charged."""
        key = lane.record_key
        if key is None:
            return 0
        if self._collect_ms and not (lane.handed or lane.is_collected):
            lane.is_collected = True
            return self._collect_ms
        if not self._rate:
            return 0
        level = self._level(key, now)
        if level < 1:
            return max(1, ceil((1 - level) * 1000 / self._rate))
        self._buckets[key] = (level - 1, now)
        self._sweep(now)
        return 0

    def superseded(self, lane: Lane) -> int:
        """Return the number of the lane's first records that a newer one of their key replaces."""
        lane.is_collected = False
        if not self._is_coalescing or lane.handed or not isinstance(lane.name, bytes):
            return 0
        return len(lane.held) - 1

    def _level(self, name: bytes, now: int) -> float:
        level, at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, level + (now - at) * self._rate / 1000)

    def _sweep(self, now: int) -> None:
        """Forget the buckets that are full again, whenever their number has doubled."""
        if len(self._buckets) < self._sweep_at:
            return
        full = [name for name in self._buckets if self._level(name, now) >= self._burst]
        for name in full:
            del self._buckets[name]
        self._sweep_at = max(SWEEP, 2 * len(self._buckets))
