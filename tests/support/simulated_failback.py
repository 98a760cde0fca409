"""A former source that rejoins: two partitions that have parted, the mirror between them, and the records set aside.

`parted` makes them: a mirror runs at random, is cut off, and is promoted, while its source goes on. The controller of the
former source is the simulator's. The calls of the fail-back arrive one at a time between other steps, also those of a
mirror that was killed meanwhile. Before the cuts are stored the topic for records set aside may be lost. After every step
each batch that only that side had is in its log, or on the disk of that topic; in the end its log is that of the promoted
side.
"""

from collections import deque
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from planaria.actors.mirror.keys import RejoinKey
from planaria.actors.mirror.machine import MirrorMachine
from planaria.transport.machine import Answered, Call, Failed
from planaria.transport.protocol.data import Fetch
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.mirrors import (
    MirrorAppend,
    MirrorSpec,
    MirrorTopic,
    PromoteMirror,
    PromoteMirrorReply,
    PromotePartition,
    RejoinPartition,
    RejoinTopic,
    SealMirror,
)
from planaria.transport.protocol.topics import DescribeTopicReply
from simulated_mirror import LOST, NAMES, MirrorWorld
from simulated_partition import SimulatedPartition

DIVERGED = "__diverged.ORDERS"
ATTEMPTS = 5
STEPS = ("produce", "time", "time", "copy", "mirror", "diverged", "source", "lost")


def parted(seed: int, steps: int, **options: Any) -> "FailbackWorld":
    """Return two sides that have parted after steps at random."""
    before = MirrorWorld(seed, **options)
    before.loss = before.draw.choice([0.0, 0.2])
    for _ in range(steps):
        before.step()
    before.settle()
    before.is_cut, before.is_checked = True, False
    before.crash_source()  # a fetch that was under way copies nothing any more
    for _ in range(before.draw.randint(0, steps // 2)):
        before.step()
    before.loss = 0.0
    if before.draw.random() < 0.3:
        # The copy has records that the source has lost since.
        before.lose_tail(before.draw.randint(0, len(before.source.log)))
        for _ in range(before.draw.randint(0, 5)):
            before.produce(b"instead")
    fork, _ = before.promote()
    return FailbackWorld(before, fork)


class FailbackWorld(MirrorWorld):
    def __init__(self, before: MirrorWorld, fork: Any) -> None:
        start = max(fork.offset, before.source.log_start_offset)
        self.own = [frame for header, frame in before.source.log if header.next_offset > start]
        """The batches beyond the fork that only the former source has."""
        self.diverged = SimulatedPartition(mirror=TopicMirror(mirror="back"))
        self.diverged.disk.may_have_gaps = True
        self.is_ready = self.is_lost = self._is_stale = False
        self.diverged_id = "t2"
        self._calls: deque[tuple[MirrorMachine, Call]] = deque()
        """Calls of the fail-back that have not arrived."""
        self.fork = fork
        self.entry = TopicMirror(mirror="back", state="rejoining", source_forks=(fork,))
        super().__init__(before.draw.randint(0, 1_000_000), before.source.config)
        self.source, self.copy = before.copy, before.source
        self.copy.disk.may_have_gaps = True
        self.now = self.source.now = self.copy.now = max(before.now, before.source.now, before.copy.now)
        self.is_checked = False
        self.source_mirror = TopicMirror(mirror="m", state="promoted", forks=(fork,))
        self._epochs = dict(before._epochs)
        self._sequences = dict(before._sequences)
        self.is_ready = True
        self.start_mirror()

    def start_mirror(self) -> None:
        if self.is_ready:
            super().start_mirror()
            return
        spec = MirrorSpec(source="tcp://a:1", topics=("ORDERS",), is_failback=True)
        self.mirror, self.timers, self._waiting = MirrorMachine("back", spec), {}, {}

    @property
    def has_rejoined(self) -> bool:
        return self.entry.state == "following"

    def handle(self, event: Any) -> None:
        if not self._is_stale:
            super().handle(event)

    def _call(self, call: Call) -> None:
        if isinstance(call.key, RejoinKey):
            self._calls.append((self.mirror, call))
        else:
            super()._call(call)

    def next_call(self) -> None:
        """Let a call arrive. A mirror that was killed gets no answer."""
        if not self._calls:
            return
        mirror, call = self._calls.popleft()
        self._is_stale = mirror is not self.mirror
        self._arrives(call)
        self._is_stale = False
        self.check()

    def settle(self) -> None:
        self.loss, self.is_cut = 0.0, False
        for _ in range(20):
            while self._calls:
                self.next_call()
            self.advance(1_000)

    def _arrives(self, call: Call) -> None:
        request = call.request
        match request:
            case RejoinPartition():
                self._ask_again(call)
            case Fetch():
                self.ask_partition(call, self.copy)
            case MirrorAppend(topic=topic) if topic == DIVERGED:
                if request.topic_id == self.diverged_id:
                    self.ask_partition(call, self.diverged, replace(request, topic="ORDERS", topic_id="t1"))
                else:
                    self.handle(Failed(call.key, ErrorBody(ErrorCode.UNKNOWN_TOPIC_ID, "it was lost", False)))
            case RejoinTopic(step="cut") if request.diverged_id not in ("", self.diverged_id):
                self.handle(Failed(call.key, ErrorBody(ErrorCode.CONFLICT, "it is another topic", True)))
            case RejoinTopic(step="cut" | "survey" | "done") if self.is_lost:
                self.handle(Failed(call.key, ErrorBody(ErrorCode.CONFLICT, "its topic was lost", True)))
            case _:
                answer = self.controller_answers(call)
                self.handle(Failed(call.key, LOST) if self._is_lost() else Answered(call.key, answer))

    def lose_diverged(self) -> None:
        """Lose the topic of the records that are set aside."""
        if self.entry.state == "rejoining" and self.entry.diverged and not self.entry.cuts:
            self.diverged = SimulatedPartition(mirror=TopicMirror(mirror="back"))
            self.diverged.disk.may_have_gaps = self.is_lost = True
            self.diverged.now = self.now
            self.diverged_id += "'"
            self._calls = deque(each for each in self._calls if each[0] is self.mirror)

    def _ask_again(self, call: Call) -> None:
        """Repeat a request while the partition refuses it, retriable, as the loop does."""
        self.copy.mirror = self.entry
        for _ in range(ATTEMPTS):
            reply = self.copy.ask(call.request)
            assert reply is not None
            if not isinstance(reply.body, ErrorBody) or not reply.body.retriable:
                break
            self.check()
        self.ask_partition(call, self.copy)

    def controller_answers(self, call: Call) -> Any:
        match call.request:
            case MirrorTopic(forks=forks):
                assert forks == (self.fork,)
                if self.is_lost:
                    self.entry, self.is_lost = replace(self.entry, diverged=""), False
                return self.described(mirror=self.entry)
            case RejoinTopic(step="set_aside"):
                self.entry, self.is_lost = replace(self.entry, diverged=DIVERGED), False
                return DescribeTopicReply(DIVERGED, self.diverged_id, self.source.config, [], UNSET)
            case RejoinTopic(step="cut" | "survey", cuts=cuts):
                self.entry = replace(self.entry, cuts=cuts)
                return self.described(mirror=self.entry)
            case RejoinTopic(step="done"):
                given_up = (*self.entry.given_up, *self.entry.cuts)
                self.entry = replace(self.entry, state="following", cuts=(), given_up=given_up)
                self.copy.mirror = self.copy.process._arguments.mirror = self.entry
                return self.described(mirror=self.entry)
            case PromoteMirror():
                self._promote_diverged()
                return PromoteMirrorReply(topics=[])
        return super().controller_answers(call)

    def _promote_diverged(self) -> None:
        if self.diverged.mirror is not None and self.diverged.mirror.state == "promoted":
            return
        reply = self.diverged.ask(SealMirror(**NAMES))
        assert reply is not None
        forks = (reply.body.fork,)  # type: ignore[union-attr]
        self.diverged.mirror = TopicMirror(mirror="back", state="promoted", forks=forks)
        self.diverged.ask(PromotePartition(**NAMES, mirror=self.diverged.mirror))

    def check(self) -> None:
        if not self.is_ready:
            return
        if self.has_rejoined:
            super().check()
        diverged = self.diverged
        durable = [
            frame
            for header, frame in diverged.log[: diverged.durable_count]
            if header.next_offset > diverged.log_start_offset
        ]
        held = {*durable, *(frame for _, frame in self.copy.log)}
        lost = [frame for frame in self.own if frame not in held]
        assert not lost, f"{len(lost)} batches beyond the fork are nowhere"

    def step(self) -> None:
        match self.draw.choice([*["call"] * 8, *STEPS]):
            case "call":
                self.next_call()
            case "produce":
                self.produce(self.draw.randbytes(3))
            case "copy":
                self.copy.crash()
            case "diverged":
                self.diverged.crash()
            case "lost":
                self.lose_diverged()
            case "mirror":
                self.start_mirror()
            case "source":
                self.crash_source()
            case _:
                self.advance(self.draw.choice([1, 50, 1_500]))
        self.check()
