"""The metadata store in etcd: the machine, and the threads that perform its effects. Impure and thin.

etcd 3.5.9 or later is asked for, and 3.4 works. Nothing is read or written outside of the store's prefix.
"""

import select
import ssl
from collections.abc import Callable
from typing import assert_never

from msgspec import Struct

from ....transport.protocol.errors import DependencyUnavailable, OperatorNeeded
from ..store import Propose, State, StoreEvent
from .connections import Connections, Endpoint, now_ms
from .effects import (
    CloseWatch,
    Closing,
    Deliver,
    EtcdEffect,
    EtcdEvent,
    GiveUp,
    Opened,
    OpenWatch,
    Proposed,
    Replied,
    Send,
    WakeAt,
)
from .machine import SESSION_TTL_MS, EtcdMachine
from .wire import TIMEOUT_MS, Credentials, Tls

DEFAULT_PORT = 2379
LOAD_TIMEOUT_MS = 20_000
PROGRESS_MS = 200


class StoreUnavailable(DependencyUnavailable):
    """The store did not answer in time at the start."""


class EtcdRefused(OperatorNeeded):
    """etcd refuses the user, or does not permit to read the store's keys."""


class EtcdConfig(Struct, frozen=True, kw_only=True):
    endpoints: tuple[Endpoint, ...]
    """Any of the members, at least one; the more, the better."""
    cluster: str
    """The name of the cluster: the keys are under `/planaria/<cluster>/`."""
    name: str
    """The name of this user of the store, unlike that of every other one at a time: the node's id."""
    credentials: Credentials | None = None
    tls: Tls | None = None
    session_ttl_ms: int = SESSION_TTL_MS


class EtcdStore:
    def __init__(self, config: EtcdConfig, life: str) -> None:
        """Create the store. `life` is a random text, another one for each process."""
        self._config = config
        self._machine = EtcdMachine(
            endpoints=len(config.endpoints),
            prefix=f"/planaria/{config.cluster}/",
            name=config.name,
            life=life,
            credentials=config.credentials,
            session_ttl_ms=config.session_ttl_ms,
        )
        self._connections = Connections(list(config.endpoints), _context(config.tls))
        self._events: list[StoreEvent] = []
        self._refusal: str | None = None

    @property
    def descriptor(self) -> int | None:
        return self._connections.fileno()

    def load(self, progress: Callable[[], None]) -> State:
        """Return everything under the prefix. Raises StoreUnavailable and EtcdRefused, in one line each."""
        ends_at = now_ms() + LOAD_TIMEOUT_MS
        self._handle(Opened())
        while True:
            self._work()
            for number, event in enumerate(self._events):
                if isinstance(event, State):
                    del self._events[number]
                    return event
            if now_ms() >= ends_at:
                raise StoreUnavailable(self._why_unavailable())
            progress()
            select.select([self._connections.fileno()], [], [], PROGRESS_MS / 1_000)

    def _why_unavailable(self) -> str:
        names = ", ".join(f"{host}:{port}" for host, port in self._config.endpoints)
        why = self._machine.last_failure
        return f"etcd does not answer at {names}: start it, or correct --cluster; the last failure: {why}"

    def propose(self, proposal: Propose) -> None:
        self._handle(Proposed(proposal))

    def settle(self) -> list[StoreEvent]:
        """Return the events so far. Raises EtcdRefused."""
        self._work()
        events, self._events = self._events, []
        return events

    def _work(self) -> None:
        for event in self._connections.take():
            self._handle(event)
        if self._refusal is not None:
            raise EtcdRefused(self._refusal)

    def alarms(self) -> tuple[str, ...]:
        return self._machine.alarms(now_ms())

    def close(self) -> None:
        """End the session, for which etcd has one request's time."""
        effects = self._machine.handle(Closing(), now_ms())
        revoking = [effect for effect in effects if isinstance(effect, Send)]
        self._perform(effects)
        if revoking:
            self._wait_for(revoking[-1].number)
        self._connections.close()

    def _wait_for(self, number: int) -> None:
        ends_at = now_ms() + TIMEOUT_MS
        while (left_ms := ends_at - now_ms()) > 0:
            select.select([self._connections.fileno()], [], [], left_ms / 1_000)
            replied = [event for event in self._connections.take() if isinstance(event, Replied)]
            if any(event.number == number for event in replied):
                return

    def _handle(self, event: EtcdEvent) -> None:
        self._perform(self._machine.handle(event, now_ms()))

    def _perform(self, effects: list[EtcdEffect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._connections.send(effect)
                case OpenWatch():
                    self._connections.open_watch(effect)
                case CloseWatch(number=number):
                    self._connections.close_watch(number)
                case WakeAt(at=at):
                    self._connections.wake_at(at)
                case Deliver(event=event):
                    self._events.append(event)
                case GiveUp(message=message):
                    self._refusal = message
                case _:
                    assert_never(effect)


def _context(tls: Tls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
