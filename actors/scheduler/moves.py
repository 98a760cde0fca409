"""Deliveries: reads due messages, sends recorded batches, and repeats or searches for those without an answer. Pure.

Owns the steps of each target's batch; targets.py keeps them, routing.py fills the queues. Decides the changes to record
(`take`), and sends a batch only when its intent is durable (`on_durable`). Called by machine.py.

    due --read--> routed to a queue --intent recorded--> producing --answered--> recorded as delivered
                                                         producing --failed--> waiting --> as target_queue.py draws
"""

from collections import deque
from typing import assert_never

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.future import latest_ms
from ...transport.log_access.writer import append_call, result_of
from ...transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Failed,
    LoopEffect,
    PeerUp,
    SetTimer,
    TimerFired,
    WallClockStepped,
)
from ...transport.meters import Histogram
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.topics import CatalogTopic
from .pending_messages import Clocks, PendingMessages, digest_of, wait_ms
from .reading import MessageReading, ReadJob, ReadMessage
from .records import Change, Message, Moved, Target
from .routing import Routing
from .searches import SearchCall, Searches
from .target_queue import TargetQueue
from .targets import Targets

WINDOW_MESSAGES = 1_000
"""Due messages read at once."""
READ_BYTES = 4 * 1024 * 1024
"""The approximate byte limit of one read."""
SLOW_MS = 250
"""A batch that is not answered for this long no longer keeps messages for other targets out of memory."""
PRODUCE_TIMEOUT_MS = 10_000


class ProduceCall(Struct, frozen=True):
    """The batch in flight to a target, by the number of the queue's call."""

    tp: TopicPartition
    number: int


class DueTimer(Struct, frozen=True):
    """The time at which the next message is due."""


class TargetRetryTimer(Struct, frozen=True):
    """The next attempt after a failure."""

    tp: TopicPartition


class SlowTimer(Struct, frozen=True):
    """The time from which a batch without an answer is slow."""

    tp: TopicPartition


class Moves:
    def __init__(
        self, pending: PendingMessages, targets: dict[TopicPartition, Target], reading: MessageReading
    ) -> None:
        self.producer_id: int | None = None
        self._pending = pending
        self._reading = reading
        self._targets = Targets(pending, targets)
        self._routing = Routing(pending, self._targets)
        self._searches = Searches()
        pending.arrange(self._targets.intended)
        self._rereading: deque[TargetQueue] = deque()
        self._wake_ms: int | None = None
        self._ahead = WallClockStepped(0)
        self.lateness = Histogram()
        """Time from the due time of messages to their delivery, since the start."""

    # Called by the machine

    def take(self) -> list[Change]:
        """Return the decisions made since the last call, to be recorded."""
        return self._targets.take()

    def withdraw(self, entry: int) -> bool:
        """Try to cancel a message: False when it may already be in its partition."""
        return self._targets.withdraw(entry)

    def reason_of(self, scheduled_id: str, message: Message) -> str | None:
        """Return the reason why a due message is not delivered."""
        return self._routing.reason_of(scheduled_id, message)

    # Events

    def follow_clocks(self, ahead: WallClockStepped) -> None:
        """Use another lead of the wall clock: due times are compared with `now` plus this lead."""
        self._ahead = ahead
        self._wake_ms = None

    def clocks(self, now: int) -> Clocks:
        return Clocks(now + self._ahead.offset_ms, now + self._ahead.slept_ms)

    def set_topics(self, topics: dict[str, CatalogTopic], now: int) -> list[LoopEffect]:
        before, self._targets.topics = self._targets.topics or {}, topics
        self._routing.on_topics(before, topics)
        effects: list[LoopEffect] = []
        for queue in self._targets.queues.values():
            name = queue.tp.topic
            if queue.step == "waiting" and topics.get(name) != before.get(name):
                effects += self._retry(queue, now)
            elif queue.step == "idle" and name not in topics:
                self._targets.look_at(queue)
        return effects

    def handle(self, event: Answered | Failed | TimerFired | PeerUp, now: int) -> list[LoopEffect]:
        effects, job = self._reading.handle(event)
        if job is not None:
            effects += self._on_read(job, now)
        match event:
            case PeerUp() if (up := event.address.topic_partition) is not None:
                queue = self._targets.queues.get(up)
                if queue is not None and queue.step == "waiting":
                    effects += self._retry(queue, now)
            case TimerFired(key=DueTimer()):
                self._wake_ms = None
            case TimerFired(key=TargetRetryTimer(tp=tp) | SlowTimer(tp=tp)):
                queue = self._targets.queues.get(tp)
                effects += [] if queue is None else self._on_queue_timer(queue, event, now)
            case (
                Answered(key=ProduceCall() | SearchCall() as call)
                | Failed(key=ProduceCall() | SearchCall() as call)
            ):
                queue = self._targets.queues.get(call.tp)
                if queue is not None and queue.call == call.number:
                    effects += self._on_outcome(queue, call, event, now)
        return effects

    def on_durable(self, moved: Moved, now: int) -> list[LoopEffect]:
        for scheduled_id in moved.delivered:
            digest = digest_of(scheduled_id)
            entry = self._pending.find(digest)
            self._targets.intended.pop(entry or -1, None)
            if entry is not None:
                self.lateness.add(max(0, -wait_ms(entry, self.clocks(now))) * 1_000)
            self._pending.end(digest, now, "delivered")
        if moved.target is None:
            forgotten = self._targets.queues.pop(moved.tp)
            self._pending.put_back([*self._targets.drain(forgotten), *forgotten.held])
            return []
        queue = self._targets.queues[moved.tp]
        if queue.in_flight:
            return self._produce(queue, now)
        self._targets.rest(queue)
        return []

    def advance(self, now: int) -> list[LoopEffect]:
        """Begin all work that can begin; called after every event."""
        if self._targets.topics is None or self.producer_id is None:
            return []
        for queue in self._targets.take_ready():
            self._routing.decide(queue, now)
        self._pending.sweep()
        return [*self._read(now), *self._wake(now)]

    # Reading

    def _read(self, now: int) -> list[LoopEffect]:
        if not self._reading.is_idle or not self._targets.has_room:
            return []
        while self._rereading:
            queue = self._rereading.popleft()
            if queue.step in ("reading", "naming"):
                return self._reading.begin(queue.tp, queue.in_flight)
        due = self._pending.take_due(self.clocks(now), WINDOW_MESSAGES)
        return self._reading.begin(None, due, READ_BYTES) if due else []

    def _wake(self, now: int) -> list[LoopEffect]:
        wait_ms = self._pending.wait_ms(self.clocks(now))
        if wait_ms is None or wait_ms <= 0 or now + wait_ms == self._wake_ms:
            return []
        self._wake_ms = now + wait_ms
        return [SetTimer(DueTimer(), self._wake_ms)]

    def _on_read(self, job: ReadJob, now: int) -> list[LoopEffect]:
        if job.target is not None:
            return self._on_reread(self._targets.queues[job.target], job.found, now)
        self._pending.put_back(job.unread)
        self._routing.route(job.found)
        return []

    def _on_reread(self, queue: TargetQueue, found: list[ReadMessage], now: int) -> list[LoopEffect]:
        assert queue.target is not None
        assert queue.target.intent is not None
        if queue.step == "naming":
            queue.arrived(None, tuple(each.scheduled_id for each in found))
            self._targets.rest(queue)
            return []
        if len(found) < len(queue.target.intent.offsets):
            return self._search(queue)
        queue.batch = found
        self._targets.hold(found)
        return self._produce(queue, now)

    # Producing

    def _produce(self, queue: TargetQueue, now: int) -> list[LoopEffect]:
        assert self.producer_id is not None
        queue.step = "producing"
        queue.call += 1
        frame = queue.frame(self.clocks(now).wall_ms, self.producer_id, self._latest_ms(queue, now))
        return [
            append_call(ProduceCall(queue.tp, queue.call), queue.tp, frame, timeout_ms=PRODUCE_TIMEOUT_MS),
            SetTimer(SlowTimer(queue.tp), now + SLOW_MS),
        ]

    def _latest_ms(self, queue: TargetQueue, now: int) -> int:
        topic = self._targets.topic(queue)
        return now if topic is None else latest_ms(self.clocks(now).wall_ms, topic.max_timestamp_ahead_ms)

    def _on_outcome(
        self, queue: TargetQueue, call: ProduceCall | SearchCall, event: Answered | Failed, now: int
    ) -> list[LoopEffect]:
        if isinstance(call, SearchCall):
            return self._on_searched(queue, event, now)
        result = result_of(event)
        if result.error is not None:
            return self._fail(queue, result.error, now)
        self._targets.drop(queue.batch)
        queue.arrived(result.base_offset, tuple(each.scheduled_id for each in queue.batch))
        self._targets.rest(queue)
        return [CancelTimer(SlowTimer(queue.tp))]

    def _fail(self, queue: TargetQueue, error: ErrorBody, now: int) -> list[LoopEffect]:
        self._targets.drop(queue.batch)
        queue.held.extendleft(reversed(self._targets.drain(queue)))
        delay_ms = queue.failed(f"{error.code}: {error.message}")
        if isinstance(error.retry_after_ms, int):
            delay_ms = max(delay_ms, error.retry_after_ms)
        # A refusal may concern this attempt alone: an earlier one may be in the log.
        queue.must_search = queue.must_search or not error.retriable
        return [CancelTimer(SlowTimer(queue.tp)), SetTimer(TargetRetryTimer(queue.tp), now + delay_ms)]

    def _on_queue_timer(self, queue: TargetQueue, event: TimerFired, now: int) -> list[LoopEffect]:
        if isinstance(event.key, TargetRetryTimer):
            return self._retry(queue, now) if queue.step == "waiting" else []
        if queue.step == "producing":
            queue.is_slow = True
            queue.reason = "its partition has not answered yet"
            queue.held.extendleft(reversed(self._targets.drain(queue)))
        return []

    def _retry(self, queue: TargetQueue, now: int) -> list[LoopEffect]:
        topic = self._targets.topic(queue)
        if topic is None:
            return []
        if queue.tp.partition >= topic.partitions:
            self._targets.dissolve(queue)
        elif queue.may_repeat(topic, now):
            queue.step = "reading"
            self._rereading.append(queue)
        else:
            return [CancelTimer(TargetRetryTimer(queue.tp)), *self._search(queue)]
        return [CancelTimer(TargetRetryTimer(queue.tp))]

    # Searching for a batch

    def _search(self, queue: TargetQueue) -> list[LoopEffect]:
        assert self.producer_id is not None
        return self._searches.begin(queue, self._targets.topic(queue), self.producer_id)

    def _on_searched(self, queue: TargetQueue, event: Answered | Failed, now: int) -> list[LoopEffect]:
        result = self._searches.on_outcome(queue.tp, event)
        match result:
            case Call():
                return [result]
            case ErrorBody():
                queue.must_search = True
                return self._fail(queue, result, now)
            case "missing":
                self._targets.dissolve(queue)
            case "found" if queue.in_flight:
                queue.step = "naming"
                self._rereading.append(queue)
            case "found":
                queue.arrived(None, ())
                self._targets.rest(queue)
            case _:
                assert_never(result)
        return []
