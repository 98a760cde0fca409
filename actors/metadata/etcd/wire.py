"""The requests in flight: their deadlines, the endpoint in use, the token. Pure.

Each role of the machine has one request in flight at most. A request that is not answered in time, or whose
connection fails, ends in Silence and moves all later requests to the next endpoint; its late answer is dropped. The
role decides whether to repeat it, not before `retry_at`: at once while there are endpoints that have not failed since
the last answer, then after a growing delay.

With a user, a token is fetched first. A request that is refused for its token is sent again with a new one.
"""

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from .effects import EtcdEffect, GiveUp, Send
from .requests import (
    INVALID_ARGUMENT,
    UNAUTHENTICATED,
    UNCERTAIN,
    Authenticate,
    Outcome,
    Refusal,
    Request,
    Silence,
    Token,
)

TIMEOUT_MS = 500
MIN_DELAY_MS = 50
MAX_DELAY_MS = 1_000
_OLD_TOKEN = "revision of auth store is old"

Role: TypeAlias = Literal["session", "proposals", "following", "token"]


class Flight(NamedTuple):
    role: Role
    request: Request
    endpoint: int
    sent_at: int


class Arrival(NamedTuple):
    flight: Flight
    outcome: Outcome


class Tls(Struct, frozen=True):
    """Files in PEM. Without a certificate of its own, the client is known by user and password only."""

    ca: str
    certificate: str | None = None
    key: str | None = None


class Credentials(Struct, frozen=True):
    user: str
    password: str


class Wire:
    def __init__(self, endpoints: int, credentials: Credentials | None) -> None:
        self.endpoint = 0
        """The endpoint in use."""
        self.token = ""
        self.last_failure = ""
        self.silent_since: int | None = None
        """The time of the first failure since the last answer."""
        self._endpoints = endpoints
        self._credentials = credentials
        self._failures = 0
        """Failures since the last answer."""
        self._flights: dict[int, Flight] = {}
        self._waiting: list[tuple[Role, Request]] = []
        """Requests that wait for a token."""
        self._last_number = 0
        self._token_due_at: int | None = None

    @property
    def has_token(self) -> bool:
        return self._credentials is None or bool(self.token)

    def send(self, role: Role, request: Request, now: int) -> list[EtcdEffect]:
        if not self.has_token and role != "token":
            self._waiting.append((role, request))
            return self._fetch_token(now)
        self._last_number += 1
        self._flights[self._last_number] = Flight(role, request, self.endpoint, now)
        return [Send(self._last_number, self.endpoint, request, self.token, TIMEOUT_MS)]

    def retry_at(self, now: int) -> int:
        """Return the time from which a request that failed may be repeated."""
        rounds = self._failures // self._endpoints
        return now if rounds == 0 else now + min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** min(rounds - 1, 10))

    def arrived(self, number: int, outcome: Outcome, now: int) -> tuple[list[Arrival], list[EtcdEffect]]:
        """Return the outcome for its role, if it is still awaited, and requests that can be sent now."""
        flight = self._flights.pop(number, None)
        if flight is None:
            return [], []
        if isinstance(outcome, Refusal) and outcome.code in UNCERTAIN:
            outcome = Silence(outcome.message)
        if isinstance(outcome, Silence):
            self.endpoint_failed(flight.endpoint, outcome.reason)
            if self.silent_since is None:
                self.silent_since = flight.sent_at
            if flight.role == "token":
                self._token_due_at = self.retry_at(now)
                return [], []
            return [Arrival(flight, outcome)], []
        self._failures = 0
        self.silent_since = None
        if flight.role == "token":
            return [], self._on_token(outcome, now)
        if isinstance(outcome, Refusal) and self._is_of_token(outcome):
            self.token = ""
            return [], self.send(flight.role, flight.request, now)
        return [Arrival(flight, outcome)], []

    def endpoint_failed(self, endpoint: int, reason: str) -> None:
        self.last_failure = reason
        if endpoint == self.endpoint:
            self._failures += 1
            self.endpoint = (endpoint + 1) % self._endpoints

    def expired(self, now: int) -> tuple[list[Arrival], list[EtcdEffect]]:
        """Return the requests whose time is over, as Silence; fetch a token if that is due."""
        late = [number for number, flight in self._flights.items() if now >= flight.sent_at + TIMEOUT_MS]
        arrivals: list[Arrival] = []
        for number in late:
            found, _ = self.arrived(number, Silence(f"no answer for {TIMEOUT_MS} ms"), now)
            arrivals += found
        if self._token_due_at is not None and now >= self._token_due_at:
            return arrivals, self._fetch_token(now)
        return arrivals, []

    def next_at(self) -> int | None:
        times = [flight.sent_at + TIMEOUT_MS for flight in self._flights.values()]
        if self._token_due_at is not None:
            times.append(self._token_due_at)
        return min(times, default=None)

    def _is_of_token(self, refusal: Refusal) -> bool:
        if self._credentials is None:
            return False
        return refusal.code == UNAUTHENTICATED or (
            refusal.code == INVALID_ARGUMENT and _OLD_TOKEN in refusal.message
        )

    def _fetch_token(self, now: int) -> list[EtcdEffect]:
        if any(flight.role == "token" for flight in self._flights.values()):
            return []
        assert self._credentials is not None
        if self._token_due_at is not None and now < self._token_due_at:
            return []
        self._token_due_at = None
        return self.send("token", Authenticate(self._credentials.user, self._credentials.password), now)

    def _on_token(self, outcome: Outcome, now: int) -> list[EtcdEffect]:
        if not isinstance(outcome, Token):
            assert isinstance(outcome, Refusal)
            return [GiveUp(f"etcd refuses the user: {outcome.message}")]
        self.token = outcome.token
        waiting, self._waiting = self._waiting, []
        return [effect for role, request in waiting for effect in self.send(role, request, now)]
