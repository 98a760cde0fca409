"""Counters of all actors, summed by label. A sum never falls when an actor dies. Pure.

Owns the last value of each actor's counters, and the sums of their increases since this process began. An actor that
restarts counts from zero; the difference to its last value is added, or its whole value in a new incarnation. Counts
that an actor made after the last look and before its death are lost.

The first process of a broker's life counts from the actors' starts. A later one begins at zero: Prometheus takes that
for a restart, while a sum without the actors that died before would look like one that is half as large. Called by
looks.py.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from ...transport.addresses import Address, Kind
from ...transport.protocol.operations import ActorReport, ActorState, Durations
from .families import Histogram, Labels, Samples

Key: TypeAlias = tuple[str, Labels]
ACTOR_COUNTERS = {
    "messages_in": "planaria_actor_messages_in_total",
    "bytes_in": "planaria_actor_bytes_in_total",
    "messages_out": "planaria_actor_messages_out_total",
    "bytes_out": "planaria_actor_bytes_out_total",
}
TOPIC_COUNTERS = {
    "records_in": "planaria_topic_records_in_total",
    "record_bytes_in": "planaria_topic_bytes_in_total",
    "records_out": "planaria_topic_records_out_total",
    "record_bytes_out": "planaria_topic_bytes_out_total",
    "records_copied": "planaria_replica_records_in_total",
    "record_bytes_copied": "planaria_replica_bytes_in_total",
    "backpressure_ms": "planaria_backpressure_seconds_total",
}
BROKER_COUNTERS = {
    "throttled_ms": "planaria_throttled_seconds_total",
    "refused_by_limits": "planaria_refused_by_limits_total",
    "leaderships": "planaria_leaders_elected_total",
}


class SeenActor(Struct, frozen=True, kw_only=True):
    """A child of the supervisor, with its report."""

    address: Address
    pid: int | None
    incarnation: int
    restarts: int
    hangs: int
    state: ActorState
    uptime_ms: int
    report: ActorReport

    @property
    def topic(self) -> str | None:
        """Topic of a partition or of a replica."""
        return self.address.name if self.address.kind in (Kind.PARTITION, Kind.REPLICA) else None


class _Cell(Struct):
    """A sum, shared by the actors that count for it."""

    value: int = 0


class _Known(Struct):
    """The counts of an actor at the last look."""

    incarnation: int
    shape: tuple[object, ...]
    """Names in its report. As long as they are the same, so are `keys` and `cells`."""
    keys: list[Key | None]
    """The metrics of `counts`, in the same order; None for a count of no metric."""
    cells: list[_Cell | None]
    """The sums of `keys`."""
    counts: list[int]
    durations: dict[Key, Durations]
    source: tuple[ActorReport, int, int]
    """The report, restarts and hangs from which they are."""

    def shows(self, actor: SeenActor) -> bool:
        """Return True if the actor has counted nothing since."""
        report, restarts, hangs = self.source
        is_same = self.incarnation == actor.incarnation and report is actor.report
        return is_same and (restarts, hangs) == (actor.restarts, actor.hangs)


class _Gathered(Struct):
    """Durations of all actors for one histogram, to be added at once."""

    new: list[Durations]
    old: list[Durations]


class Totals:
    def __init__(self, *, is_first: bool) -> None:
        """`is_first` if this is the first process of the broker's life that counts."""
        self._sums: dict[Key, _Cell] = {}
        self.histograms: dict[Key, Histogram] = {}
        self._known: dict[Address, _Known] = {}
        self._is_baseline = not is_first

    def update(self, actors: Iterable[SeenActor]) -> None:
        known: dict[Address, _Known] = {}
        topics: set[str] = set()
        groups: set[str] = set()
        gathered: dict[Key, _Gathered] = {}
        for actor in actors:
            address = actor.address
            if actor.topic is not None:
                topics.add(actor.topic)
            if address.group is not None:
                groups.add(address.group)
            before = self._known.get(address)
            if before is not None and before.shows(actor):
                known[address] = before
            else:
                known[address] = self._count(actor, before, gathered)
        for key, durations in gathered.items():
            self._add_durations(key, durations)
        self._known, self._is_baseline = known, False
        self._forget(topics, groups)

    def samples(self) -> Samples:
        found: Samples = {}
        for (name, labels), cell in self._sums.items():
            found[name, labels] = cell.value / 1_000 if name.endswith("_seconds_total") else cell.value
        return found

    def _count(self, actor: SeenActor, before: _Known | None, gathered: dict[Key, _Gathered]) -> _Known:
        """Add an actor's counts since `before`."""
        report = actor.report
        counts = [actor.restarts, actor.hangs, *report.counters.values()]
        for outcomes in report.requests.values():
            counts += outcomes.values()
        shape = _shape_of(report)
        is_same = before is not None and before.incarnation == actor.incarnation
        if before is not None and before.shape == shape:
            keys, cells = before.keys, before.cells
            # Counts of the supervisor, the first two, outlive the incarnations of a child.
            earlier = before.counts if is_same else [*before.counts[:2], *(0 for _ in counts[2:])]
        else:
            keys = list(_keys_of(actor))
            cells = [None if key is None else self._sums.setdefault(key, _Cell()) for key in keys]
            last = {} if before is None else dict(zip(before.keys, before.counts, strict=True))
            kept = keys if is_same else keys[:2]
            earlier = [*(last.get(key, 0) for key in kept), *(0 for _ in keys[len(kept) :])]
        if not self._is_baseline:
            for cell, count, less in zip(cells, counts, earlier, strict=True):
                if count > less and cell is not None:
                    cell.value += count - less
        durations = dict(_durations_of(actor))
        _gather(durations, before.durations if before is not None and is_same else {}, gathered)
        source = (report, actor.restarts, actor.hangs)
        if before is not None and not report.counters:
            # It has not reported yet, or has ended: its last values are still the ones to compare with.
            counts = [*counts[:2], *before.counts[2:]]
            return replace(before, counts=counts, source=source)
        return _Known(actor.incarnation, shape, keys, cells, counts, durations, source)

    def _add_durations(self, key: Key, gathered: _Gathered) -> None:
        sums = self.histograms.get(key)
        if sums is None:
            first = gathered.new[0]
            sums = self.histograms[key] = Histogram(first.bounds_us, [0] * len(first.counts))
        if self._is_baseline:
            return
        columns = zip(sums.counts, *(each.counts for each in gathered.new), strict=True)
        sums.counts = [sum(column) for column in columns]
        sums.total_us += sum(each.total_us for each in gathered.new)
        if gathered.old:
            less = (sum(column) for column in zip(*(each.counts for each in gathered.old), strict=True))
            sums.counts = [a - b for a, b in zip(sums.counts, less, strict=True)]
            sums.total_us -= sum(each.total_us for each in gathered.old)

    def _forget(self, topics: set[str], groups: set[str]) -> None:
        """Forget the sums of topics and groups that are gone: programs may make any number of them."""
        for key in list(self._sums):
            name, labels = key
            is_gone = name in _BY_TOPIC and labels[0] not in topics
            if is_gone or (name in _BY_GROUP and labels[0] not in groups):
                del self._sums[key]


_BY_TOPIC = frozenset(TOPIC_COUNTERS.values())
_BY_GROUP = frozenset({"planaria_retries_total", "planaria_dead_letters_total"})
_OF_THE_SUPERVISOR = ("planaria_actor_restarts_total", "planaria_actor_hang_kills_total")


def _shape_of(report: ActorReport) -> tuple[object, ...]:
    return (tuple(report.counters), *((op, *outcomes) for op, outcomes in report.requests.items()))


def _keys_of(actor: SeenActor) -> Iterator[Key | None]:
    """Yield the metrics of an actor's counts: of the supervisor, then those of `counters` and `requests` in order."""
    kind, report = actor.address.kind, actor.report
    for name in _OF_THE_SUPERVISOR:
        yield name, (kind,)
    for name in report.counters:
        yield _key_of(actor, name)
    for op, outcomes in report.requests.items():
        for outcome in outcomes:
            yield "planaria_requests_total", (kind, op, outcome)


def _key_of(actor: SeenActor, counter: str) -> Key | None:
    topic, group = actor.topic, actor.address.group
    name, _, rest = counter.partition(":")
    if counter in ACTOR_COUNTERS:
        return ACTOR_COUNTERS[counter], (actor.address.kind,)
    if counter in TOPIC_COUNTERS:
        return None if topic is None else (TOPIC_COUNTERS[counter], (topic,))
    if counter in BROKER_COUNTERS:
        return BROKER_COUNTERS[counter], ()
    if name == "transactions":
        return "planaria_transactions_total", (rest,)
    if group is None:
        return None
    if counter == "retries":
        return "planaria_retries_total", (group,)
    return ("planaria_dead_letters_total", (group, rest)) if name == "dead_letters" else None


def _durations_of(actor: SeenActor) -> Iterator[tuple[Key, Durations]]:
    kind, report = actor.address.kind, actor.report
    if any(report.syncs.counts):
        yield ("planaria_fsync_seconds", (kind,)), report.syncs
    if report.lateness.counts:
        yield ("planaria_delivery_lateness_seconds", ()), report.lateness
    for op, durations in report.latencies.items():
        yield ("planaria_request_seconds", (kind, op)), durations


def _gather(
    durations: dict[Key, Durations], last: dict[Key, Durations], gathered: dict[Key, _Gathered]
) -> None:
    """Gather the durations that have changed since the last look at the same incarnation."""
    for key, now in durations.items():
        before = last.get(key)
        if before is not None and before.counts == now.counts:
            continue
        found = gathered.get(key)
        if found is None:
            found = gathered[key] = _Gathered([], [])
        found.new.append(now)
        if before is not None:
            found.old.append(before)
