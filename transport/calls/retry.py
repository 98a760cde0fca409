"""The retry policy of the client: exponential backoff with jitter. Pure; the caller passes the random source."""

from collections.abc import Callable

from msgspec import Struct

Jitter = Callable[[], float]
"""Draws from 0 to 1, as `random.random` does."""


class RetryPolicy(Struct, frozen=True):
    """Waits `first_ms`, twice that, and so on up to `max_ms`, each less up to a fifth by jitter.

    The first wait is short on purpose: most failures are a peer that was killed and restarts at once, and a
    request to a peer known to be down is held until it is up instead of being retried.
    """

    first_ms: int = 10
    max_ms: int = 1_000

    def delay_ms(self, failures: int, jitter: Jitter) -> int:
        """Return the delay after this many consecutive failures (1 and up)."""
        full = min(self.max_ms, self.first_ms << min(failures - 1, 20))
        return max(1, round(full * (1 - 0.2 * jitter())))
