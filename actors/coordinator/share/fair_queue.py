"""The order in which a partition's records are delivered when a group looks at their keys. Pure.

Owns, for each record that is known and not done, its key, priority and expiry, and for each key its records in flight
and its tokens. Decides which records are next; partition.py has their states and reports every change (`note`).

    priority    a record of a higher priority is delivered first
    key         keys of one priority take turns; a key gets as many records a turn as its weight
    blocked     a key with `max_in_flight` records in flight, without tokens of its rate, or whose records are being
                collected (`coalesce`), takes no turn until that ends
    expired     a record whose time is over is returned as such, whatever its key

A key costs nothing while it is blocked, so a hundred thousand records of one cost each of the others one turn. Records
without a key take turns together as one key, which is never blocked.
"""

import heapq
from collections import deque
from collections.abc import Mapping

from msgspec import Struct

from .spans import Span, State

SWEEP_KEYS = 10_000
"""Keys from which on those are looked for that have only tokens."""


class KeyRules(Struct, frozen=True):
    """The limits of a group by key."""

    max_in_flight: int = 0
    """0: no limit."""
    rate: float = 0
    """Records a second, in bursts of a second's worth; 0: no limit."""
    weights: Mapping[str, int] = {}
    """Records a turn by key, as text; 1 for others."""
    is_coalescing: bool = False
    """Deliver the newest available record of a key; the older ones are done."""
    max_wait_ms: int = 0
    """With `is_coalescing`: time for which records of a key are collected."""


class Chosen(Struct):
    delivered: list[int]
    superseded: list[int]
    expired: list[int]


class _Key:
    __slots__ = (
        "blocked_until", "in_flight", "known", "name", "pending", "queued", "refilled_at", "since", "tokens", "turn",
        "weight",
    )  # fmt: skip

    def __init__(self, name: bytes | None, weight: int, tokens: float, now: int) -> None:
        self.name = name
        self.weight = weight
        self.tokens = tokens
        self.refilled_at = now
        self.pending: list[tuple[int, int]] = []
        """Heap of (minus priority, offset)."""
        self.in_flight = 0
        self.since = now
        """Arrival of the first pending record."""
        self.queued: int | None = None
        """The priority in whose turn order it is."""
        self.turn = 0
        """The number of its latest turn."""
        self.blocked_until: int | None = None
        """The time at which it is looked at again."""
        self.known = 0
        """Number of its records that are not done."""


class _Known:
    __slots__ = ("expires_ms", "is_pending", "is_taken", "key", "priority")

    def __init__(self, key: _Key, priority: int, expires_ms: int) -> None:
        self.key = key
        self.priority = priority
        self.expires_ms = expires_ms
        self.is_pending = False
        self.is_taken = False


class FairQueue:
    def __init__(self, rules: KeyRules, start: int) -> None:
        self.end = start
        """All records below are known."""
        self._rules = rules
        self._burst = max(1.0, rules.rate)
        self._keys: dict[bytes | None, _Key] = {}
        """Keys with records that are not done, and with a rate, those whose tokens are not full."""
        self._known: dict[int, _Known] = {}
        self._turns: dict[int, deque[tuple[_Key, int]]] = {}
        """By priority: the keys that have records and are not blocked, each with a number, void if not its latest."""
        self._blocked: list[tuple[int, int, _Key]] = []
        """Heap of keys that are free again at a time, with a number that makes entries comparable."""
        self._delayed: list[tuple[int, int]] = []
        """Heap of records that are available from a time on."""
        self._count = 0
        self._sweep_at = SWEEP_KEYS
        self._now = 0

    def __len__(self) -> int:
        return len(self._known)

    def add(
        self, offset: int, key: bytes | None, priority: int, expires_ms: int, ready_at: int, now: int
    ) -> None:
        """Add a record; `expires_ms` 0: never; `ready_at`: the time from which it is available."""
        self._now = now
        known = _Known(self._key(key, now), priority, expires_ms)
        known.key.known += 1
        self._known[offset] = known
        self._make_pending(offset, known, ready_at, now)

    def note(self, span: Span) -> None:
        """Follow a change of state of known records."""
        for offset in range(span.first, min(span.end, self.end)):
            known = self._known.get(offset)
            if known is None:
                continue
            if span.state == State.ACQUIRED:
                self._take(known)
                continue
            if known.is_taken:
                known.is_taken = False
                known.key.in_flight -= 1
            if span.state == State.AVAILABLE:
                self._make_pending(offset, known, span.until, self._now)
            else:
                self._drop(offset, known)

    def forget_outside(self, first: int, end: int) -> None:
        """Drop the records that are gone from the log."""
        for offset in [offset for offset in self._known if not first <= offset < end]:
            known = self._known[offset]
            known.key.in_flight -= known.is_taken
            self._drop(offset, known)
        self.end = max(first, min(self.end, end))

    def _drop(self, offset: int, known: _Known) -> None:
        del self._known[offset]
        known.key.known -= 1
        self._queue(known.key, self._now)

    def can_give(self, now: int) -> bool:
        self._wake(now)
        return any(self._turns.values())

    def next_due(self, now: int) -> int | None:
        """Return the next time at which a blocked key is free or a delayed record available."""
        times = [heap[0][0] for heap in (self._blocked, self._delayed) if heap]
        return min((at for at in times if at > now), default=None)

    def choose(self, limit: int, now: int, wall_ms: int) -> Chosen:
        """Take up to `limit` records, which are in flight then, and all that turn out not to be delivered."""
        self._wake(now)
        chosen = Chosen([], [], [])
        for priority in sorted(self._turns, reverse=True):
            turns = self._turns[priority]
            while turns and len(chosen.delivered) < limit:
                key, number = turns.popleft()
                if key.queued is None or key.turn != number:
                    continue  # it has moved to another priority
                key.queued = None
                self._serve(key, min(key.weight, limit - len(chosen.delivered)), chosen, now, wall_ms)
                self._queue(key, now)
        return chosen

    def _serve(self, key: _Key, limit: int, chosen: Chosen, now: int, wall_ms: int) -> None:
        served = 0
        while served < limit and key.pending and self._free_at(key, now) is None:
            _, offset = heapq.heappop(key.pending)
            known = self._known.get(offset)
            if known is None or not known.is_pending:
                continue
            known.is_pending = False
            if 0 < known.expires_ms <= wall_ms:
                chosen.expired.append(offset)
                continue
            if self._rules.is_coalescing and key.name is not None:
                offset, known = self._newest(key, offset, known, chosen)
            self._take(known)
            self._refill(key, now)
            key.tokens -= 1
            chosen.delivered.append(offset)
            served += 1

    def _newest(self, key: _Key, offset: int, known: _Known, chosen: Chosen) -> tuple[int, _Known]:
        while key.pending:
            _, other = heapq.heappop(key.pending)
            found = self._known.get(other)
            if found is None or not found.is_pending:
                continue
            found.is_pending = False
            older, offset, known = (offset, other, found) if other > offset else (other, offset, known)
            chosen.superseded.append(older)
        return offset, known

    def _take(self, known: _Known) -> None:
        known.is_pending = False
        if not known.is_taken:
            known.is_taken = True
            known.key.in_flight += 1

    def _make_pending(self, offset: int, known: _Known, ready_at: int, now: int) -> None:
        if ready_at > now:
            heapq.heappush(self._delayed, (ready_at, offset))
            self._queue(known.key, now)
            return
        key = known.key
        if not known.is_pending:
            known.is_pending = True
            if not key.pending:
                key.since = now
            heapq.heappush(key.pending, (-known.priority, offset))
        self._queue(key, now)

    def _wake(self, now: int) -> None:
        self._now = now
        while self._delayed and self._delayed[0][0] <= now:
            _, offset = heapq.heappop(self._delayed)
            known = self._known.get(offset)
            if known is not None and not known.is_taken:
                self._make_pending(offset, known, 0, now)
        while self._blocked and self._blocked[0][0] <= now:
            key = heapq.heappop(self._blocked)[2]
            key.blocked_until = None
            self._queue(key, now)

    def _queue(self, key: _Key, now: int) -> None:
        """Give a key its turn if it has records, or note when it is free; forget one that has nothing."""
        if not key.pending:
            self._forget_key(key, now)
            return
        free_at = self._free_at(key, now)
        if free_at is not None:
            if free_at > now and (key.blocked_until is None or free_at < key.blocked_until):
                key.blocked_until = free_at
                self._count += 1
                heapq.heappush(self._blocked, (free_at, self._count, key))
            return
        priority = -key.pending[0][0]
        if key.queued is None or key.queued < priority:
            key.queued = priority
            self._count += 1
            key.turn = self._count
            self._turns.setdefault(priority, deque()).append((key, key.turn))

    def _forget_key(self, key: _Key, now: int) -> None:
        """Forget a key without records, once its tokens are those of a new one."""
        if key.known or self._keys.get(key.name) is not key:
            return
        if self._rules.rate:
            self._refill(key, now)
            if key.tokens < self._burst:
                return
        del self._keys[key.name]

    def _free_at(self, key: _Key, now: int) -> int | None:
        """Return None if a record of the key may be delivered; otherwise the time of the next check, 0 if a record in
        flight has to end first."""
        rules = self._rules
        if key.name is None:
            return None
        if rules.max_in_flight and key.in_flight >= rules.max_in_flight:
            return 0
        if rules.is_coalescing and key.since + rules.max_wait_ms > now:
            return key.since + rules.max_wait_ms
        if rules.rate:
            self._refill(key, now)
            if key.tokens < 1:
                return now + max(1, int((1 - key.tokens) * 1000 / rules.rate + 1))
        return None

    def _refill(self, key: _Key, now: int) -> None:
        gained = (now - key.refilled_at) * self._rules.rate / 1000
        key.tokens = min(self._burst, key.tokens + gained)
        key.refilled_at = now

    def _key(self, name: bytes | None, now: int) -> _Key:
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= self._sweep_at:
                for each in list(self._keys.values()):
                    self._forget_key(each, now)
                self._sweep_at = max(SWEEP_KEYS, 2 * len(self._keys))
            weight = self._rules.weights.get(name.decode(errors="replace"), 1) if name is not None else 1
            key = self._keys[name] = _Key(name, weight, self._burst, now)
        return key
