"""The machine of the etcd store: requests, deadlines, repeats, the session, the mirror. Pure.

Owns the roles: the wire (endpoints and requests in flight), the session, the mirror and its watch, the proposals. The
threads of `connections.py` perform its effects, and `store.py` passes events on. It must never wait for one role's
answer to serve another: a lease is kept alive while a list is being read.

    event       goes to
    Opened      the session is granted, everything is listed
    Proposed    proposals
    Replied     the wire, then the role whose request it was
    WatchSaid   the mirror; proposals, because an outcome may wait for it
    Woken       the wire's deadlines, then every role with a time that has come
    Closing     the session is revoked
"""

from collections.abc import Iterable
from typing import assert_never

from .effects import Closing, EtcdEffect, EtcdEvent, Opened, Proposed, Replied, WakeAt, WatchSaid, Woken
from .following import Following
from .proposals import Proposals
from .requests import Silence
from .session import Sessions
from .wire import Arrival, Credentials, Wire

SESSION_TTL_MS = 5_000
ALARM_MS = 3_000
"""Time without an answer after which the operator is alarmed; an election of etcd takes less."""


class EtcdMachine:
    def __init__(
        self,
        *,
        endpoints: int,
        prefix: str,
        name: str,
        life: str,
        credentials: Credentials | None = None,
        session_ttl_ms: int = SESSION_TTL_MS,
    ) -> None:
        """Create the machine.

        `prefix` begins the store's keys in etcd, `name` is this proposer's among all that use the store at a time, and
        `life` is a random text.
        """
        self._wire = Wire(endpoints, credentials)
        self._session = Sessions(self._wire, session_ttl_ms)
        self._following = Following(self._wire, prefix)
        self._proposals = Proposals(self._wire, self._following, self._session, prefix, name, life)
        self._wake_at: int | None = None
        self._is_closing = False

    @property
    def last_failure(self) -> str:
        """Return the reason of the last request that failed."""
        return self._wire.last_failure

    def alarms(self, now: int) -> tuple[str, ...]:
        since = self._wire.silent_since
        if since is None or now - since < ALARM_MS:
            return ()
        return (f"etcd has not answered for {(now - since) // 1_000} s: {self._wire.last_failure}",)

    def handle(self, event: EtcdEvent, now: int) -> list[EtcdEffect]:
        effects = self._handle(event, now)
        return effects if self._is_closing else [*effects, *self._wake()]

    def _handle(self, event: EtcdEvent, now: int) -> list[EtcdEffect]:
        match event:
            case Opened():
                return [*self._session.open(now), *self._following.open(now)]
            case Proposed(proposal=proposal):
                return self._proposals.add(proposal, now)
            case Replied(number=number, outcome=outcome):
                arrivals, effects = self._wire.arrived(number, outcome, now)
                return [*effects, *self._on_arrivals(arrivals, now)]
            case WatchSaid(number=number, message=message):
                effects = self._following.on_watch(number, message, now)
                return [*effects, *self._proposals.proceed(now)]
            case Woken():
                return self._on_woken(now)
            case Closing():
                self._is_closing = True
                return self._session.close(now)
            case _:
                assert_never(event)

    def _on_arrivals(self, arrivals: Iterable[Arrival], now: int) -> list[EtcdEffect]:
        effects: list[EtcdEffect] = []
        for arrival in arrivals:
            match arrival.flight.role:
                case "session":
                    effects += self._session.on_arrival(arrival, now)
                case "following":
                    effects += self._following.on_arrival(arrival, now)
                case "proposals":
                    effects += self._proposals.on_arrival(arrival, now)
                case "token":
                    raise AssertionError("the wire keeps it")
            if not isinstance(arrival.outcome, Silence):
                effects += self._following.on_answer_of(arrival.flight.endpoint)
            effects += self._proposals.proceed(now)
        return effects

    def _on_woken(self, now: int) -> list[EtcdEffect]:
        self._wake_at = None
        arrivals, effects = self._wire.expired(now)
        effects += self._on_arrivals(arrivals, now)
        for role in (self._session, self._following, self._proposals):
            at = role.next_at()
            if at is not None and now >= at:
                effects += role.on_due(now)
        return effects

    def _wake(self) -> list[EtcdEffect]:
        roles = (self._wire, self._session, self._following, self._proposals)
        at = min((at for role in roles if (at := role.next_at()) is not None), default=None)
        if at is None or at == self._wake_at:
            return []
        self._wake_at = at
        return [WakeAt(at)]
