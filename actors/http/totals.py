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


class _Known(Struct):
    incarnation: int
    counts: dict[Key, int]
    durations: dict[Key, Durations]
    source: tuple[ActorReport, int, int]
    """The report, restarts and hangs from which they are."""

    def shows(self, actor: SeenActor) -> bool:
        """Return True if the actor has counted nothing since."""
        report, restarts, hangs = self.source
        is_same = self.incarnation == actor.incarnation and report is actor.report
        return is_same and (restarts, hangs) == (actor.restarts, actor.hangs)


class Totals:
    def __init__(self, *, is_first: bool) -> None:
        """`is_first` if this is the first process of the broker's life that counts."""
        self._counts: dict[Key, int] = {}
        self.histograms: dict[Key, Histogram] = {}
        self._known: dict[Address, _Known] = {}
        self._is_baseline = not is_first

    def update(self, actors: Iterable[SeenActor]) -> None:
        known: dict[Address, _Known] = {}
        topics: set[str] = set()
        groups: set[str] = set()
        for actor in actors:
            if actor.topic is not None:
                topics.add(actor.topic)
            if actor.address.group is not None:
                groups.add(actor.address.group)
            before = self._known.get(actor.address)
            if before is not None and before.shows(actor):
                known[actor.address] = before
                continue
            source = (actor.report, actor.restarts, actor.hangs)
            now = _Known(actor.incarnation, dict(_counts_of(actor)), dict(_durations_of(actor)), source)
            self._add(now, before)
            if before is not None and not actor.report.counters:
                # It has not reported yet, or has ended: its last values are still the ones to compare with.
                now = _Known(before.incarnation, before.counts | now.counts, before.durations, source)
            known[actor.address] = now
        self._known, self._is_baseline = known, False
        self._forget(topics, groups)

    def samples(self) -> Samples:
        found: Samples = {}
        for (name, labels), count in self._counts.items():
            found[name, labels] = count / 1_000 if name.endswith("_seconds_total") else count
        return found

    def _add(self, now: _Known, before: _Known | None) -> None:
        is_same = before is not None and before.incarnation == now.incarnation
        for key, count in now.counts.items():
            # Counts of the supervisor outlive the incarnations of a child.
            outlives = key[0] in _OF_THE_SUPERVISOR
            earlier = before.counts.get(key, 0) if before is not None and (is_same or outlives) else 0
            added = 0 if self._is_baseline else max(0, count - earlier)
            self._counts[key] = self._counts.get(key, 0) + added
        for key, durations in now.durations.items():
            sums = self.histograms.get(key)
            if sums is None:
                sums = self.histograms[key] = Histogram(durations.bounds_us, [0] * len(durations.counts))
            if self._is_baseline:
                continue
            last = before.durations.get(key) if before is not None and is_same else None
            if last is None:
                sums.counts = [a + b for a, b in zip(sums.counts, durations.counts, strict=True)]
                sums.total_us += durations.total_us
            elif last.counts != durations.counts:
                sums.counts = [
                    a + b - c for a, b, c in zip(sums.counts, durations.counts, last.counts, strict=True)
                ]
                sums.total_us += durations.total_us - last.total_us

    def _forget(self, topics: set[str], groups: set[str]) -> None:
        """Forget the sums of topics and groups that are gone: programs may make any number of them."""
        for key in list(self._counts):
            name, labels = key
            is_gone = name in _BY_TOPIC and labels[0] not in topics
            if is_gone or (name in _BY_GROUP and labels[0] not in groups):
                del self._counts[key]


_BY_TOPIC = frozenset(TOPIC_COUNTERS.values())
_BY_GROUP = frozenset({"planaria_retries_total", "planaria_dead_letters_total"})
_OF_THE_SUPERVISOR = ("planaria_actor_restarts_total", "planaria_actor_hang_kills_total")


def _counts_of(actor: SeenActor) -> Iterator[tuple[Key, int]]:
    kind, report, topic = actor.address.kind, actor.report, actor.topic
    yield (_OF_THE_SUPERVISOR[0], (kind,)), actor.restarts
    yield (_OF_THE_SUPERVISOR[1], (kind,)), actor.hangs
    for name, count in report.counters.items():
        if name in ACTOR_COUNTERS:
            yield (ACTOR_COUNTERS[name], (kind,)), count
        elif name in TOPIC_COUNTERS and topic is not None:
            yield (TOPIC_COUNTERS[name], (topic,)), count
        elif name in BROKER_COUNTERS:
            yield (BROKER_COUNTERS[name], ()), count
        elif name == "retries" and actor.address.group is not None:
            yield ("planaria_retries_total", (actor.address.group,)), count
        elif name.startswith("dead_letters:") and actor.address.group is not None:
            reason = name.partition(":")[2]
            yield ("planaria_dead_letters_total", (actor.address.group, reason)), count
        elif name.startswith("transactions:"):
            yield ("planaria_transactions_total", (name.partition(":")[2],)), count
    for op, outcomes in report.requests.items():
        for outcome, count in outcomes.items():
            yield ("planaria_requests_total", (kind, op, outcome)), count


def _durations_of(actor: SeenActor) -> Iterator[tuple[Key, Durations]]:
    kind, report = actor.address.kind, actor.report
    if any(report.syncs.counts):
        yield ("planaria_fsync_seconds", (kind,)), report.syncs
    if report.lateness.counts:
        yield ("planaria_delivery_lateness_seconds", ()), report.lateness
    for op, durations in report.latencies.items():
        yield ("planaria_request_seconds", (kind, op)), durations
