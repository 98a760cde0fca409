"""The figures of `planaria top`: rates from two reports of each process, sums by topic, lag by group. Pure.

A process reports with its heartbeats, so a rate is that of the time between two of its reports, and stays until the next
one comes. A process that was started again begins again: its first report counts from its start.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

from ...transport.addresses import Address, Kind, partition_address
from ...transport.client.descriptions import ActorStatus, BrokerStatus

Sort = Literal["in", "out", "bytes", "lag", "size", "restarts", "name"]
SORTS: tuple[Sort, ...] = get_args(Sort)
COUNTERS = ("messages_in", "messages_out", "bytes_in", "bytes_out")


class Rates(Struct):
    """Rates per second."""

    messages_in: float = 0.0
    messages_out: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0

    def add(self, other: "Rates") -> None:
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


class TopicFigures(Struct, kw_only=True):
    topic: str
    partitions: int = 0
    rates: Rates
    size_bytes: int = 0
    lag: int = 0
    """The lag of the group that is farthest behind in the topic."""
    restarts: int = 0


class GroupFigures(Struct, kw_only=True):
    group: str
    type: str
    state: str
    members: int
    lag: int


class ProcessFigures(Struct, kw_only=True):
    address: str
    state: str
    restarts: int
    memory_bytes: int
    reason: str | None
    since_death_ms: int | None


class Figures(Struct, kw_only=True):
    uptime_ms: int
    processes: int
    ready: int
    restarts: int
    memory_bytes: int
    rates: Rates
    topics: list[TopicFigures]
    groups: list[GroupFigures]
    troubled: list[ProcessFigures]
    """Processes that are not ready, then those that have died, the latest first."""
    alarms: list[str]


class _Sample(Struct):
    incarnation: int
    at_ms: int
    counters: dict[str, int]
    rates: Rates


class Meter:
    """Keeps the last report of each process."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def look(self, found: BrokerStatus, now_ms: int) -> Figures:
        """Return the figures of a status that was asked for at this time."""
        rates = {actor.address: self._rates_of(actor, now_ms) for actor in found.actors}
        self._samples = {address: self._samples[address] for address in rates if address in self._samples}
        partitions = [actor for actor in found.actors if Address.parse(actor.address).kind == Kind.PARTITION]
        topics = _topics(partitions, rates)
        total = Rates()
        for each in topics.values():
            total.add(each.rates)
        return Figures(
            uptime_ms=found.uptime_ms,
            processes=len(found.actors),
            ready=sum(actor.state in ("ready", "asleep") for actor in found.actors),
            restarts=sum(actor.restarts for actor in found.actors),
            memory_bytes=sum(actor.memory_bytes for actor in found.actors),
            rates=total,
            groups=_groups(found.actors, partitions, topics),
            topics=list(topics.values()),
            troubled=_troubled(found.actors),
            alarms=[f"{actor.address}: {alarm}" for actor in found.actors for alarm in actor.alarms],
        )

    def _rates_of(self, actor: ActorStatus, now_ms: int) -> Rates:
        if actor.report_age_ms is None:
            return Rates()
        at_ms = now_ms - actor.report_age_ms
        counters = {name: actor.counters.get(name, 0) for name in COUNTERS}
        before = self._samples.get(actor.address)
        rates = Rates()
        if before is not None and before.incarnation == actor.incarnation:
            passed_ms = at_ms - before.at_ms
            if passed_ms <= 0 or (passed_ms < 50 and counters == before.counters):
                return before.rates
            rates = Rates(
                **{
                    name: max(0, count - before.counters[name]) * 1000 / passed_ms
                    for name, count in counters.items()
                }
            )
        elif before is not None and actor.uptime_ms > 0:
            rates = Rates(**{name: count * 1000 / actor.uptime_ms for name, count in counters.items()})
        self._samples[actor.address] = _Sample(actor.incarnation, at_ms, counters, rates)
        return rates


def _topics(partitions: Iterable[ActorStatus], rates: dict[str, Rates]) -> dict[str, TopicFigures]:
    topics: dict[str, TopicFigures] = {}
    for actor in partitions:
        topic = Address.parse(actor.address).name
        found = topics.setdefault(topic, TopicFigures(topic=topic, rates=Rates()))
        found.partitions += 1
        found.restarts += actor.restarts
        found.rates.add(rates[actor.address])
        if actor.log is not None:
            found.size_bytes += actor.log.size_bytes
    return topics


def _groups(
    actors: Iterable[ActorStatus], partitions: Iterable[ActorStatus], topics: dict[str, TopicFigures]
) -> list[GroupFigures]:
    logs = {Address.parse(actor.address): actor.log for actor in partitions if actor.log is not None}
    found: list[GroupFigures] = []
    for actor in actors:
        if actor.group is None:
            continue
        total = 0
        by_topic: dict[str, int] = {}
        for position in actor.group.positions:
            log = logs.get(partition_address(position.topic, position.partition))
            if log is not None:
                unread = log.high_watermark - max(position.offset, log.log_start_offset) - position.done
                by_topic[position.topic] = by_topic.get(position.topic, 0) + max(0, unread)
        for topic, lag in by_topic.items():
            total += lag
            if topic in topics:
                topics[topic].lag = max(topics[topic].lag, lag)
        name, report = Address.parse(actor.address).name, actor.group
        state = "paused" if actor.paused is not None else report.state
        found.append(
            GroupFigures(group=name, type=report.type, state=state, members=report.members, lag=total)
        )
    return found


def _troubled(actors: Iterable[ActorStatus]) -> list[ProcessFigures]:
    chosen = [actor for actor in actors if actor.restarts or actor.state not in ("ready", "asleep")]
    chosen.sort(key=lambda actor: (actor.state in ("ready", "asleep"), actor.since_death_ms or 0))
    return [
        ProcessFigures(
            address=actor.address,
            state=actor.state,
            restarts=actor.restarts,
            memory_bytes=actor.memory_bytes,
            reason=actor.reason,
            since_death_ms=actor.since_death_ms,
        )
        for actor in chosen
    ]


def sorted_topics(topics: Iterable[TopicFigures], sort: Sort) -> list[TopicFigures]:
    """Return the topics, the largest first; by name, in its order."""
    by_name = sorted(topics, key=lambda each: each.topic)
    if sort == "name":
        return by_name
    keys = {
        "in": lambda each: each.rates.messages_in,
        "out": lambda each: each.rates.messages_out,
        "bytes": lambda each: each.rates.bytes_in + each.rates.bytes_out,
        "lag": lambda each: each.lag,
        "size": lambda each: each.size_bytes,
        "restarts": lambda each: each.restarts,
    }
    return sorted(by_name, key=keys[sort], reverse=True)


def sorted_groups(groups: Iterable[GroupFigures], sort: Sort) -> list[GroupFigures]:
    by_name = sorted(groups, key=lambda each: each.group)
    return by_name if sort == "name" else sorted(by_name, key=lambda each: each.lag, reverse=True)
