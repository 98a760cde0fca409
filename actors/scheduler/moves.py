"""Deliveries: reads due messages, routes each to its partition's lane, and sends recorded batches.

Owns the lanes, the memory for contents and the messages whose topic cannot take them. Decides the changes to record
(`take`), and sends a batch only when its intent is durable (`on_durable`). Called by machine.py. Pure.

    due --read--> routed to a lane: queue --intent recorded--> producing --answered--> recorded as delivered
                  routed to a lane that takes no messages now: held by the lane, contents dropped
                  no such topic or partition, or too large for it: parked until the topic changes
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ...transport.addresses import TopicPartition, partition_address, topic_partition_of
from ...transport.batch import HEADER_BYTES
from ...transport.delayed_size import delivered_bytes
from ...transport.future import latest_ms
from ...transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Failed,
    LoopEffect,
    LoopEvent,
    PeerUp,
    SetTimer,
    TimerFired,
    WallClockStepped,
)
from ...transport.partitioner import partition_for_key
from ...transport.protocol.data import ListOffsetsReply, Produce, ProduceReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import CatalogTopic
from .delivery_batch import delivery_batch
from .lane import TargetQueue
from .pending import Clocks, PendingMessages, digest_of, offset_of
from .reading import Found, Job, Reading
from .records import Change, Message, Moved, Target
from .scan import Scan, Wanted

WINDOW_MESSAGES = 1_000
"""Due messages read at once."""
READ_BYTES = 4 * 1024 * 1024
"""The approximate byte limit of one read."""
MOVING_MESSAGES = 4_000
MOVING_BYTES = 16 * 1024 * 1024
"""Limit of contents in memory; beyond it due messages are not read."""
BATCH_MESSAGES = 1_000
SLOW_MS = 250
"""A batch that is not answered for this long no longer keeps other lanes' messages out of memory."""
PRODUCE_TIMEOUT_MS = 10_000

MOVE, SCAN, RETRY, SLOW = "move", "scan", "retry", "slow"
DUE = "due"
NOWHERE: TopicPartition = TopicPartition("", -1)


class Moves:
    def __init__(
        self, pending: PendingMessages, targets: dict[TopicPartition, Target], reading: Reading
    ) -> None:
        self.producer_id: int | None = None
        self._pending = pending
        self._reading = reading
        self._topics: dict[str, CatalogTopic] | None = None
        self._intended: dict[int, TargetQueue] = {}
        """Entries of the messages that may already be in their partition."""
        self._lanes = {
            tp: TargetQueue(tp, target, flight) for tp, target, flight in _flights(targets, pending)
        }
        for lane in self._lanes.values():
            self._intended.update(dict.fromkeys(lane.flight, lane))
        pending.arrange(self._intended)
        self._busy: dict[TopicPartition, TargetQueue] = {}
        """Lanes to examine."""
        self._releasing: list[TargetQueue] = []
        """Lanes that hold more than they have released, to be examined after the next read."""
        self._rereading: deque[TargetQueue] = deque()
        self._scans: dict[TopicPartition, Scan] = {}
        self._parked: dict[str, list[int]] = {}
        self._turns: dict[str, int] = {}
        self._decided: list[Change] = []
        self._messages = 0
        self._bytes = 0
        self._wake_ms: int | None = None
        self._ahead = WallClockStepped(0)

    # Called by the machine

    def take(self) -> list[Change]:
        """Return the decisions made since the last call, to be recorded."""
        decided, self._decided = self._decided, []
        return decided

    def withdraw(self, entry: int) -> bool:
        """Try to cancel a message: False when it may already be in its partition."""
        lane = self._intended.get(entry)
        if lane is None:
            return True
        is_stuck = lane.step == "waiting" and self._topic(lane) is None
        if not is_stuck:
            return False
        # No batch is in flight, and the partition is gone. If the topic comes back, its log is still searched.
        del self._intended[entry]
        lane.flight.remove(entry)
        lane.must_scan = True
        return True

    def reason_of(self, scheduled_id: str, message: Message) -> str | None:
        """Return the reason why a due message is not delivered."""
        topic = (self._topics or {}).get(message.topic)
        if topic is None:
            return f"there is no topic {message.topic!r}" if self._topics is not None else None
        fault = _fault(scheduled_id, message, topic)
        if fault is not None or (message.partition is None and message.key is None):
            return fault
        lane = self._lanes.get(TopicPartition(message.topic, _partition(message, topic)))
        return None if lane is None else lane.reason

    # Events

    def follow_clocks(self, ahead: WallClockStepped) -> None:
        """Use another lead of the wall clock: due times are compared with `now` plus this lead."""
        self._ahead = ahead
        self._wake_ms = None

    def clocks(self, now: int) -> Clocks:
        return Clocks(now + self._ahead.offset_ms, now + self._ahead.slept_ms)

    def set_topics(self, topics: dict[str, CatalogTopic], now: int) -> list[LoopEffect]:
        before, self._topics = self._topics or {}, topics
        for name in [name for name in self._parked if topics.get(name) not in (None, before.get(name))]:
            self._pending.put_back(self._parked.pop(name))
        effects: list[LoopEffect] = []
        for lane in self._lanes.values():
            name = lane.tp[0]
            if lane.step == "waiting" and topics.get(name) != before.get(name):
                effects += self._retry(lane, now)
            elif lane.step == "idle" and name not in topics:
                self._busy[lane.tp] = lane
        return effects

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        effects, job = self._reading.handle(event, now)
        if job is not None:
            effects += self._on_read(job, now)
        if isinstance(event, PeerUp):
            lane = self._lanes.get(topic_partition_of(event.address) or NOWHERE)
            if lane is not None and lane.step == "waiting":
                effects += self._retry(lane, now)
        elif isinstance(event, TimerFired):
            effects += self._on_timer(event.key, now)
        elif isinstance(event, Answered | Failed) and isinstance(event.key, tuple):
            effects += self._on_outcome(event, now)
        return effects

    def on_durable(self, moved: Moved, now: int) -> list[LoopEffect]:
        for scheduled_id in moved.delivered:
            digest = digest_of(scheduled_id)
            self._intended.pop(self._pending.find(digest) or -1, None)
            self._pending.end(digest, now, "delivered")
        if moved.target is None:
            forgotten = self._lanes.pop(moved.tp)
            self._pending.put_back([*self._drained(forgotten), *forgotten.held])
            return []
        lane = self._lanes[moved.tp]
        if lane.flight:
            return self._produce(lane, now)
        self._rest(lane)
        return []

    def advance(self, now: int) -> list[LoopEffect]:
        """Begin all work that can begin; called after every event."""
        if self._topics is None or self.producer_id is None:
            return []
        busy, self._busy = self._busy, {}
        for lane in busy.values():
            if lane.step == "idle":
                self._decide(lane, now)
        self._pending.sweep()
        return [*self._read(now), *self._wake(now)]

    # Reading

    def _read(self, now: int) -> list[LoopEffect]:
        if not self._reading.is_idle or self._messages >= MOVING_MESSAGES or self._bytes >= MOVING_BYTES:
            return []
        while self._rereading:
            lane = self._rereading.popleft()
            if lane.step in ("reading", "naming"):
                return self._reading.begin(lane.tp, lane.flight)
        due = self._pending.take_due(self.clocks(now), WINDOW_MESSAGES)
        return self._reading.begin(None, due, READ_BYTES) if due else []

    def _wake(self, now: int) -> list[LoopEffect]:
        wait_ms = self._pending.wait_ms(self.clocks(now))
        if wait_ms is None or wait_ms <= 0 or now + wait_ms == self._wake_ms:
            return []
        self._wake_ms = now + wait_ms
        return [SetTimer(DUE, self._wake_ms)]

    def _on_read(self, job: Job, now: int) -> list[LoopEffect]:
        if job.purpose is not None:
            return self._on_read_again(self._lanes[job.purpose], job.found, now)
        self._pending.put_back(job.unread)
        for topic in {found.message.topic for found in job.found}:
            self._turns[topic] = self._turns.get(topic, 0) + 1
        for found in job.found:
            self._route(found)
        self._busy.update((lane.tp, lane) for lane in self._releasing)
        self._releasing = []
        return []

    def _on_read_again(self, lane: TargetQueue, found: list[Found], now: int) -> list[LoopEffect]:
        assert lane.target is not None
        assert lane.target.intent is not None
        if lane.step == "naming":
            lane.arrived(None, tuple(each.scheduled_id for each in found))
            self._rest(lane)
            return []
        if len(found) < len(lane.target.intent.offsets):
            return self._scan(lane)
        lane.batch = found
        self._hold(found)
        return self._produce(lane, now)

    # Routing

    def _route(self, found: Found) -> None:
        entry, scheduled_id, message = found
        if not self._pending.is_live(digest_of(scheduled_id), entry):
            return
        assert self._topics is not None
        topic = self._topics.get(message.topic)
        if topic is None or _fault(scheduled_id, message, topic) is not None:
            self._parked.setdefault(message.topic, []).append(entry)
            return
        if message.partition is None and message.key is None:
            lane = self._any_lane(topic)
        else:
            lane = self._lane(TopicPartition(topic.topic, _partition(message, topic)))
        self._busy[lane.tp] = lane
        # Longer held messages come first.
        if lane.takes_messages and not (lane.held and entry > lane.held[0]):
            lane.queue.append(found)
            self._hold([found])
        else:
            lane.held.append(entry)

    def _any_lane(self, topic: CatalogTopic) -> TargetQueue:
        """Return the lane whose turn it is with this read, or the next that takes messages."""
        turn = self._turns[topic.topic]
        lanes = [
            self._lane(TopicPartition(topic.topic, (turn + step) % topic.partitions))
            for step in range(topic.partitions)
        ]
        return next((lane for lane in lanes if lane.takes_messages), lanes[0])

    def _lane(self, tp: TopicPartition) -> TargetQueue:
        lane = self._lanes.get(tp)
        if lane is None:
            lane = self._lanes[tp] = TargetQueue(tp, None)
        return lane

    # Lanes

    def _decide(self, lane: TargetQueue, now: int) -> None:
        """Decide the next step of an idle lane."""
        topic = self._topic(lane)
        if topic is None:
            self._parked.setdefault(lane.tp[0], []).extend([*self._drained(lane), *lane.held])
            lane.held.clear()
        else:
            batch = self._pick(lane, topic)
            if batch:
                self._decided.append(lane.intend(batch, topic, now))
                self._intended.update(dict.fromkeys(lane.flight, lane))
                return
            released = [lane.held.popleft() for _ in range(min(BATCH_MESSAGES, len(lane.held)))]
            self._pending.put_back(released)
            if lane.held:
                self._releasing.append(lane)
        if lane.delivered:
            self._decided.append(lane.record())
        elif topic is None and lane.target is not None:
            lane.target = None
            self._decided.append(lane.record())

    def _pick(self, lane: TargetQueue, topic: CatalogTopic) -> list[Found]:
        """Return the next batch from the queue, as large as the topic takes."""
        batch: list[Found] = []
        size_bytes = HEADER_BYTES
        while lane.queue and len(batch) < BATCH_MESSAGES:
            found = lane.queue[0]
            added_bytes = delivered_bytes(found.scheduled_id, found.message)
            if batch and size_bytes + added_bytes > topic.max_message_bytes:
                break
            lane.queue.popleft()
            is_live = self._pending.is_live(digest_of(found.scheduled_id), found.entry)
            if is_live and _fault(found.scheduled_id, found.message, topic) is None:
                batch.append(found)
                size_bytes += added_bytes
                continue
            self._let_go([found])
            if is_live:
                self._parked.setdefault(topic.topic, []).append(found.entry)
        return batch

    def _produce(self, lane: TargetQueue, now: int) -> list[LoopEffect]:
        assert lane.target is not None
        assert lane.target.intent is not None
        assert self.producer_id is not None
        lane.step = "producing"
        lane.call += 1
        topic, partition = lane.tp
        frame = delivery_batch(
            lane.batch,
            self.clocks(now).wall_ms,
            self.producer_id,
            lane.target.epoch,
            lane.target.intent.base_sequence,
            self._latest_ms(lane, now),
        )
        return [
            Call(
                (MOVE, lane.tp, lane.call),
                partition_address(topic, partition),
                Produce(topic=topic, partition=partition, acks="all"),
                ProduceReply,
                (frame,),
                PRODUCE_TIMEOUT_MS,
            ),
            SetTimer((SLOW, lane.tp), now + SLOW_MS),
        ]

    def _latest_ms(self, lane: TargetQueue, now: int) -> int:
        topic = self._topic(lane)
        return now if topic is None else latest_ms(self.clocks(now).wall_ms, topic.max_timestamp_ahead_ms)

    def _on_outcome(self, event: Answered | Failed, now: int) -> list[LoopEffect]:
        kind, tp, call = event.key if len(event.key) == 3 else (None, NOWHERE, 0)
        lane = self._lanes.get(tp) if kind in (MOVE, SCAN) else None
        if lane is None or lane.call != call:
            return []
        if kind == SCAN:
            return self._on_scanned(lane, event, now)
        if isinstance(event, Failed):
            return self._fail(lane, event.error, now)
        result = event.reply.batches[0]
        if result.error is not None:
            return self._fail(lane, result.error, now)
        self._let_go(lane.batch)
        lane.arrived(result.base_offset, tuple(found.scheduled_id for found in lane.batch))
        self._rest(lane)
        return [CancelTimer((SLOW, tp))]

    def _fail(self, lane: TargetQueue, error: ErrorBody, now: int) -> list[LoopEffect]:
        self._let_go(lane.batch)
        lane.held.extendleft(reversed(self._drained(lane)))
        delay_ms = lane.failed(f"{error.code}: {error.message}")
        if isinstance(error.retry_after_ms, int):
            delay_ms = max(delay_ms, error.retry_after_ms)
        # A refusal may concern this attempt alone: an earlier one may be in the log.
        lane.must_scan = lane.must_scan or not error.retriable
        return [CancelTimer((SLOW, lane.tp)), SetTimer((RETRY, lane.tp), now + delay_ms)]

    def _on_timer(self, key: Any, now: int) -> list[LoopEffect]:
        if key == DUE:
            self._wake_ms = None
            return []
        kind, tp = key if isinstance(key, tuple) and len(key) == 2 else (None, NOWHERE)
        lane = self._lanes.get(tp) if kind in (RETRY, SLOW) else None
        if lane is not None and kind == RETRY and lane.step == "waiting":
            return self._retry(lane, now)
        if lane is not None and kind == SLOW and lane.step == "producing":
            lane.is_slow = True
            lane.reason = "its partition has not answered yet"
            lane.held.extendleft(reversed(self._drained(lane)))
        return []

    def _retry(self, lane: TargetQueue, now: int) -> list[LoopEffect]:
        topic = self._topic(lane)
        if topic is None:
            return []
        if lane.tp[1] >= topic.partitions:
            self._dissolve(lane)
        elif lane.may_repeat(topic, now):
            lane.step = "reading"
            self._rereading.append(lane)
        else:
            return [CancelTimer((RETRY, lane.tp)), *self._scan(lane)]
        return [CancelTimer((RETRY, lane.tp))]

    # Searching for a batch

    def _scan(self, lane: TargetQueue) -> list[LoopEffect]:
        assert lane.target is not None
        assert lane.target.intent is not None
        assert self.producer_id is not None
        lane.step = "scanning"
        lane.call += 1
        intent, topic = lane.target.intent, self._topic(lane)
        wanted = Wanted(self.producer_id, lane.target.epoch, intent.base_sequence, len(intent.offsets))
        is_same = topic is not None and topic.topic_id == lane.target.topic_id
        from_offset = lane.target.from_offset if is_same else 0
        scan = Scan((SCAN, lane.tp, lane.call), lane.tp, wanted, from_offset)
        self._scans[lane.tp] = scan
        return [scan.begin()]

    def _on_scanned(self, lane: TargetQueue, event: Answered | Failed, now: int) -> list[LoopEffect]:
        scan = self._scans[lane.tp]
        if isinstance(event, Failed):
            if event.error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                del self._scans[lane.tp]
                lane.must_scan = True
                return self._fail(lane, event.error, now)
            verdict = "missing"  # the log ends before the batch could begin: it is another log
        elif isinstance(event.reply, ListOffsetsReply):
            return [scan.on_begin(event.reply)]
        else:
            verdict = scan.on_fetched(event.reply, event.payload)
        if verdict == "reading":
            return [scan.fetch()]
        del self._scans[lane.tp]
        if verdict == "missing":
            self._dissolve(lane)
        elif lane.flight:
            lane.step = "naming"
            self._rereading.append(lane)
        else:
            lane.arrived(None, ())
            self._rest(lane)
        return []

    def _dissolve(self, lane: TargetQueue) -> None:
        for entry in lane.flight:
            del self._intended[entry]
        self._decided.append(lane.dissolve())

    # Bookkeeping

    def _topic(self, lane: TargetQueue) -> CatalogTopic | None:
        return (self._topics or {}).get(lane.tp[0])

    def _rest(self, lane: TargetQueue) -> None:
        lane.step = "idle"
        self._busy[lane.tp] = lane

    def _drained(self, lane: TargetQueue) -> list[int]:
        """Empty the queue and return its entries; their contents are dropped."""
        self._let_go(lane.queue)
        entries = [found.entry for found in lane.queue]
        lane.queue.clear()
        return entries

    def _hold(self, contents: Iterable[Found]) -> None:
        for found in contents:
            self._messages += 1
            self._bytes += found.message.size_bytes

    def _let_go(self, contents: Iterable[Found]) -> None:
        for found in contents:
            self._messages -= 1
            self._bytes -= found.message.size_bytes


def _flights(
    targets: dict[TopicPartition, Target], pending: PendingMessages
) -> Iterator[tuple[TopicPartition, Target, list[int]]]:
    """Return each target with the entries of its intent that are still pending."""
    intents = [target.intent for target in targets.values() if target.intent is not None]
    wanted = {offset for intent in intents for offset in intent.offsets}
    entries = {
        offset_of(entry): entry for _, entry in pending.entries() if wanted and offset_of(entry) in wanted
    }
    for tp, target in targets.items():
        offsets = target.intent.offsets if target.intent is not None else ()
        yield tp, target, [entries[offset] for offset in offsets if offset in entries]


def _partition(message: Message, topic: CatalogTopic) -> int:
    if message.partition is not None:
        return message.partition
    assert message.key is not None
    return partition_for_key(message.key, topic.partitions)


def _fault(scheduled_id: str, message: Message, topic: CatalogTopic) -> str | None:
    """Return the reason why the topic in its present state cannot take the message."""
    if message.partition is not None and message.partition >= topic.partitions:
        return f"topic {topic.topic!r} has no partition {message.partition}"
    size_bytes = HEADER_BYTES + delivered_bytes(scheduled_id, message)
    if size_bytes > topic.max_message_bytes:
        return f"topic {topic.topic!r} takes {topic.max_message_bytes} bytes, this needs {size_bytes}"
    return None
