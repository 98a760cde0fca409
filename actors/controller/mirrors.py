"""Mirrors: topics of other brokers that are copied here, and the processes that copy them. Pure.

    mirrors/<name>           the source, the patterns, a version that rises with each change
    topics/<topic>.mirror    rejoining (`rejoins.py`), following, faulted, sealed or promoted
                             (`transport/protocol/mirrored.py`)

A mirror's process runs on one node, which every controller computes from the live nodes alone (as for deployments). It
asks for everything that is stored: a topic to be made, a fault to be kept. Its figures are not stored.

    promote   every topic sealed, durably -> each partition names its fork -> promoted, durably, with the forks
              -> each partition leads again and has aborted the source's open transactions -> the requester is answered

A promotion that is interrupted by a crash goes on at the next start: the catalog names the topics that are sealed.
"""

from collections.abc import Callable, Iterable

import msgspec
from msgspec.structs import replace

from ...transport.addresses import Address, Kind, is_internal, mirror_address, partition_address
from ...transport.machine import Call, Reply, Sender
from ...transport.patterns import name_fault
from ...transport.protocol.control import ChildSpec
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.protocol.mirrored import Fork, TopicMirror
from ...transport.protocol.mirrors import (
    MAX_MIRRORS,
    ChangeMirror,
    CreateMirror,
    FaultTopic,
    ListMirrors,
    ListMirrorsReply,
    Mirror,
    MirroredTopic,
    MirrorReport,
    MirrorTopic,
    PromotedTopic,
    PromoteMirror,
    PromoteMirrorReply,
    PromotePartition,
    PromotePartitionReply,
    RejoinTopic,
    ReportMirror,
    SealMirror,
    SealMirrorReply,
)
from ..metadata.store import Delete
from .catalog import Catalog, TopicEntry, put
from .child_commands import ChildCommands
from .children import MIRROR_ENTRY
from .decisions import Decisions, FollowUp
from .deployments import Deployments, Nodes, placed_one
from .effects import Effect
from .keys import MirrorCall
from .names import check_topic_name
from .rejoins import Rejoins, with_topic_mirror
from .topics import Topics

ATTEMPT_MS = 5_000


class Mirrors:
    def __init__(
        self, decisions: Decisions, topics: Topics, nodes: Callable[[], Nodes], deployments: Deployments
    ) -> None:
        self._deployments = deployments
        self._decisions = decisions
        self._topics = topics
        self._nodes = nodes
        self._rejoins = Rejoins(decisions, topics, nodes)
        self.commands = ChildCommands()
        self._running: dict[Address, ChildSpec] = {}
        self._reports: dict[str, MirrorReport] = {}
        self._forks: dict[str, dict[int, Fork]] = {}
        """By topic that is being promoted, the forks so far."""
        self._leading: dict[str, set[int]] = {}
        """By promoted topic, the partitions that do not lead again yet."""
        self._promotions: list[tuple[Sender, set[str], list[str]]] = []
        """Requesters, the topics that each waits for, and all that it asked for."""

    # -- requests

    def on_request(self, sender: Sender, request: Request, now: int) -> list[Effect]:
        match request:
            case CreateMirror():
                return self._on_create(sender, request)
            case ChangeMirror():
                return self._on_change(sender, request)
            case ListMirrors():
                found = sorted(self._decisions.durable.mirrors)
                return [Reply(sender, ListMirrorsReply(mirrors=[self._report_of(name) for name in found]))]
            case PromoteMirror():
                return self._on_promote(sender, request)
            case MirrorTopic():
                return self._on_topic(sender, request, now)
            case FaultTopic():
                return self._on_fault(sender, request)
            case RejoinTopic():
                return self._rejoins.on_step(sender, request, now)
            case ReportMirror():
                self._reports[request.report.mirror] = request.report
        return []

    def _on_create(self, sender: Sender, request: CreateMirror) -> list[Effect]:
        latest, name = self._decisions.latest, request.mirror
        if self._nodes().own:
            raise ProtocolError(
                ErrorCode.INVALID_REQUEST, "a cluster makes no mirrors: only one machine does"
            )
        fault = name_fault(name)
        if fault is not None:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, f"mirror: {fault}")
        if name in latest.mirrors:
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG, f"there is a mirror {name!r} already: delete it first"
            )
        if len(latest.mirrors) >= MAX_MIRRORS:
            raise ProtocolError(ErrorCode.LIMIT_REACHED, f"a broker keeps at most {MAX_MIRRORS} mirrors")
        if not request.spec.topics:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, "topics: name at least one, or a pattern")
        catalog = _with_mirror(latest, name, Mirror(spec=request.spec))
        return self._decisions.decide(catalog, FollowUp("mirror_changed", name, sender))

    def _on_change(self, sender: Sender, request: ChangeMirror) -> list[Effect]:
        latest, name = self._decisions.latest, request.mirror
        mirror = latest.mirrors.get(name)
        if mirror is None:
            raise ProtocolError(ErrorCode.UNKNOWN_MIRROR, f"there is no mirror {name!r}")
        follow_up = FollowUp("mirror_changed", name, sender)
        if request.action == "delete":
            return self._decisions.decide(_without_mirror(latest, name), follow_up)
        spec = mirror.spec
        if request.bytes_per_second is not None:
            spec = replace(spec, bytes_per_second=request.bytes_per_second)
        is_paused = mirror.is_paused if request.action is None else request.action == "pause"
        changed = replace(mirror, spec=spec, is_paused=is_paused, version=mirror.version + 1)
        catalog = _with_mirror(latest, name, changed)
        if request.action == "resume":
            for entry in _topics_of(latest, name, "faulted"):
                assert entry.mirror is not None
                catalog = with_topic_mirror(
                    catalog, entry.topic, replace(entry.mirror, state="following", reason="")
                )
        return self._decisions.decide(catalog, follow_up)

    # -- requests of a mirror's process

    def _on_topic(self, sender: Sender, request: MirrorTopic, now: int) -> list[Effect]:
        latest = self._decisions.latest
        if request.mirror not in latest.mirrors:
            raise ProtocolError(ErrorCode.UNKNOWN_MIRROR, f"there is no mirror {request.mirror!r}")
        check_topic_name(request.topic)
        entry = latest.topics.get(request.topic)
        mirror = TopicMirror(mirror=request.mirror)
        if entry is None:
            return self._topics.on_mirrored(sender, request, mirror, now)
        rejoined = self._rejoins.on_topic(sender, request, entry, now)
        if rejoined is not None:
            return rejoined
        _check_entry(entry, request)
        return self._topics.on_mirrored_again(sender, request, now)

    def _on_fault(self, sender: Sender, request: FaultTopic) -> list[Effect]:
        latest = self._decisions.latest
        entry = latest.topics.get(request.topic)
        mirror = None if entry is None else entry.mirror
        if mirror is None or mirror.mirror != request.mirror or mirror.state != "following":
            return [Reply(sender, Done())]
        changed = replace(mirror, state="faulted", reason=request.reason)
        catalog = with_topic_mirror(latest, request.topic, changed)
        return self._decisions.decide(catalog, FollowUp("mirror_topic_changed", request.topic, sender))

    # -- promotion

    def _on_promote(self, sender: Sender, request: PromoteMirror) -> list[Effect]:
        latest = self._decisions.latest
        all_topics = sorted(entry.topic for entry in _topics_of(latest, request.mirror))
        chosen = [topic for topic in all_topics if not is_internal(topic)]
        topics = chosen if request.topics is None else request.topics
        unknown = [topic for topic in topics if topic not in all_topics]
        if not topics or unknown:
            names = ", ".join(map(repr, unknown)) or "any topic"
            raise ProtocolError(ErrorCode.NOT_MIRRORED, f"mirror {request.mirror!r} has not copied {names}")
        catalog, waiting = latest, set()
        for topic in topics:
            mirror = latest.topics[topic].mirror
            assert mirror is not None
            if mirror.state == "rejoining":
                message = f"{topic} rejoins: its mirror finishes that by itself, also without the source"
                raise ProtocolError(ErrorCode.CONFLICT, message, retriable=True)
            if mirror.state != "promoted":
                waiting.add(topic)
            if mirror.state in ("following", "faulted"):
                catalog = with_topic_mirror(catalog, topic, replace(mirror, state="sealed"))
        self._promotions.append((sender, waiting, topics))
        if catalog is latest:
            return self._answer_promotions()
        return self._decisions.decide(catalog, FollowUp("mirror_sealed", request.mirror))

    def drive(self) -> list[Effect]:
        """Go on with the topics that are sealed."""
        effects: list[Effect] = []
        for entry in self._decisions.durable.topics.values():
            is_sealed = entry.mirror is not None and entry.mirror.state == "sealed"
            if is_sealed and entry.topic not in self._forks:
                self._forks[entry.topic] = {}
                effects += self._topics.configure(entry)
                effects += [_seal(entry, partition) for partition in range(entry.partitions)]
        return effects

    def on_answered(self, key: MirrorCall, reply: SealMirrorReply | PromotePartitionReply) -> list[Effect]:
        if not isinstance(reply, SealMirrorReply):
            left = self._leading.get(key.topic, set())
            left.discard(key.partition)
            return self._finish(key.topic) if not left else []
        forks = self._forks.get(key.topic)
        entry = self._decisions.latest.topics.get(key.topic)
        if forks is None or entry is None or entry.mirror is None:
            return []
        forks[key.partition] = reply.fork
        if len(forks) < entry.partitions:
            return []
        ordered = tuple(forks[partition] for partition in range(entry.partitions))
        promoted = replace(entry.mirror, state="promoted", reason="", forks=ordered)
        catalog = with_topic_mirror(self._decisions.latest, key.topic, promoted)
        return self._decisions.decide(catalog, FollowUp("mirror_promoted", key.topic))

    def on_failed(self, key: MirrorCall) -> list[Effect]:
        """Give up: the topic was deleted, or created again."""
        self._forks.pop(key.topic, None)
        self._leading.pop(key.topic, None)
        return self._finish(key.topic)

    def apply_promoted(self, topic: str) -> list[Effect]:
        self._forks.pop(topic, None)
        entry = self._decisions.durable.topics.get(topic)
        if entry is None or entry.mirror is None:
            return self._finish(topic)
        self._leading[topic] = set(range(entry.partitions))
        return [
            *self._topics.configure(entry),
            *(_promote(entry, entry.mirror, partition) for partition in range(entry.partitions)),
        ]

    def _finish(self, topic: str) -> list[Effect]:
        for _, waiting, _ in self._promotions:
            waiting.discard(topic)
        return self._answer_promotions()

    def _answer_promotions(self) -> list[Effect]:
        done = [each for each in self._promotions if not each[1]]
        self._promotions = [each for each in self._promotions if each[1]]
        durable = self._decisions.durable.topics
        effects: list[Effect] = []
        for sender, _, topics in done:
            found = [
                PromotedTopic(topic=topic, forks=list(entry.mirror.forks))
                for topic in topics
                if (entry := durable.get(topic)) is not None and entry.mirror is not None
            ]
            effects.append(Reply(sender, PromoteMirrorReply(topics=found)))
        return effects

    # -- follow-ups

    def apply_changed(self, follow_up: FollowUp) -> list[Effect]:
        answered = [] if follow_up.sender is None else [Reply(follow_up.sender, Done())]
        entries = _topics_of(self._decisions.durable, follow_up.name)
        configured = [effect for entry in entries for effect in self._topics.configure(entry)]
        return [*configured, *self.follow(), *answered]

    def apply_topic_changed(self, follow_up: FollowUp) -> list[Effect]:
        entry = self._decisions.durable.topics.get(follow_up.name)
        configured = [] if entry is None else self._topics.configure(entry)
        return [*configured, *([] if follow_up.sender is None else [Reply(follow_up.sender, Done())])]

    def on_loaded(self) -> list[Effect]:
        return [*self.follow(), *self.drive()]

    def follow(self) -> list[Effect]:
        """Start, replace and stop processes, so that the mirrors of the durable catalog run where they belong."""
        wanted = self._wanted()
        gone = [address for address in self._running if address not in wanted]
        new = [spec for address, spec in wanted.items() if address not in self._running]
        stale = [spec for address, spec in wanted.items() if self._running.get(address, spec) != spec]
        for address in gone:
            self._reports.pop(address.name, None)
        self._running = wanted
        return [*self.commands.stop(gone), *self.commands.start(new), *self.commands.replace(stale)]

    def _wanted(self) -> dict[Address, ChildSpec]:
        own, live = self._nodes()
        wanted = {}
        for name, mirror in self._decisions.durable.mirrors.items():
            if mirror.is_paused or placed_one(name, live) != own:
                continue
            arguments = {"mirror": name, "spec": msgspec.to_builtins(mirror.spec), "version": mirror.version}
            address = mirror_address(name)
            wanted[address] = ChildSpec(address=address, start=MIRROR_ENTRY, arguments=arguments)
        return wanted

    def owner(self, address: Address) -> "Deployments | Mirrors | None":
        """Return the part that commands this child by itself, if it is a deployment's or a mirror's."""
        if address.kind == Kind.DEPLOYED:
            return self._deployments
        return self if address.kind == Kind.MIRROR else None

    def on_command_done(self, address: Address) -> list[Effect]:
        return []

    # -- the report

    def _report_of(self, name: str) -> MirrorReport:
        """Return the stored state, with the figures of the process, if it runs on this node."""
        mirror = self._decisions.durable.mirrors[name]
        known = self._reports.get(name)
        report = known or MirrorReport(mirror=name, spec=mirror.spec, state="starting")
        topics = {each.topic: each for each in report.topics}
        for entry in _topics_of(self._decisions.durable, name):
            if is_internal(entry.topic):
                continue
            assert entry.mirror is not None
            stored, seen = entry.mirror, topics.get(entry.topic)
            topics[entry.topic] = MirroredTopic(
                topic=entry.topic,
                state=stored.state,
                reason=stored.reason or (seen.reason if seen is not None else ""),
                partitions=seen.partitions if seen is not None and stored.state != "promoted" else [],
                forks=list(stored.forks),
                diverged=stored.diverged,
            )
        return replace(
            report,
            spec=mirror.spec,
            state="paused" if mirror.is_paused else report.state,
            topics=[topics[topic] for topic in sorted(topics)],
        )


def _with_mirror(catalog: Catalog, name: str, mirror: Mirror) -> Catalog:
    return catalog.decided((put(f"mirrors/{name}", mirror),))


def _without_mirror(catalog: Catalog, name: str) -> Catalog:
    """Delete a mirror. A topic that it has promoted may follow a later one of its name."""
    for entry in _topics_of(catalog, name, "promoted"):
        assert entry.mirror is not None
        catalog = with_topic_mirror(catalog, entry.topic, replace(entry.mirror, mirror=""))
    return catalog.decided((Delete(f"mirrors/{name}"),))


def _topics_of(catalog: Catalog, mirror: str, *states: str) -> list[TopicEntry]:
    return [
        entry
        for entry in catalog.topics.values()
        if entry.mirror is not None
        and entry.mirror.mirror == mirror
        and (not states or entry.mirror.state in states)
    ]


def _check_entry(entry: TopicEntry, request: MirrorTopic) -> None:
    """Raise ProtocolError if the topic here is not a copy that this mirror may go on with."""
    found, topic = entry.mirror, entry.topic
    is_same = entry.topic_id == request.topic_id
    if is_same and request.forks and (found is None or not found.mirror):
        message = (
            f"{topic} of the source was promoted in place of this one: mirror failback lets it follow again"
        )
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is None and is_same:
        message = f"{topic} of the source is a copy of this broker's {topic}: a loop is not mirrored"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is None:
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, f"{topic} is here already, and no copy of the source's")
    if found.mirror != request.mirror:
        whose = f"is a copy made by mirror {found.mirror!r}" if found.mirror else "was promoted here"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, f"{topic} {whose}")
    if found.state in ("promoted", "sealed"):
        raise ProtocolError(ErrorCode.NOT_MIRRORED, f"{topic} was promoted")
    if found.state == "faulted":
        raise ProtocolError(ErrorCode.CONFLICT, found.reason)
    if entry.topic_id != request.topic_id:
        message = (
            f"the source's topic was created again: {entry.topic_id} was copied, it is {request.topic_id} now"
        )
        raise ProtocolError(ErrorCode.UNKNOWN_TOPIC_ID, message, topic_id=entry.topic_id)


def _seal(entry: TopicEntry, partition: int) -> Call:
    request = SealMirror(topic=entry.topic, topic_id=entry.topic_id, partition=partition)
    key, address = MirrorCall(entry.topic, partition), partition_address(entry.topic, partition)
    return Call(key, address, request, SealMirrorReply, timeout_ms=ATTEMPT_MS, is_endless=True)


def _promote(entry: TopicEntry, mirror: TopicMirror, partition: int) -> Call:
    request = PromotePartition(topic=entry.topic, topic_id=entry.topic_id, partition=partition, mirror=mirror)
    key, address = (
        MirrorCall(entry.topic, partition, is_promotion=True),
        partition_address(entry.topic, partition),
    )
    return Call(key, address, request, PromotePartitionReply, timeout_ms=ATTEMPT_MS, is_endless=True)


def mirrors_called_for(catalogs: Iterable[Catalog]) -> set[Address]:
    """Return the addresses of the mirrors that are not paused."""
    return {
        mirror_address(name)
        for catalog in catalogs
        for name, mirror in catalog.mirrors.items()
        if not mirror.is_paused
    }
