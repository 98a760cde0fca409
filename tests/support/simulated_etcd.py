"""An etcd in memory with a bad network, for the client's machine; deterministic for a seed.

`Etcd` is the state on which its members agree: keys, revisions, history, leases. `SimulatedEtcd` puts it behind
endpoints that lose, delay and repeat requests and answers, refuse connections, freeze, and delay, break or silence
watches.
`SimulatedStore` is the product's client over it, whole but for its threads. Another simulator can embed them: it
supplies the clock and `schedule`.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from planaria.actors.metadata.etcd.connections import Endpoint
from planaria.actors.metadata.etcd.effects import (
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
    WatchSaid,
    Woken,
)
from planaria.actors.metadata.etcd.machine import EtcdMachine
from planaria.actors.metadata.etcd.requests import (
    OUT_OF_RANGE,
    Done,
    Found,
    GrantLease,
    KeepLease,
    Lease,
    Outcome,
    Pair,
    Range,
    Refusal,
    Request,
    RevokeLease,
    Silence,
    Transact,
    Transacted,
    WatchBegan,
    WatchEnded,
    WatchEvent,
    WatchEvents,
    WatchMessage,
    Write,
)
from planaria.actors.metadata.store import Propose, State, StoreEvent

NOT_FOUND = 5
UNAVAILABLE = 14
ENDPOINTS = [Endpoint("member", number) for number in range(3)]


MAX_STEPS = 10_000


class SimulatedTime:
    """A clock with a queue of coming events; for simulations that have none of their own."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._steps = 0
        """Steps since the clock has moved."""

    def schedule(self, delay_ms: int, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._number, happen))

    def step(self) -> bool:
        """Let the next thing happen. False: nothing is left."""
        if not self._queue:
            return False
        at, _, happen = heapq.heappop(self._queue)
        self._steps = 0 if at > self.now else self._steps + 1
        assert self._steps < MAX_STEPS, "time stands still"
        self.now = max(self.now, at)
        happen()
        return True

    def advance(self, milliseconds: int) -> None:
        until = self.now + milliseconds
        while self._queue and self._queue[0][0] <= until:
            self.step()
        self.now = until


class Etcd:
    """The state on which the members agree. Every request takes effect at one moment."""

    def __init__(self) -> None:
        self.cluster_id = 1
        self.revision = 1
        self.compacted = 0
        self.pairs: dict[bytes, Pair] = {}
        self.history: list[tuple[int, tuple[WatchEvent, ...]]] = []
        self.leases: dict[int, tuple[int, int]] = {}
        """Time to live in ms, and the time of expiry, by id."""
        self._last_lease = 0
        self.on_change: Callable[[], None] = lambda: None

    def snapshot(self) -> tuple[int, dict[bytes, Pair], list[tuple[int, tuple[WatchEvent, ...]]]]:
        return self.revision, dict(self.pairs), list(self.history)

    def restore(self, snapshot: tuple[int, dict[bytes, Pair], list[Any]]) -> None:
        """Go back to a backup: revisions are given out again, leases of the meantime are unknown."""
        revision, pairs, history = snapshot
        self.revision, self.pairs, self.history = revision, dict(pairs), list(history)
        self.leases = {}
        self._write(tuple(Write(pair.key, None) for pair in pairs.values() if pair.lease))

    def execute(self, request: Request, now: int) -> Outcome:
        match request:
            case Range():
                return self._range(request)
            case Transact():
                return self._transact(request)
            case GrantLease(ttl_s=ttl_s):
                self._last_lease += 1
                self.leases[self._last_lease] = (ttl_s * 1_000, now + ttl_s * 1_000)
                return Lease(self._last_lease, ttl_s)
            case KeepLease(lease=lease):
                if lease not in self.leases:
                    return Lease(lease, 0)
                ttl_ms = self.leases[lease][0]
                self.leases[lease] = (ttl_ms, now + ttl_ms)
                return Lease(lease, ttl_ms // 1_000)
            case RevokeLease(lease=lease):
                if lease not in self.leases:
                    return Refusal(NOT_FOUND, "requested lease not found")
                self.end_lease(lease)
                return Done()
        raise AssertionError(request)

    def end_lease(self, lease: int) -> None:
        del self.leases[lease]
        self._write(tuple(Write(pair.key, None) for pair in self.pairs.values() if pair.lease == lease))

    def _range(self, request: Range) -> Outcome:
        if request.revision and (request.revision <= self.compacted):
            return Refusal(OUT_OF_RANGE, "required revision has been compacted")
        pairs = self.pairs if not request.revision else self.at(request.revision)
        inside = [
            pairs[key] for key in sorted(pairs) if request.key <= key < (request.end or request.key + b"\0")
        ]
        found = [pair for pair in inside if pair.modified >= request.modified_since]
        limited = found[: request.limit] if request.limit else found
        return Found(self.revision, self.cluster_id, tuple(limited), len(inside), len(found) > len(limited))

    def at(self, revision: int) -> dict[bytes, Pair]:
        """Return the pairs as they were at a revision."""
        pairs: dict[bytes, Pair] = {}
        for each, events in self.history:
            if each <= revision:
                for event in events:
                    _apply(pairs, event)
        return pairs

    def _transact(self, request: Transact) -> Outcome:
        for compare in request.compares:
            pair = self.pairs.get(compare.key)
            found = 0 if pair is None else (pair.created if compare.of_creation else pair.modified)
            if found != compare.revision:
                pairs = tuple(self.pairs[key] for key in request.otherwise if key in self.pairs)
                return Transacted(self.revision, False, pairs)
        if any(write.lease and write.lease not in self.leases for write in request.writes):
            return Refusal(NOT_FOUND, "requested lease not found")
        self._write(request.writes)
        return Transacted(self.revision, True)

    def _write(self, writes: tuple[Write, ...]) -> None:
        effective = [write for write in writes if write.value is not None or write.key in self.pairs]
        if not effective:
            return
        self.revision += 1
        events = tuple(WatchEvent(each.key, each.value, self.revision, each.lease) for each in effective)
        for event in events:
            _apply(self.pairs, event)
        self.history.append((self.revision, events))
        self.on_change()


def _apply(pairs: dict[bytes, Pair], event: WatchEvent) -> None:
    if event.value is None:
        pairs.pop(event.key, None)
        return
    before = pairs.get(event.key)
    created = event.revision if before is None else before.created
    pairs[event.key] = Pair(event.key, event.value, created, event.revision, event.lease)


@dataclass
class Faults:
    """Probabilities, for each request or message."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    late_request: float = 0.0
    """It takes effect up to LATE_MS later."""
    repeated_request: float = 0.0
    repeated_answer: float = 0.0
    refused: float = 0.0
    """The connection is refused, or the member says that it is unavailable."""
    broken_watch: float = 0.0
    late_watch: float = 0.0
    silent_watch: float = 0.0


LATE_MS = 4_000
STORM = Faults(0.08, 0.08, 0.08, 0.08, 0.05, 0.08, 0.05, 0.1, 0.02)


@dataclass
class _Watch:
    order: OpenWatch
    tell: Callable[[WatchMessage], None]
    next_revision: int
    is_silent: bool = False
    is_open: bool = True
    delivered: list[int] = field(default_factory=list)
    free_at: int = 0
    """The time before which no message arrives, so that none overtakes another."""


class SimulatedEtcd:
    def __init__(
        self,
        schedule: Callable[[int, Callable[[], None]], None],
        now: Callable[[], int],
        draw: random.Random,
        faults: Faults | None = None,
    ) -> None:
        self.etcd = Etcd()
        self.etcd.on_change = self._on_change
        self.faults = faults or Faults()
        self.frozen: set[int] = set()
        self.down: set[int] = set()
        self._held: list[tuple[int, Callable[[], None]]] = []
        """Work of frozen members, done when they go on."""
        self._schedule = schedule
        self._now = now
        self._draw = draw
        self._watches: list[_Watch] = []
        self._restores = 0
        self._expire()

    @property
    def now(self) -> int:
        return self._now()

    def wake_at(self, at: int, wake: Callable[[], None]) -> None:
        self._schedule(max(0, at - self.now), wake)

    def heal(self) -> None:
        self.faults = Faults()
        self.down.clear()
        self.frozen.clear()
        held, self._held = self._held, []
        for _, happen in held:
            happen()
        for watch in self._watches:
            watch.is_silent = False
        self._on_change()

    def freeze(self, endpoint: int) -> None:
        self.frozen.add(endpoint)

    def thaw(self, endpoint: int) -> None:
        self.frozen.discard(endpoint)
        held = [happen for each, happen in self._held if each == endpoint]
        self._held = [(each, happen) for each, happen in self._held if each != endpoint]
        for happen in held:
            happen()
        self._on_change()

    def kill(self, endpoint: int) -> None:
        self.down.add(endpoint)
        self._held = [(each, happen) for each, happen in self._held if each != endpoint]
        for watch in list(self._watches):
            if watch.order.endpoint == endpoint:
                self._end(watch, "connection reset")

    def restart(self, endpoint: int) -> None:
        self.down.discard(endpoint)

    def compact(self) -> None:
        self.etcd.compacted = self.etcd.revision - 1

    def restore(self, snapshot: Any) -> None:
        """Restore a backup. All members are stopped for it, so requests on their way are lost."""
        self._restores += 1
        self._held = []
        for watch in list(self._watches):
            self._end(watch, "connection reset")
        self.etcd.restore(snapshot)

    # Requests.

    def perform(self, order: Send, answer: Callable[[Outcome], None]) -> None:
        if order.endpoint in self.down or self._happens(self.faults.refused):
            self._later(1, lambda: answer(Silence("connection refused", was_sent=False)))
            return
        if self._happens(self.faults.lost_request):
            return
        copies = 2 if self._happens(self.faults.repeated_request) else 1
        restores = self._restores
        for _ in range(copies):
            delay_ms = self._draw.randint(0, LATE_MS) if self._happens(self.faults.late_request) else 2
            self._later(delay_ms, lambda: self._arrive(order, answer, restores))

    def _arrive(self, order: Send, answer: Callable[[Outcome], None], restores: int) -> None:
        if restores != self._restores:
            return
        if order.endpoint in self.frozen:
            self._held.append((order.endpoint, lambda: self._arrive(order, answer, restores)))
            return
        if order.endpoint in self.down:
            self._later(1, lambda: answer(Silence("connection reset")))
            return
        outcome = self.etcd.execute(order.request, self.now)
        if self._happens(self.faults.refused):
            outcome = Refusal(UNAVAILABLE, "etcdserver: request timed out")
        if self._happens(self.faults.lost_answer):
            return
        for _ in range(2 if self._happens(self.faults.repeated_answer) else 1):
            self._later(2, lambda: answer(outcome))

    # Watches.

    def open_watch(self, order: OpenWatch, tell: Callable[[WatchMessage], None]) -> None:
        watch = _Watch(order, tell, order.start_revision, self._happens(self.faults.silent_watch))
        self._watches.append(watch)
        if order.endpoint in self.down:
            self._end(watch, "connection refused")
            return
        if order.start_revision <= self.etcd.compacted:
            self._end(watch, "compacted", is_compacted=True)
            return
        self._tell(watch, WatchBegan())
        self._on_change()

    def close_watch(self, tell: Callable[[WatchMessage], None]) -> None:
        for watch in self._watches:
            if watch.tell == tell:
                watch.is_open = False
        self._watches = [watch for watch in self._watches if watch.is_open]

    def _on_change(self) -> None:
        for watch in list(self._watches):
            if watch.is_silent or watch.order.endpoint in self.frozen:
                continue
            if self._happens(self.faults.broken_watch):
                self._end(watch, "connection reset")
                continue
            for revision, events in self.etcd.history:
                if revision >= watch.next_revision:
                    watch.next_revision = revision + 1
                    order = watch.order
                    inside = tuple(event for event in events if order.key <= event.key < order.end)
                    if inside:
                        self._tell(watch, WatchEvents(inside))

    def _end(self, watch: _Watch, reason: str, is_compacted: bool = False) -> None:
        self._watches.remove(watch)
        self._tell(watch, WatchEnded(reason, is_compacted))

    def _tell(self, watch: _Watch, message: WatchMessage) -> None:
        delay_ms = self._draw.randint(0, LATE_MS) if self._happens(self.faults.late_watch) else 2
        watch.free_at = max(watch.free_at, self.now + delay_ms)
        self._later(watch.free_at - self.now, lambda: watch.tell(message) if watch.is_open else None)

    # Time.

    def _expire(self) -> None:
        for lease, (_, expires_at) in list(self.etcd.leases.items()):
            if self.now > expires_at:
                self.etcd.end_lease(lease)
        self._later(100, self._expire)

    def _later(self, delay_ms: int, happen: Callable[[], Any]) -> None:
        self._schedule(delay_ms, happen)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._draw.random() < probability


class SimulatedStore:
    """The product's client of etcd, over a simulated one. `step` lets time pass while `load` waits."""

    def __init__(
        self, world: SimulatedEtcd, step: Callable[[], object], name: str, life: str, cluster: str = "c"
    ) -> None:
        self.machine = EtcdMachine(
            endpoints=len(ENDPOINTS), prefix=f"/planaria/{cluster}/", name=name, life=life
        )
        self._world = world
        self._step = step
        self._events: list[StoreEvent] = []
        self._tells: dict[int, Callable[[WatchMessage], None]] = {}
        self._wake_at: int | None = None
        self.is_dead = False

    @property
    def descriptor(self) -> int | None:
        return None

    def open(self) -> None:
        self.handle(Opened())

    def load(self, progress: Callable[[], None]) -> State:
        self.open()
        while True:
            for number, event in enumerate(self._events):
                if isinstance(event, State):
                    del self._events[number]
                    return event
            self._step()

    def propose(self, proposal: Propose) -> None:
        self.handle(Proposed(proposal))

    def settle(self) -> list[StoreEvent]:
        events, self._events = self._events, []
        return events

    def alarms(self) -> tuple[str, ...]:
        return self.machine.alarms(self._world.now)

    def close(self) -> None:
        self.handle(Closing())
        for _ in range(1_000):
            if not self._world.etcd.leases or not self._step():
                break
        self.die()

    def die(self) -> None:
        """End as a killed process does."""
        self.is_dead = True
        for tell in self._tells.values():
            self._world.close_watch(tell)

    def handle(self, event: EtcdEvent) -> None:
        if self.is_dead:
            return
        for effect in self.machine.handle(event, self._world.now):
            self._perform(effect)

    def _perform(self, effect: EtcdEffect) -> None:
        match effect:
            case Send(number=number):
                self._world.perform(effect, lambda outcome: self.handle(Replied(number, outcome)))
            case OpenWatch(number=number):
                self._tells[number] = self._teller(number)
                self._world.open_watch(effect, self._tells[number])
            case CloseWatch(number=number):
                self._world.close_watch(self._tells.pop(number))
            case WakeAt(at=at):
                self._wake_at = at
                self._world.wake_at(at, lambda: self._wake(at))
            case Deliver(event=event):
                self._events.append(event)
            case GiveUp(message=message):
                raise AssertionError(message)

    def _teller(self, number: int) -> Callable[[WatchMessage], None]:
        return lambda message: self.handle(WatchSaid(number, message))

    def _wake(self, at: int) -> None:
        if at == self._wake_at:
            self.handle(Woken())
