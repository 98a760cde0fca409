"""The rate of handshakes by host: each costs its receiver a decision and elliptic-curve operations. Pure.

A host beyond its rate is refused for now, and its clients connect again by themselves.
"""

from ..token_bucket import TokenBucket

HANDSHAKES_PER_SECOND = 200
MAX_HOSTS = 10_000
"""Beyond this the oldest host starts with a full bucket again."""


class Handshakes:
    def __init__(self, per_second: int = HANDSHAKES_PER_SECOND) -> None:
        self._per_second = per_second
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, host: str, now: int) -> bool:
        """Count a handshake of a host; return False if it has to wait."""
        bucket = self._buckets.get(host)
        if bucket is None:
            bucket = self._buckets[host] = TokenBucket(self._per_second, now)
            if len(self._buckets) > MAX_HOSTS:
                del self._buckets[next(iter(self._buckets))]
        if bucket.wait_ms(now) > 0:
            return False
        bucket.charge(1)
        return True
