"""The mirror of the cluster's keys: listed, then followed by a watch, and audited. Pure.

    listing --all pages--> State, if it differs --OpenWatch--> watching
    watching --events--> Changed
    watching --the watch ended--> watching again, from the revision after the mirror's
    watching --compacted, or audits find differences that the watch does not explain--> listing
    any --the store's history is another one--> listing --> State

A watch is a hint: it may be late without any bound, and it stays silent on a member that was cut off, or when the
store was restored and its revisions are lower than the one that the watch begins with. So every few seconds, and when a
watch has ended, an audit (`audit.py`) compares the mirror with a linearizable read.
"""

from collections.abc import Iterable

from ..entries import Entries
from ..store import Change, Changed, Delete, Entry, Put, State
from .audit import WRITERS, Audit, Verdict, continues, entry_of
from .effects import CloseWatch, Deliver, EtcdEffect, GiveUp, OpenWatch
from .requests import (
    PERMISSION_DENIED,
    Found,
    Pair,
    Range,
    Refusal,
    WatchEnded,
    WatchEvent,
    WatchEvents,
    WatchMessage,
)
from .wire import Arrival, Wire

PAGE = 1_000
AUDIT_MS = 3_000
SUSPICION_MS = 1_000
"""The delay before an audit that found a difference is repeated: the watch may be about to report it."""
MAX_SUSPICIONS = 5
"""Differences one after the other before everything is listed, even if the watch reports changes."""
REFUSED_MS = 1_000
"""The delay before a read that etcd refused is repeated."""
CATCH_UP_MS = 200
"""The time that the watch has to show a change of our own before everything is listed."""


class Following:
    def __init__(self, wire: Wire, prefix: str) -> None:
        self._wire = wire
        self._prefix = prefix.encode()
        self._end = _end_of(self._prefix)
        self._writers = self._prefix + WRITERS.encode()
        self.entries: Entries | None = None
        """The delivered state, with the proposers' keys; None before the first list."""
        self.restores = 0
        """How often the store was found to be another one, or to have gone back."""
        self._cluster_id = 0
        self._pages: list[Pair] | None = None
        """The pages of the list in progress; None while watching."""
        self._list_sent_at_revision = 0
        self._is_another = False
        """True if the store has turned out to be another one than the mirror's."""
        self._list_revision = 0
        self._is_asking = False
        self._audit = Audit(Entries())
        """The audit that was sent last."""
        self._is_counting = False
        """True for the second part of an audit: the number of keys, after the proposers' keys."""
        self._suspicions = 0
        """Audits one after the other that found a difference."""
        self._suspected_revision = 0
        """The mirror's revision when the first of them was sent."""
        self._watch = 0
        """The number of the open watch; 0: none."""
        self._watch_endpoint = 0
        self._last_watch = 0
        self._reopen_at: int | None = None
        self._audit_at: int | None = None
        self._expected = 0
        """A revision that the store has had; 0 once the mirror has it."""
        self._expected_by: int | None = None
        """The time from which the watch is not waited for."""
        self._is_list_after_expected = False
        """True if the list in progress must show that revision."""

    # Times.

    def next_at(self) -> int | None:
        expected_by = self._expected_by if self._pages is None else None
        times = [self._reopen_at, self._audit_at, expected_by]
        return min((at for at in times if at is not None), default=None)

    def on_due(self, now: int) -> list[EtcdEffect]:
        effects: list[EtcdEffect] = []
        if self._expected_by is not None and now >= self._expected_by and self._pages is None:
            effects += self._list(now)
        if self._reopen_at is not None and now >= self._reopen_at:
            self._reopen_at = None
            effects += self._open_watch()
        if self._audit_at is not None and now >= self._audit_at:
            effects += self._ask(now)
        return effects

    def expect(self, revision: int, now: int) -> list[EtcdEffect]:
        """Note that the store has had this revision."""
        if self.entries is not None and self.entries.revision < revision:
            self._expected = max(self._expected, revision)
            self._expected_by = now + CATCH_UP_MS
        return []

    def _met(self, revision: int) -> None:
        if revision >= self._expected:
            self._expected, self._expected_by = 0, None

    # Lists and audits.

    def open(self, now: int) -> list[EtcdEffect]:
        return self._list(now)

    def _list(self, now: int) -> list[EtcdEffect]:
        closed = self._close_watch()
        self._expected_by = self._reopen_at = None
        self._is_list_after_expected = self._expected > 0
        self._pages = []
        return [*closed, *self._ask(now)]

    def _list_another(self, now: int) -> list[EtcdEffect]:
        self._is_another = True
        return self._list(now)

    def _ask(self, now: int) -> list[EtcdEffect]:
        """Send the next page's request, or an audit."""
        if self._is_asking:
            return []
        self._is_asking = True
        self._audit_at = None
        if self._pages is None:
            assert self.entries is not None
            self._audit = Audit(self.entries)
            request = self._audit_request(self._audit)
        elif self._pages:
            request = Range(self._pages[-1].key + b"\0", self._end, PAGE, self._list_revision)
        else:
            self._list_sent_at_revision = self.entries.revision if self.entries is not None else 0
            request = Range(self._prefix, self._end, PAGE)
        return self._wire.send("following", request, now)

    def _audit_request(self, audit: Audit) -> Range:
        if self._is_counting:
            return Range(self._prefix, self._end, 1, modified_since=audit.revision + 1)
        return Range(self._writers, _end_of(self._writers))

    def on_arrival(self, arrival: Arrival, now: int) -> list[EtcdEffect]:
        self._is_asking = False
        request = arrival.flight.request
        assert isinstance(request, Range)
        is_audit = request.modified_since > 0 or request.key == self._writers
        match arrival.outcome:
            case Found() as found if is_audit:
                return self._on_audit(found, now)
            case Found() as found:
                return self._on_page(found, is_first=request.revision == 0, now=now)
            case Refusal(code=code, message=message) if code == PERMISSION_DENIED:
                return [GiveUp(f"etcd does not permit to read {self._prefix.decode()}: {message}")]
            case Refusal():
                if self._pages is not None:
                    self._pages = []  # most likely the revision of the pages was compacted
                self._audit_at = now + REFUSED_MS
            case _:
                self._audit_at = self._wire.retry_at(now)
        return []

    def _on_page(self, found: Found, is_first: bool, now: int) -> list[EtcdEffect]:
        if self._pages is None:
            return []
        if is_first:
            self._pages = []
            self._list_revision = found.revision
        self._pages += found.pairs
        if found.has_more:
            return self._ask(now)
        pairs, self._pages = self._pages, None
        self._audit_at = now + AUDIT_MS
        self._suspicions = 0
        delivered = self._replace(self._listed(pairs), found.cluster_id)
        if self._expected:
            self._expected_by = now + CATCH_UP_MS
        return [*delivered, *self._open_watch()]

    def _listed(self, pairs: Iterable[Pair]) -> Entries:
        return Entries(self._list_revision, {self._name(pair.key): entry_of(pair) for pair in pairs})

    def _replace(self, listed: Entries, cluster_id: int) -> list[EtcdEffect]:
        before, self.entries = self.entries, listed
        is_same_store = cluster_id == self._cluster_id
        self._cluster_id = cluster_id
        self._met(listed.revision)
        has_lost = self._expected > 0 and self._is_list_after_expected
        if has_lost:
            self._expected = 0
        if before is not None:
            went_back = has_lost or listed.revision < self._list_sent_at_revision
            if went_back or not is_same_store or self._is_another:
                self.restores += 1
                self._is_another = False
            elif listed.by_key == before.by_key:
                return []
        return [Deliver(State(listed.revision, _shown(listed.by_key)))]

    def _on_audit(self, found: Found, now: int) -> list[EtcdEffect]:
        if self._pages is not None:
            return self._ask(now)  # a list has begun meanwhile
        if found.cluster_id != self._cluster_id:
            return self._list_another(now)
        was_counting, self._is_counting = self._is_counting, False
        if was_counting:
            verdict = self._audit.of_count(found.count, len(found.pairs))
        else:
            pairs = {self._name(pair.key): entry_of(pair) for pair in found.pairs}
            verdict = self._audit.of_writers(found.revision, pairs)
        if verdict is Verdict.AGREES and not was_counting:
            self._is_counting = True
            return self._ask(now)
        if verdict is Verdict.AGREES:
            self._suspicions = 0
            self._audit_at = now + AUDIT_MS
            return []
        if self._suspicions == 0:
            self._suspected_revision = self._audit.revision
        self._suspicions += 1
        assert self.entries is not None
        is_still = self._suspicions > 1 and self.entries.revision == self._suspected_revision
        if verdict is Verdict.ANOTHER_HISTORY:
            return self._list_another(now)
        if is_still or self._suspicions >= MAX_SUSPICIONS:
            return self._list(now)
        self._audit_at = now + SUSPICION_MS
        return []

    # The watch.

    def on_answer_of(self, endpoint: int) -> list[EtcdEffect]:
        """Move the watch to the endpoint that answers, from one that has failed."""
        if self._watch and endpoint != self._watch_endpoint:
            return [*self._close_watch(), *self._open_watch()]
        return []

    def _open_watch(self) -> list[EtcdEffect]:
        if self._pages is not None or self._watch:
            return []
        assert self.entries is not None
        self._last_watch += 1
        self._watch, self._watch_endpoint = self._last_watch, self._wire.endpoint
        start = self.entries.revision + 1
        return [
            OpenWatch(self._watch, self._watch_endpoint, self._prefix, self._end, start, self._wire.token)
        ]

    def _close_watch(self) -> list[EtcdEffect]:
        watch, self._watch = self._watch, 0
        return [CloseWatch(watch)] if watch else []

    def on_watch(self, number: int, message: WatchMessage, now: int) -> list[EtcdEffect]:
        if number != self._watch:
            return []
        match message:
            case WatchEvents(events=events):
                return self._on_events(events, now)
            case WatchEnded(reason=reason, is_compacted=is_compacted):
                self._watch = 0
                if is_compacted:
                    return self._list(now)
                self._wire.endpoint_failed(self._watch_endpoint, reason)
                self._reopen_at = self._wire.retry_at(now)
                if not self._is_asking:
                    self._audit_at = self._reopen_at  # all members restart when a store is restored
        return []

    def _on_events(self, events: Iterable[WatchEvent], now: int) -> list[EtcdEffect]:
        assert self.entries is not None
        by_revision: dict[int, list[Change]] = {}
        for event in events:
            if event.revision > self.entries.revision:
                by_revision.setdefault(event.revision, []).append(self._change(event))
        effects: list[EtcdEffect] = []
        for revision, changes in sorted(by_revision.items()):
            if not all(continues(self.entries, change) for change in changes):
                return [*effects, *self._list_another(now)]
            self.entries.apply(revision, changes)
            effects.append(Deliver(Changed(revision, tuple(_visible(changes)))))
        self._met(self.entries.revision)
        return effects

    def _change(self, event: WatchEvent) -> Change:
        name = self._name(event.key)
        return Delete(name) if event.value is None else Put(name, event.value, event.lease != 0)

    def _name(self, key: bytes) -> str:
        return key[len(self._prefix) :].decode(errors="surrogateescape")


def _end_of(prefix: bytes) -> bytes:
    """Return the key after all that begin with `prefix`, as etcd wants the end of a range."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _visible(changes: Iterable[Change]) -> Iterable[Change]:
    return (change for change in changes if not change.key.startswith(WRITERS))


def _shown(by_key: dict[str, Entry]) -> dict[str, Entry]:
    return {key: entry for key, entry in by_key.items() if not key.startswith(WRITERS)}
