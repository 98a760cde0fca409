"""Mirrors: topics of other brokers that are copied here, and the processes that copy them. Pure.

    mirrors/<name>           the source, the patterns, a version that rises with each change
    topics/<topic>.mirror    rejoining (`rejoins.py`), following, faulted, sealed or promoted
                             (`transport/protocol/mirrored.py`)

A mirror's process runs on one node, which every controller computes from the live nodes alone (as for deployments). It
asks for everything that is stored: a topic to be made, a fault to be kept. Its figures are not stored: it is asked for
them (`mirror_reports.py`). `promotions.py` ends the copying.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from ...transport.addresses import Address, Kind, mirror_address
from ...transport.machine import Reply, Sender
from ...transport.patterns import name_fault
from ...transport.protocol.control import ChildSpec
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.message import Done, Request
from ...transport.protocol.mirrored import TopicMirror
from ...transport.protocol.mirrors import (
    MAX_MIRRORS,
    ChangeMirror,
    CreateMirror,
    FaultTopic,
    ListMirrors,
    Mirror,
    MirrorTopic,
    PromoteMirror,
    RejoinTopic,
)
from ..metadata.store import Delete
from .catalog import Catalog, TopicEntry, put
from .child_commands import ChildCommands
from .children import MIRROR_ENTRY
from .decisions import Decisions, FollowUp
from .deployments import Deployments, Nodes, placed_one
from .effects import Effect
from .keys import MirrorCall, MirrorReportCall
from .mirror_reports import MirrorReports
from .names import check_topic_name
from .promotions import Promotions, mirrored_by
from .rejoins import Rejoins, with_topic_mirror
from .sites import with_sites
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
        self._rejoins = Rejoins(decisions, topics)
        self.commands = ChildCommands()
        self._running: dict[Address, ChildSpec] = {}
        self.promotions = Promotions(decisions, topics)
        self.reports = MirrorReports(decisions, nodes)

    # -- requests

    def on_request(self, sender: Sender, request: Request, now: int) -> list[Effect]:
        match request:
            case CreateMirror():
                return self._on_create(sender, request)
            case ChangeMirror():
                return self._on_change(sender, request)
            case ListMirrors():
                return self.reports.on_list(sender)
            case PromoteMirror():
                return self.promotions.on_promote(sender, request)
            case MirrorTopic():
                return self._on_topic(sender, request, now)
            case FaultTopic():
                return self._on_fault(sender, request)
            case RejoinTopic():
                return self._rejoins.on_step(sender, request, now)
        return []

    def _on_create(self, sender: Sender, request: CreateMirror) -> list[Effect]:
        latest, name = self._decisions.latest, request.mirror
        fault = name_fault(name)
        if fault is not None:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, f"mirror: {fault}")
        if name in latest.mirrors:
            message = f"there is a mirror {name!r} already: choose another name, or delete that mirror first"
            raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
        if len(latest.mirrors) >= MAX_MIRRORS:
            raise ProtocolError(ErrorCode.LIMIT_REACHED, f"a broker has at most {MAX_MIRRORS} mirrors")
        if not request.spec.topics:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, "topics: name at least one, or a pattern")
        catalog = _with_mirror(latest, name, Mirror(spec=request.spec))
        return self._decisions.decide(catalog, FollowUp("mirror_changed", name, sender))

    def _on_change(self, sender: Sender, request: ChangeMirror) -> list[Effect]:
        latest, name = self._decisions.latest, request.mirror
        mirror = latest.mirrors.get(name)
        if mirror is None:
            message = f"there is no mirror {name!r}: mirror list shows all of them"
            raise ProtocolError(ErrorCode.UNKNOWN_MIRROR, message)
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
            for entry in mirrored_by(latest, name, "faulted"):
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
        linked = with_sites(latest, request.sites)
        if linked is not latest:
            self._decisions.decide(linked, FollowUp("sites_changed"))
            latest = linked
        entry = latest.topics.get(request.topic)
        mirror = TopicMirror(mirror=request.mirror, source_forks=request.forks)
        if entry is None:
            return self._topics.on_mirrored(sender, request, mirror, now)
        rejoined = self._rejoins.on_topic(sender, request, entry, now)
        if rejoined is not None:
            return rejoined
        _check_entry(latest, entry, request)
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

    # -- follow-ups

    def apply_changed(self, follow_up: FollowUp) -> list[Effect]:
        answered = [] if follow_up.sender is None else [Reply(follow_up.sender, Done())]
        entries = mirrored_by(self._decisions.durable, follow_up.name)
        configured = [effect for entry in entries for effect in self._topics.configure(entry)]
        return [*configured, *self.follow(), *answered]

    def apply_topic_changed(self, follow_up: FollowUp) -> list[Effect]:
        entry = self._decisions.durable.topics.get(follow_up.name)
        configured = [] if entry is None else self._topics.configure(entry)
        return [*configured, *([] if follow_up.sender is None else [Reply(follow_up.sender, Done())])]

    def on_loaded(self) -> list[Effect]:
        return [*self.follow(), *self.promotions.drive()]

    def follow(self) -> list[Effect]:
        """Start, replace and stop processes, so that the mirrors of the durable catalog run where they belong."""
        wanted = self._wanted()
        gone = [address for address in self._running if address not in wanted]
        new = [spec for address, spec in wanted.items() if address not in self._running]
        stale = [spec for address, spec in wanted.items() if self._running.get(address, spec) != spec]
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

    @property
    def running(self) -> set[Address]:
        """The mirrors whose processes belong on this node."""
        return set(self._running)

    def owner(self, address: Address) -> "Deployments | Mirrors | None":
        """Return the part that commands this child by itself, if it is a deployment's or a mirror's."""
        if address.kind == Kind.DEPLOYED:
            return self._deployments
        return self if address.kind == Kind.MIRROR else None

    def on_answered(self, key: MirrorCall | MirrorReportCall, reply: Any) -> list[Effect]:
        if isinstance(key, MirrorReportCall):
            return self.reports.on_answer(key, reply)
        return self.promotions.on_answered(key, reply)

    def on_failed(self, key: MirrorCall | MirrorReportCall, error: ErrorBody, now: int) -> list[Effect]:
        if isinstance(key, MirrorReportCall):
            return self.reports.on_answer(key, None)
        return self.promotions.on_failed(key, error, now)

    def on_command_done(self, address: Address) -> list[Effect]:
        return []


def _with_mirror(catalog: Catalog, name: str, mirror: Mirror) -> Catalog:
    return catalog.decided((put(f"mirrors/{name}", mirror),))


def _without_mirror(catalog: Catalog, name: str) -> Catalog:
    """Delete a mirror. A topic that it has promoted may follow a later one of its name."""
    for entry in mirrored_by(catalog, name, "promoted"):
        assert entry.mirror is not None
        catalog = with_topic_mirror(catalog, entry.topic, replace(entry.mirror, mirror=""))
    return catalog.decided((Delete(f"mirrors/{name}"),))


def _check_entry(catalog: Catalog, entry: TopicEntry, request: MirrorTopic) -> None:
    """Raise ProtocolError if the topic here is not a copy that this mirror may go on with."""
    found, topic = entry.mirror, entry.topic
    is_same = entry.topic_id == request.topic_id
    if is_same and request.forks and (found is None or not found.mirror):
        message = f"{topic} of the source was promoted in place of this one: planaria mirror failback makes this its copy"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is None and is_same:
        message = f"{topic} of the source is a copy of this broker's {topic}: mirrors must not form a loop"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found is None:
        raise ProtocolError(
            ErrorCode.TOPIC_EXISTS, f"{topic} exists here, and is not a copy of the source's topic"
        )
    if not found.mirror:
        message = f"{topic} was promoted here: it is not a copy any longer; delete it to have it copied again"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found.mirror != request.mirror:
        way = "a topic has one mirror"
        if found.mirror not in catalog.mirrors:
            command = "failback" if found.state == "rejoining" else "create"
            way = f"mirror {command} continues it under that name"
        message = f"{topic} is a copy made by mirror {found.mirror!r}: {way}"
        raise ProtocolError(ErrorCode.TOPIC_EXISTS, message)
    if found.state in ("promoted", "sealed"):
        raise ProtocolError(ErrorCode.NOT_MIRRORED, f"{topic} was promoted")
    if found.state == "faulted":
        raise ProtocolError(ErrorCode.CONFLICT, found.reason)
    if entry.topic_id != request.topic_id:
        message = (
            f"the source's topic was created again: {entry.topic_id} was copied, it is {request.topic_id} now"
        )
        raise ProtocolError(ErrorCode.UNKNOWN_TOPIC_ID, message, topic_id=entry.topic_id)
