"""Proposals as transactions of etcd: one at a time, repeated until the outcome is certain or the time is over. Pure.

Each proposer has a key of its own, `writers/<name>`, whose value names its last proposal. Every transaction writes it,
guarded by its revision, so one of two copies of a transaction takes effect at most, and reading it tells which of this
proposer's transactions did:

    transaction --is done--> Applied
                --a guard fails, the key names this proposal--> Applied: an earlier copy was it
                --a guard fails, no copy may be on its way--> Rejected
                --a guard fails, an earlier copy may be on its way--> fence
                --the key names an earlier proposal of this life--> the same, with its new revision
                --the key names another life, an earlier copy may have been made--> Unknown
                --silence--> the same transaction again, which reads the key if a guard fails
    fence       a transaction that writes the proposer's key alone
                --is done--> Rejected: every earlier copy fails now
                --the key names this proposal--> Applied
    any         --GIVE_UP_MS are over--> Unknown, or NotApplied if it was never sent

Applied is delivered when the mirror shows its revision.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from ....transport.protocol.errors import ErrorBody, ErrorCode
from ..store import Applied, Change, NotApplied, Outcome, Propose, Put, Rejected, Unknown
from .audit import WRITERS, Signature, entry_of, signature_of
from .effects import Deliver, EtcdEffect
from .following import Following
from .requests import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    Compare,
    Pair,
    Refusal,
    Request,
    Silence,
    Transact,
    Transacted,
    Write,
)
from .session import Sessions
from .wire import Arrival, Wire

GIVE_UP_MS = 5_000

_DEFINITE: dict[int, ErrorCode] = {
    INVALID_ARGUMENT: ErrorCode.INVALID_REQUEST,
    PERMISSION_DENIED: ErrorCode.FORBIDDEN,
    RESOURCE_EXHAUSTED: ErrorCode.STORAGE_FULL,
    NOT_FOUND: ErrorCode.ACTOR_UNAVAILABLE,
}
_RETRIABLE = frozenset({RESOURCE_EXHAUSTED, NOT_FOUND})


class _Current:
    """The proposal that is being made."""

    def __init__(self, proposal: Propose, signature: Signature, ends_at: int) -> None:
        self.proposal = proposal
        self.signature = signature
        self.fence = Signature(signature.writer, -signature.number)
        self.ends_at = ends_at
        self.may_be_on_its_way = False
        """True if a copy was sent whose outcome is unknown."""
        self.is_fencing = False
        self.refusal: Rejected | None = None
        """The outcome to deliver when the fence stands."""


class Proposals:
    def __init__(
        self, wire: Wire, following: Following, session: Sessions, prefix: str, name: str, life: str
    ):
        self._wire = wire
        self._following = following
        self._session = session
        self._prefix = prefix
        self._name = WRITERS + name
        self._life = life
        self._queue: deque[tuple[Propose, int]] = deque()
        """Proposals with the times at which they are given up."""
        self._current: _Current | None = None
        self._is_asking = False
        self._asked: _Current | None = None
        """The proposal that the last request was for."""
        self._own_revision: int | None = None
        """The revision of the proposer's key; None until the mirror is there."""
        self._own_signature: Signature | None = None
        self._last_number = 0
        self._applied: deque[Applied] = deque()
        """Outcomes that wait for the mirror."""
        self._restores = 0
        self._retry_at: int | None = None

    def add(self, proposal: Propose, now: int) -> list[EtcdEffect]:
        self._queue.append((proposal, now + GIVE_UP_MS))
        return self.proceed(now)

    def next_at(self) -> int | None:
        times = [self._retry_at] if self._retry_at is not None else []
        if self._current is not None:
            times.append(self._current.ends_at)
        times += [ends_at for _, ends_at in self._queue]
        return min(times, default=None)

    def on_due(self, now: int) -> list[EtcdEffect]:
        effects: list[EtcdEffect] = []
        current = self._current
        if current is not None and now >= current.ends_at:
            is_certain = not (current.may_be_on_its_way or (self._is_asking and self._asked is current))
            number = current.proposal.number
            effects += self._end(self._not_answered(number) if is_certain else Unknown(number))
        while self._queue and now >= self._queue[0][1]:
            effects.append(Deliver(self._not_answered(self._queue.popleft()[0].number)))
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
        return effects + self.proceed(now)

    def _not_answered(self, number: int) -> NotApplied:
        message = f"the metadata store does not answer: {self._wire.last_failure}"
        return NotApplied(number, ErrorBody(ErrorCode.TIMED_OUT, message, True))

    def proceed(self, now: int) -> list[EtcdEffect]:
        """Deliver the outcomes that the mirror shows by now, and send the next transaction if none is in flight."""
        effects: list[EtcdEffect] = []
        entries = self._following.entries
        if entries is None:
            return effects
        if self._following.restores != self._restores:
            # The store was restored from a backup, possibly of before these.
            self._restores = self._following.restores
            effects += [Deliver(Unknown(applied.number)) for applied in self._applied]
            self._applied.clear()
        while self._applied and self._applied[0].revision <= entries.revision:
            effects.append(Deliver(self._applied.popleft()))
        if self._is_asking or self._retry_at is not None:
            return effects
        if self._current is None:
            effects += self._begin(now)
        if self._current is not None:
            self._is_asking = True
            self._asked = self._current
            effects += self._wire.send("proposals", self._request(self._current), now)
        return effects

    def _begin(self, now: int) -> list[EtcdEffect]:
        effects: list[EtcdEffect] = []
        while self._queue and self._current is None:
            proposal, ends_at = self._queue.popleft()
            if self._needs_session(proposal) and not self._session.lease:
                error = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "there is no session with etcd", True)
                effects.append(Deliver(NotApplied(proposal.number, error)))
                continue
            self._last_number += 1
            self._current = _Current(proposal, Signature(self._life, self._last_number), ends_at)
            if self._own_revision is None:
                assert self._following.entries is not None
                own = self._following.entries.by_key.get(self._name)
                self._own_revision = own.modified if own is not None else 0
                self._own_signature = signature_of(own.value) if own is not None else None
        return effects

    @staticmethod
    def _needs_session(proposal: Propose) -> bool:
        return any(isinstance(change, Put) and change.in_session for change in proposal.changes)

    def _request(self, current: _Current) -> Transact:
        assert self._own_revision is not None
        own_key = self._key(self._name)
        unchanged = Compare(own_key, self._own_revision)
        if current.is_fencing:
            return Transact((unchanged,), (self._sign(current.fence),), (own_key,))
        guards = current.proposal.guards
        compares = [Compare(self._key(each.key), each.revision, each.of_creation) for each in guards]
        writes = [self._write(change) for change in current.proposal.changes]
        return Transact(
            (unchanged, *compares),
            (*writes, self._sign(current.signature)),
            (own_key, *dict.fromkeys(compare.key for compare in compares)),
        )

    def _sign(self, signature: Signature) -> Write:
        return Write(self._key(self._name), msgspec.json.encode(signature.after(self._own_signature)))

    def _write(self, change: Change) -> Write:
        if isinstance(change, Put):
            lease = self._session.lease if change.in_session else 0
            return Write(self._key(change.key), change.value, lease)
        return Write(self._key(change.key), None)

    def _key(self, name: str) -> bytes:
        return (self._prefix + name).encode(errors="surrogateescape")

    # Answers.

    def on_arrival(self, arrival: Arrival, now: int) -> list[EtcdEffect]:
        self._is_asking = False
        match arrival.outcome:
            case Transacted() as done:
                effects = self._on_transacted(done, now)
            case Refusal() as refusal:
                effects = self._on_refused(arrival.flight.request, refusal, now)
            case Silence(was_sent=was_sent):
                if self._asked is not None and not self._asked.is_fencing:
                    self._asked.may_be_on_its_way |= was_sent
                self._retry_at = self._wire.retry_at(now)
                effects = []
            case _:
                raise AssertionError(arrival)
        return effects + self.proceed(now)

    def _on_transacted(self, done: Transacted, now: int) -> list[EtcdEffect]:
        own = next((pair for pair in done.found if pair.key == self._key(self._name)), None)
        before = self._own_revision
        signature = signature_of(own.value) if own is not None else None
        current = self._asked
        assert current is not None
        made = current.fence if current.is_fencing else current.signature
        self._own_revision = done.revision if done.is_done else (own.modified if own is not None else 0)
        self._own_signature = made if done.is_done else signature
        if current is not self._current:
            return []  # it was given up
        if current.is_fencing and (done.is_done or current.fence.is_same(signature)):
            return self._end(current.refusal)
        if done.is_done:
            return self._end_applied(current, done.revision, now)
        if own is not None and current.signature.is_same(signature):
            return self._end_applied(current, own.modified, now)
        if self._own_revision != before:
            return self._on_own_key_moved(current, signature, done, now)
        current.refusal = self._rejection(current, done)
        if current.may_be_on_its_way:
            current.is_fencing = True
            return []
        return self._end_rejected(current, done, now)

    def _on_own_key_moved(
        self, current: _Current, signature: Signature | None, done: Transacted, now: int
    ) -> list[EtcdEffect]:
        """Go on with the key's new revision: no earlier copy can take effect any more."""
        if current.may_be_on_its_way and (signature is None or signature.writer != self._life):
            # Another process of this name, or a restored store, may have hidden the trace of an earlier copy.
            return self._end(Unknown(current.proposal.number))
        current.may_be_on_its_way = False
        if current.is_fencing:
            return self._end(current.refusal)
        if self._hold(current, done.found):
            return []
        current.refusal = self._rejection(current, done)
        return self._end_rejected(current, done, now)

    def _hold(self, current: _Current, found: Iterable[Pair]) -> bool:
        entries = {pair.key: entry_of(pair) for pair in found}
        return all(guard.holds(entries.get(self._key(guard.key))) for guard in current.proposal.guards)

    def _rejection(self, current: _Current, done: Transacted) -> Rejected:
        pairs = {pair.key: pair for pair in done.found}
        keys = {guard.key for guard in current.proposal.guards}
        found = {key: entry_of(pairs[self._key(key)]) for key in keys if self._key(key) in pairs}
        return Rejected(current.proposal.number, done.revision, found)

    def _on_refused(self, request: Request, refusal: Refusal, now: int) -> list[EtcdEffect]:
        assert isinstance(request, Transact)
        current = self._current
        if current is None or current is not self._asked:
            return []
        effects: list[EtcdEffect] = []
        lease = max(write.lease for write in request.writes)
        if refusal.code == NOT_FOUND and lease:
            effects += self._session.lost(lease, now)
        if current.may_be_on_its_way or refusal.code not in _DEFINITE:
            self._retry_at = now + 200
            return effects
        code, retriable = _DEFINITE[refusal.code], refusal.code in _RETRIABLE
        error = ErrorBody(code, f"etcd: {refusal.message}", retriable)
        return [*effects, *self._end(NotApplied(current.proposal.number, error))]

    def _end_applied(self, current: _Current, revision: int, now: int) -> list[EtcdEffect]:
        self._current = None
        self._applied.append(Applied(current.proposal.number, revision))
        return self._following.expect(revision, now)

    def _end_rejected(self, current: _Current, done: Transacted, now: int) -> list[EtcdEffect]:
        newest = max((pair.modified for pair in done.found), default=0)
        return [*self._end(current.refusal), *self._following.expect(newest, now)]

    def _end(self, outcome: Outcome | None) -> list[EtcdEffect]:
        assert outcome is not None
        self._current = None
        return [Deliver(outcome)]
