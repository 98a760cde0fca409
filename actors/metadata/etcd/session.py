"""The session: a lease that is granted, kept alive, and granted again when it was lost. Pure.

    granting --Lease--> alive --after a third of its time--> keeping --Lease--> alive
    keeping --silence--> keeping, at the next endpoint
    keeping --the lease is gone--> SessionLost, granting

The session lives until the *sending* of the last successful request plus the lease's time, by a clock that counts the
machine's sleep. It may live longer in etcd (a new leader of etcd extends every lease), or shorter (bugs before etcd
3.5.9), so nothing but liveness may hang on it.
"""

from ..store import Session, SessionLost
from .effects import Deliver, EtcdEffect
from .requests import NOT_FOUND, GrantLease, KeepLease, Lease, Refusal, RevokeLease, Silence
from .wire import Arrival, Wire


class Sessions:
    def __init__(self, wire: Wire, ttl_ms: int) -> None:
        self._wire = wire
        self._ttl_ms = ttl_ms
        self.lease = 0
        """0: there is no session."""
        self._is_asking = False
        self._due_at: int | None = None

    def next_at(self) -> int | None:
        return self._due_at

    def open(self, now: int) -> list[EtcdEffect]:
        return self._ask(now)

    def on_due(self, now: int) -> list[EtcdEffect]:
        return self._ask(now)

    def _ask(self, now: int) -> list[EtcdEffect]:
        self._due_at = None
        if self._is_asking:
            return []
        self._is_asking = True
        request = KeepLease(self.lease) if self.lease else GrantLease(-(-self._ttl_ms // 1_000))
        return self._wire.send("session", request, now)

    def on_arrival(self, arrival: Arrival, now: int) -> list[EtcdEffect]:
        self._is_asking = False
        match arrival.outcome:
            case Lease(lease=lease, ttl_s=ttl_s) if ttl_s > 0:
                self.lease = lease
                alive_until_ms = arrival.flight.sent_at + ttl_s * 1_000
                self._due_at = arrival.flight.sent_at + self._ttl_ms // 3
                return [Deliver(Session(lease, alive_until_ms))]
            case Lease():
                return self.lost(self.lease, now)
            case Refusal(code=code) if code == NOT_FOUND and self.lease:
                return self.lost(self.lease, now)
            case Silence() | Refusal():
                self._due_at = (
                    self._wire.retry_at(now) if isinstance(arrival.outcome, Silence) else now + 1_000
                )
        return []

    def lost(self, lease: int, now: int) -> list[EtcdEffect]:
        """Begin a new session if it is the present one that etcd does not have any more."""
        if lease != self.lease:
            return []
        self.lease = 0
        return [*([Deliver(SessionLost(lease))] if lease else []), *self._ask(now)]

    def close(self, now: int) -> list[EtcdEffect]:
        self._due_at = None
        if not self.lease:
            return []
        lease, self.lease = self.lease, 0
        return self._wire.send("session", RevokeLease(lease), now)
