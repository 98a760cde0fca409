"""A mirror between two partitions, each the real process on a disk in memory, with faults from one seed.

The mirror's machine is the product's. The controllers on both sides are the simulator's: the source's lists one topic,
the mirror's own agrees to everything. Requests and answers are lost, either partition dies between any two system calls,
the mirror itself is killed. After every step the copy is compared with the source:

    prefix       each batch of the copy is the source's, byte by byte, at the same offset, and none is missing between two
    committed    nothing of the copy lies beyond the source's high watermark
"""

import random
from typing import Any

from msgspec import UNSET

from planaria.actors.mirror.effects import AskSource, SourceAnswered, SourceFailed, Started
from planaria.actors.mirror.keys import FetchKey
from planaria.actors.mirror.machine import MirrorMachine
from planaria.transport.batch import TRANSACTIONAL
from planaria.transport.machine import Answered, Call, Failed, Reply, SetTimer, TimerFired
from planaria.transport.producer_ids import transactional_producer_id
from planaria.transport.protocol.data import Fetch, ListOffsets, Produce
from planaria.transport.protocol.delayed import ListScheduled, ListScheduledReply, ScheduledMessage
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import (
    DescribeGroupReply,
    ListGroups,
    ListGroupsReply,
    PartitionOffset,
)
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.mirrored import TopicMirror
from planaria.transport.protocol.mirrors import (
    FaultTopic,
    MirrorAppend,
    MirrorSpec,
    MirrorTopic,
    PromotePartition,
    SealMirror,
)
from planaria.transport.protocol.topics import (
    DeleteRecords,
    DescribeTopicReply,
    ListTopics,
    ListTopicsReply,
    PartitionDescription,
    TopicConfig,
    TopicSummary,
)
from planaria.transport.protocol.transactions import Marker, WriteMarkers
from simulated_partition import Crashed, SimulatedPartition, a_batch

LOST = ErrorBody(ErrorCode.TIMED_OUT, "lost by the simulator", True)
TRANSACTIONAL_IDS = (transactional_producer_id(0, 11), transactional_producer_id(0, 12))
SITES = {"paris": 7}
NAMES: Any = {"topic": "ORDERS", "topic_id": "t1", "partition": 0}


class MirrorWorld:
    def __init__(self, seed: int = 0, config: TopicConfig | None = None) -> None:
        self.draw = random.Random(seed)
        self.source = SimulatedPartition(config)
        self.copy = SimulatedPartition(config, mirror=TopicMirror(mirror="m"))
        self.copy.disk.may_have_gaps = True
        self.now = 0
        self.is_checked = True
        """False once the source has lost copied records."""
        self.loss = 0.0
        """Probability that a request or an answer is lost."""
        self.is_cut = False
        """True while nothing reaches the source."""
        self.topic_id = "t1"
        self.source_mirror: Any = UNSET
        """The mirror that the source's topic came from."""
        self.delayed: list[str] = []
        """The topics of the delayed messages that wait at the source."""
        self.faults: list[str] = []
        self.group: dict[str, int] = {}
        self.committed: dict[str, int] = {}
        """The groups' offsets here."""
        self.appends = 0
        self._sequences: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._waiting: dict[Any, tuple[FetchKey, int]] = {}
        self.start_mirror()

    def start_mirror(self) -> None:
        """Start the mirror's process, in place of one that was killed."""
        self.mirror = MirrorMachine("m", MirrorSpec(source="tcp://a:1", topics=("ORDERS",)))
        self.timers: dict[Any, int] = {}
        self._waiting = {}
        self.perform(self.mirror.handle(Started(), self.now))

    # -- messages

    def perform(self, effects: Any) -> None:
        for effect in effects:
            match effect:
                case SetTimer(key=key, at=at):
                    self.timers[key] = at
                case AskSource():
                    self._ask_source(effect)
                case Call():
                    self._call(effect)
                case _:
                    raise AssertionError(effect)

    def handle(self, event: Any) -> None:
        self.perform(self.mirror.handle(event, self.now))
        self.check()

    def _is_lost(self) -> bool:
        return self.draw.random() < self.loss

    def _ask_source(self, ask: AskSource) -> None:
        if self.is_cut or self._is_lost():
            self.handle(SourceFailed(ask.key, LOST))
            return
        match ask.request:
            case Fetch() | ListOffsets():
                received = self.source.received(ask.request)
                self._waiting[received.sender] = (ask.key, self.now + ask.timeout_ms)
                self._deliver(self.source.turn(received))
            case ListTopics():
                self.handle(
                    SourceAnswered(ask.key, ListTopicsReply(topics=[TopicSummary("ORDERS", 1)], sites=SITES))
                )
            case ListScheduled():
                waiting = [
                    ScheduledMessage(
                        scheduled_id=topic, topic=topic, deliver_at_ms=1, scheduled_at_ms=0, size_bytes=1
                    )
                    for topic in self.delayed
                ]
                self.handle(SourceAnswered(ask.key, ListScheduledReply(messages=waiting)))
            case ListGroups():
                self.handle(SourceAnswered(ask.key, ListGroupsReply(groups=list(self.group))))
            case _:
                self.handle(SourceAnswered(ask.key, self._described(ask)))

    def _described(self, ask: AskSource) -> Any:
        group = getattr(ask.request, "group", None)
        if group is None:
            return self.described(mirror=self.source_mirror)
        offsets = [PartitionOffset("ORDERS", 0, self.group[group], topic_id="t1")]
        return DescribeGroupReply(group, "empty", 0, "range", [], offsets)

    def _deliver(self, replies: list[Reply]) -> None:
        for reply in replies:
            key, _ = self._waiting.pop(reply.to, (None, 0))
            if key is None:
                continue
            if self._is_lost():
                self.handle(SourceFailed(key, LOST))
            elif isinstance(reply.body, ErrorBody):
                self.handle(SourceFailed(key, reply.body))
            else:
                payload = tuple(bytes(frame) for frame in reply.payload)
                self.handle(SourceAnswered(key, reply.body, payload))

    def _call(self, call: Call) -> None:
        if isinstance(call.request, MirrorAppend):
            self._append(call)
            return
        if isinstance(call.request, FaultTopic):
            self.faults.append(call.request.reason)
        if isinstance(call.request, MirrorTopic):
            assert call.request.config == self.source.config
            assert call.request.sites == SITES
        for each in getattr(call.request, "offsets", ()):
            self.committed[call.request.group] = each.offset
        mirror = self.copy.mirror
        if isinstance(call.request, MirrorTopic) and mirror is not None and mirror.state == "promoted":
            self.handle(Failed(call.key, ErrorBody(ErrorCode.NOT_MIRRORED, "it was promoted")))
            return
        self.handle(Answered(call.key, self.controller_answers(call)))

    def controller_answers(self, call: Call) -> Any:
        return self.described() if isinstance(call.request, MirrorTopic) else Done()

    def described(self, topic: str = "ORDERS", mirror: Any = UNSET) -> DescribeTopicReply:
        partitions = [PartitionDescription(partition=0, online=True)]
        return DescribeTopicReply(topic, self.topic_id, self.source.config, partitions, mirror)

    def _append(self, call: Call) -> None:
        self.appends += bool(call.payload)
        self.ask_partition(call, self.copy)

    def ask_partition(self, call: Call, partition: SimulatedPartition, request: Any = None) -> None:
        """Make a call to a partition here, which may die of it, or lose the answer."""
        if self._is_lost():
            self.handle(Failed(call.key, LOST))
            return
        points: Any = ["before the write", "after the write", "after the sync", None]
        crash_at = self.draw.choice(points) if self.draw.random() < self.loss / 2 else None
        received = partition.received(request or call.request, call.payload)
        try:
            replies = partition.turn(received, crash_at=crash_at)
        except Crashed:
            self.handle(Failed(call.key, LOST))
            return
        reply = next(reply for reply in replies if reply.to == received.sender)
        if self._is_lost():
            self.handle(Failed(call.key, LOST))
        elif isinstance(reply.body, ErrorBody):
            self.handle(Failed(call.key, reply.body))
        else:
            self.handle(Answered(call.key, reply.body, tuple(bytes(frame) for frame in reply.payload)))

    def advance(self, duration_ms: int) -> None:
        """Let time pass on both sides."""
        end = self.now + duration_ms
        while True:
            due = min(((at, str(key), key) for key, at in self.timers.items()), default=None)
            at = end if due is None else min(end, due[0])
            self.now = max(self.now, at)
            self.copy.now = self.now
            self._deliver(self.source.advance(self.now - self.source.now))
            for sender, (key, deadline) in list(self._waiting.items()):
                if deadline <= self.now:
                    del self._waiting[sender]
                    self.handle(SourceFailed(key, LOST))
            if due is None or due[0] > end:
                return
            if self.timers.get(due[2]) == due[0]:
                del self.timers[due[2]]
                self.handle(TimerFired(due[2]))

    # -- the source's life

    def produce(self, *values: bytes, producer: int = 0, is_transactional: bool = False) -> None:
        """Append a batch to the source."""
        options: dict[str, int] = {}
        if producer:
            sequence = self._sequences.get(producer, 0)
            epoch = self._epochs.setdefault(producer, 0)
            options = {"producer_id": producer, "producer_epoch": epoch, "base_sequence": sequence}
            self._sequences[producer] = sequence + len(values)
        batch = a_batch(*values, attributes=TRANSACTIONAL if is_transactional else 0, **options)
        self._turn_source(Produce(topic="ORDERS", partition=0), [batch])

    def end_transaction(self, producer: int, *, committed: bool) -> None:
        markers = [Marker(producer, self._epochs.get(producer, 0), committed)]
        self._turn_source(WriteMarkers(topic="ORDERS", partition=0, markers=markers))
        self._epochs[producer] = self._epochs.get(producer, 0) + 1
        self._sequences[producer] = 0

    def _turn_source(self, request: Any, payload: Any = ()) -> None:
        received = self.source.received(request, payload)
        replies = self.source.turn(received)
        own = next(reply for reply in replies if reply.to == received.sender)
        assert not isinstance(own.body, ErrorBody), own.body
        assert not any(result.error for result in getattr(own.body, "batches", ())), own.body
        self._deliver([reply for reply in replies if reply is not own])
        self.check()

    def crash_source(self) -> None:
        self._restart_source()

    def lose_tail(self, count: int) -> None:
        """Restart the source without its batches after the first `count`."""
        self.is_checked = False
        del self.source.log[count:]
        self.source.durable_count = count
        self._restart_source()

    def _restart_source(self) -> None:
        self.source.crash()
        waiting, self._waiting = self._waiting, {}
        for key, _ in waiting.values():
            self.handle(SourceFailed(key, LOST))

    def step(self) -> None:
        """Take one step at random."""
        draw = self.draw
        producer = draw.choice(TRANSACTIONAL_IDS)
        match draw.choice(
            ["produce"] * 5
            + ["transact"] * 2
            + ["end"] * 2
            + ["time"] * 4
            + ["delete"]
            + ["source", "copy", "mirror"]
        ):
            case "produce":
                self.produce(*[draw.randbytes(3)] * draw.randint(1, 3), producer=draw.choice([0, 1, 2]))
            case "transact":
                self.produce(b"t", producer=producer, is_transactional=True)
            case "end" if self._sequences.get(producer):
                self.end_transaction(producer, committed=draw.random() < 0.5)
            case "delete":
                before = draw.randint(self.source.log_start_offset, self.source.log_end_offset)
                self._turn_source(DeleteRecords(topic="ORDERS", partition=0, before_offset=before))
            case "source":
                self.crash_source()
            case "copy":
                self.copy.crash()
            case "mirror":
                self.start_mirror()
            case _:
                self.advance(draw.choice([1, 50, 1_500]))

    # -- the checks

    def check(self) -> None:
        if not self.is_checked:
            return
        source = {header.base_offset: frame for header, frame in self.source.log}
        ends = [header.base_offset for header, _ in self.source.log]
        copied = [header.base_offset for header, _ in self.copy.log]
        for header, frame in self.copy.log:
            assert source.get(header.base_offset, frame) == frame, f"another batch at {header.base_offset}"
        if copied:
            start = self.source.log_start_offset
            between = [
                offset
                for offset in ends
                if copied[0] <= offset <= copied[-1] and (offset >= start or offset in copied)
            ]
            assert copied == between, f"the copy has {copied}, the source {between}"
            assert self.copy.log_end_offset <= self.source.durable_end_offset, (
                "more than is committed was copied"
            )

    def logs(self) -> tuple[list[bytes], list[bytes]]:
        """Return the batches on both sides that the source has not deleted."""
        start = self.source.log_start_offset
        sides = (self.source.log, self.copy.log)
        source, copy = ([frame for header, frame in log if header.next_offset > start] for log in sides)
        return source, copy

    def settle(self) -> None:
        """Let the copy catch up, without faults."""
        self.loss, self.is_cut = 0.0, False
        self.advance(20_000)

    # -- promotion

    def promote(self) -> tuple[Any, Any]:
        """Seal the copy, note its fork, and let it take producers. Return the fork and the answer."""
        fork = self.ask_copy(SealMirror(**NAMES)).fork
        mirror = TopicMirror(mirror="m", state="promoted", forks=(fork,))
        self.copy.mirror = mirror
        return fork, self.ask_copy(PromotePartition(**NAMES, mirror=mirror))

    def ask_copy(self, request: Any, payload: Any = ()) -> Any:
        reply = self.copy.ask(request, payload)
        assert reply is not None
        return reply.body
