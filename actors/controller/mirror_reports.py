"""The list of mirrors: the stored state, with the figures of each mirror's process, wherever it runs. Pure.

    list_mirrors   each mirror that is not paused is asked, on its node -> answered, or not in time -> the list

A mirror without an answer is listed as starting. Topics that take no producers are listed also if their mirror is gone.
Called by `mirrors.py`.
"""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from ...transport.addresses import is_internal, link_address, mirror_address
from ...transport.codec import encode_header
from ...transport.machine import Call, Reply, Sender
from ...transport.protocol.links import Relay
from ...transport.protocol.mirrors import (
    DescribeMirror,
    DescribeMirrorReply,
    ListMirrorsReply,
    MirroredTopic,
    MirrorReport,
)
from .decisions import Decisions
from .deployments import Nodes, placed_one
from .effects import Effect
from .keys import MirrorReportCall
from .promotions import mirrored_by

ANSWER_MS = 1_000


class _List(Struct):
    sender: Sender
    waiting: set[str]
    found: dict[str, MirrorReport]


class MirrorReports:
    def __init__(self, decisions: Decisions, nodes: Callable[[], Nodes]) -> None:
        self._decisions = decisions
        self._nodes = nodes
        self._lists: dict[int, _List] = {}
        self._last = 0

    def on_list(self, sender: Sender) -> list[Effect]:
        mirrors = self._decisions.durable.mirrors
        self._last += 1
        waiting = {name for name in mirrors if not mirrors[name].is_paused}
        self._lists[self._last] = _List(sender, waiting, {})
        return [self._ask(name) for name in sorted(waiting)] or self._answer(self._last)

    def _ask(self, name: str) -> Effect:
        own, live = self._nodes()
        key, address, node = MirrorReportCall(self._last, name), mirror_address(name), placed_one(name, live)
        request = DescribeMirror(mirror=name)
        if node is None or node == own:
            return Call(key, address, request, DescribeMirrorReply, timeout_ms=ANSWER_MS)
        relay = Relay(node=node, address=address, timeout_ms=ANSWER_MS)
        header = encode_header(request)
        return Call(
            key, link_address(own), relay, DescribeMirrorReply, payload=[header], timeout_ms=ANSWER_MS
        )

    def on_answer(self, key: MirrorReportCall, reply: DescribeMirrorReply | None) -> list[Effect]:
        """Take the answer of a mirror, or None for none."""
        found = self._lists[key.number]
        found.waiting.discard(key.mirror)
        if reply is not None:
            found.found[key.mirror] = reply.report
        return [] if found.waiting else self._answer(key.number)

    def _answer(self, number: int) -> list[Effect]:
        done = self._lists.pop(number)
        reports = [
            self._report_of(name, done.found.get(name)) for name in sorted(self._decisions.durable.mirrors)
        ]
        return [Reply(done.sender, ListMirrorsReply(mirrors=reports, left=self._left()))]

    def _left(self) -> dict[str, list[MirroredTopic]]:
        """Return the topics that take no producers, though their mirror was deleted, or lost with a catalog."""
        catalog = self._decisions.durable
        left: dict[str, list[MirroredTopic]] = {}
        for entry in sorted(catalog.topics.values(), key=lambda entry: entry.topic):
            mirror = entry.mirror
            if mirror is None or mirror.is_writable or mirror.mirror in catalog.mirrors:
                continue
            topic = MirroredTopic(topic=entry.topic, state=mirror.state, reason=mirror.reason)
            left.setdefault(mirror.mirror, []).append(topic)
        return left

    def _report_of(self, name: str, known: MirrorReport | None) -> MirrorReport:
        mirror = self._decisions.durable.mirrors[name]
        report = known or MirrorReport(mirror=name, spec=mirror.spec, state="starting")
        topics = {each.topic: each for each in report.topics}
        entries = mirrored_by(self._decisions.durable, name)
        for topic in topics.keys() - {entry.topic for entry in entries}:
            if topics[topic].state == "following":
                del topics[topic]  # its process has found it at the source, and nothing is stored yet
        for entry in entries:
            if is_internal(entry.topic):
                continue
            assert entry.mirror is not None
            stored, seen = entry.mirror, topics.get(entry.topic)
            topics[entry.topic] = MirroredTopic(
                topic=entry.topic,
                state=stored.state,
                reason=stored.reason or (seen.reason if seen is not None else ""),
                partitions=seen.partitions if seen is not None and stored.state != "promoted" else [],
                forks=list(stored.forks) if stored.is_writable else [],
                diverged=stored.diverged,
            )
        return replace(
            report,
            spec=mirror.spec,
            state="paused" if mirror.is_paused else report.state,
            topics=[topics[topic] for topic in sorted(topics)],
        )
