"""Gathers the contents of pages, and makes them. A look serves all pages that were asked for while it went on. Pure.

    asked for a page    idle -> looking: the supervisor's reports, in a cluster the controller's view; a probe asks the
                        controller whether it serves
    looking             the age of unread records (lag.py), then memory and disk, then the pages; LOOK_MS at most
    FRESH_MS            a page that was asked for this soon after a look shows the same: any number of scrapes costs one

Owns the sums of counters (totals.py) and the memory measured so far: MAX_MEASURED processes in a look, those longest ago
first, because the kernel needs half a millisecond for each. Called by machine.py.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...transport.addresses import CONTROLLER, SUPERVISOR, Address
from ...transport.machine import Answered, Call, CancelTimer, Failed, SetTimer
from ...transport.protocol.cluster import ClusterStatus, ClusterStatusReply
from ...transport.protocol.control import ActorReports, ActorReportsReply, ReportedActor
from ...transport.protocol.operations import ActorReport
from ...transport.protocol.topics import ListTopics, ListTopicsReply
from .effects import Effect, Measure, Measured
from .exposition import Exposition
from .gauges import Observation, detailed, gauges
from .kafka_names import kafka_samples
from .lag import LagCall, Lags
from .totals import SeenActor, Totals

LOOK_MS = 5_000
FRESH_MS = 500
CALL_MS = 2_000
MAX_MEASURED = 20
_read_report = msgspec.msgpack.Decoder(ActorReport).decode
PageName: TypeAlias = Literal["metrics", "detailed"]


class ReportsCall(Struct, frozen=True):
    pass


class ClusterCall(Struct, frozen=True):
    pass


class TopicsCall(Struct, frozen=True):
    """Asks the controller whether it serves."""


class LookTimer(Struct, frozen=True):
    """The end of a look that has not got all answers."""


OnSeen: TypeAlias = Callable[["Seen", int], list[Effect]]


class Seen(Struct):
    """The result of a look."""

    number: int
    """Counts looks."""
    observation: Observation | None
    """None if the supervisor did not answer."""
    controller_fault: str
    """The reason why the controller does not serve; empty if it does."""


class Looks:
    def __init__(self, *, node: str, version: str, is_first: bool, with_kafka_names: bool) -> None:
        self._node = node
        self._version = version
        self._with_kafka_names = with_kafka_names
        self._totals = Totals(is_first=is_first)
        self._expositions: dict[PageName, Exposition] = {"metrics": Exposition(), "detailed": Exposition()}
        self._lags = Lags()
        self._memory: dict[int, int] = {}
        self._waiting: list[OnSeen] = []
        self._open: set[type] = set()
        """Calls without an answer."""
        self._is_looking = False
        self._seen: Seen | None = None
        self._seen_at = 0
        self._disk = (0, 0)
        self._reports: ActorReportsReply | None = None
        self._read: dict[Address, tuple[bytes, ActorReport]] = {}
        """The last report of each actor, as it came and decoded: most actors of a large broker are idle."""
        self._actors: list[SeenActor] = []
        self._cluster: ClusterStatusReply | None = None
        self._controller_fault = ""
        self.wall_offset_ms = 0

    def ask(self, on_seen: OnSeen, now: int) -> list[Effect]:
        """Look, or take the last look if it is fresh, and call `on_seen`."""
        if self._seen is not None and now - self._seen_at < FRESH_MS:
            return on_seen(self._seen, now)
        self._waiting.append(on_seen)
        if self._is_looking:
            return []
        self._is_looking = True
        self._reports, self._actors, self._cluster, self._controller_fault = None, [], None, "no answer"
        self._open = {ReportsCall, TopicsCall}
        effects: list[Effect] = [
            SetTimer(LookTimer(), now + LOOK_MS),
            Call(ReportsCall(), SUPERVISOR, ActorReports(), ActorReportsReply, timeout_ms=CALL_MS),
            Call(TopicsCall(), CONTROLLER, ListTopics(), ListTopicsReply, timeout_ms=CALL_MS),
        ]
        if self._node:
            self._open.add(ClusterCall)
            effects.append(
                Call(ClusterCall(), CONTROLLER, ClusterStatus(), ClusterStatusReply, timeout_ms=CALL_MS)
            )
        return effects

    def handle(self, event: Answered | Failed, now: int) -> list[Effect]:
        key = event.key
        if isinstance(key, LagCall):
            return [*self._lags.handle(event), *self._advance(now)]
        if type(key) not in self._open:
            return []
        self._open.discard(type(key))
        effects: list[Effect] = []
        if isinstance(event, Failed):
            if isinstance(key, TopicsCall):
                self._controller_fault = f"{event.error.code}: {event.error.message}"
        elif isinstance(key, ReportsCall):
            self._reports = event.reply
            self._actors = self._seen_in(event.reply)
            effects += self._lags.begin(self._actors)
        elif isinstance(key, ClusterCall):
            self._cluster = event.reply
        else:
            self._controller_fault = ""
        return [*effects, *self._advance(now)]

    def on_timer(self, now: int) -> list[Effect]:
        self._open.clear()
        self._lags.give_up()
        return self._advance(now)

    def on_measured(self, event: Measured) -> None:
        self._memory |= event.memory
        self._disk = (event.disk_free_bytes, event.disk_size_bytes)

    def _seen_in(self, reply: ActorReportsReply) -> list[SeenActor]:
        before, self._read = self._read, {}
        for actor in reply.actors:
            raw = bytes(actor.report)
            known = before.get(actor.address)
            is_same = known is not None and known[0] == raw
            self._read[actor.address] = known if known is not None and is_same else (raw, _read_report(raw))
        return [_seen(actor, self._read[actor.address][1]) for actor in reply.actors]

    def _advance(self, now: int) -> list[Effect]:
        if not self._is_looking or self._open or not self._lags.is_done:
            return []
        self._is_looking = False
        pids = {actor.pid for actor in self._actors if actor.pid is not None}
        self._memory = {pid: size for pid, size in self._memory.items() if pid in pids}
        return [CancelTimer(LookTimer()), Measure(self._to_measure(pids))]

    def _to_measure(self, pids: set[int]) -> tuple[int, ...]:
        """Choose processes that have never been measured, then those of longest ago."""
        new = [pid for pid in sorted(pids) if pid not in self._memory][:MAX_MEASURED]
        old = list(self._memory)[: MAX_MEASURED - len(new)]
        for pid in old:
            self._memory[pid] = self._memory.pop(pid)
        return (*new, *old)

    def finish(self, now: int) -> list[Effect]:
        """Make the result of the look, whose last event has come, and answer those that wait."""
        observation = None
        if self._reports is not None:
            self._totals.update(self._actors)
            observation = Observation(
                actors=self._actors,
                uptime_ms=self._reports.uptime_ms,
                lags=self._lags.lags,
                wall_ms=now + self.wall_offset_ms,
                memory=dict(self._memory),
                disk_free_bytes=self._disk[0],
                disk_size_bytes=self._disk[1],
                cluster=self._cluster,
            )
        number = 1 if self._seen is None else self._seen.number + 1
        seen = self._seen = Seen(number, observation, self._controller_fault)
        self._seen_at = now
        waiting, self._waiting = self._waiting, []
        return [effect for on_seen in waiting for effect in on_seen(seen, now)]

    def page(self, name: PageName, seen: Observation) -> bytes:
        if name == "detailed":
            return self._expositions[name].page(*detailed(seen))
        samples = self._totals.samples() | gauges(seen, self._version, self._node)
        if self._with_kafka_names:
            samples |= kafka_samples(seen)
        return self._expositions[name].page(samples, self._totals.histograms)


def _seen(actor: ReportedActor, report: ActorReport) -> SeenActor:
    return SeenActor(
        address=actor.address,
        pid=actor.pid,
        incarnation=actor.incarnation,
        restarts=actor.restarts,
        hangs=actor.hangs,
        state=actor.state,
        uptime_ms=actor.uptime_ms,
        report=report,
    )
