"""When a client leaves a broker whose topics follow those of another site. Pure; called by the broker's directory.

A client with the endpoints of two sites may be connected to the one that has a copy: before its promotion, or after the
other one was promoted in its place. Its producers are refused there, retriable. They may have to wait for the promotion
here; or the other site takes them. So the client looks there, from time to time, and stays where it is not refused.

    refused    nothing for STAY_MS, then a look at another site; the next one after twice the time, up to LONGEST_MS
    forgotten  once there was no refusal for LONGEST_MS
"""

STAY_MS = 2_000
"""A site that does not answer at all costs as long as a greeting: so a promotion that has begun is waited for."""
LONGEST_MS = 30_000


class OtherSite:
    def __init__(self) -> None:
        self._look_at: int | None = None
        self._stay_ms = STAY_MS
        self._refused_at = 0

    def is_due(self, now: int) -> bool:
        """Return True if a refusal because of a mirror is a reason to look at another site now."""
        if self._look_at is None or now - self._refused_at > LONGEST_MS:
            self._look_at, self._stay_ms = now + STAY_MS, STAY_MS
        self._refused_at = now
        if now < self._look_at:
            return False
        self._stay_ms = min(LONGEST_MS, 2 * self._stay_ms)
        self._look_at = now + self._stay_ms
        return True
