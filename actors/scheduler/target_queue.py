"""One target partition of deliveries: its waiting messages, and the one batch in flight. Pure.

Owns the path of a batch from intent to delivery, and the known state of the partition. At most one batch is in
flight, so the partition's memory of a producer's last batches always covers it. Called by routing.py,
which gives it messages, and by moves.py, which makes its calls.

    step          meaning                                                    ends by
    idle          no batch is in flight                                      messages in the queue: intend
    recording     a Moved is being appended to the log                       durable
    reading       the intent's contents are read again                       read: producing; some are gone: searching
    producing     the batch is sent                                          answered: idle, and the end is recorded;
                                                                             failed: waiting
    waiting       until the timer, or the partition is up, or the topic is   reading, or searching when it may be there
                  there                                                      and the partition may not say so
    searching     is the batch there?                                        found: naming; not there: dissolved
    naming        the delivered messages' ids are read again                 read: idle, and the end is recorded

A batch that failed keeps its sequence, so a partition that has it repeats the first answer. That memory ends (a day
of silence, a recreated topic, a refusal for another reason before the sequence is checked); then the partition's log
is searched from the first offset that the batch can have. A batch that is not found is *dissolved*: the next epoch
begins, and the messages are due again.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from ...transport.addresses import TopicPartition
from ...transport.batch import SEQUENCE_LIMIT, Record, build
from ...transport.protocol.topics import CatalogTopic
from .pending_messages import offset_of
from .reading import ReadMessage
from .records import Intent, Moved, Target

SCHEDULED_ID_HEADER = "scheduled-id"
SCHEDULED_AT_HEADER = "scheduled-at"
SCHEDULED_FOR_HEADER = "scheduled-for"

RETRY_MS = 100
RETRY_MAX_MS = 1_000
SURE_MS = 12 * 3600 * 1000
"""A partition certainly knows a producer for this long: half the time after which it forgets silent ones."""
EPOCH_LIMIT = 2**15

Step = Literal["idle", "recording", "reading", "producing", "waiting", "searching", "naming"]


class TargetQueue:
    def __init__(self, tp: TopicPartition, target: Target | None, in_flight: Sequence[int] = ()) -> None:
        """Create the queue of a target. `in_flight`: the entries of the target's intent."""
        self.tp = tp
        self.target = target
        """The target as decided, durable or not."""
        self.step: Step = "waiting" if in_flight else "idle"
        self.reason: str | None = "on its way when the scheduler was restarted" if in_flight else None
        """The reason why no message is delivered at the moment."""
        self.messages: deque[ReadMessage] = deque()
        """Waiting messages with their contents."""
        self.held: deque[int] = deque()
        """Entries of messages that wait without their contents."""
        self.in_flight: list[int] = list(in_flight)
        self.batch: list[ReadMessage] = []
        """The contents of the batch in flight, when they are in memory."""
        intent = target.intent if target is not None else None
        self.must_search = intent is not None and len(in_flight) < len(intent.offsets)
        """True if the batch cannot be built again, or the partition could not report whether it has it."""
        self.is_slow = False
        self.call = 0
        """The number of calls made for this target; an answer to an earlier one is ignored."""
        self.delivered: tuple[str, ...] = ()
        """Delivered messages that are not recorded as such yet."""
        self._delay_ms = RETRY_MS

    @property
    def takes_messages(self) -> bool:
        """True if the queue can use contents in memory."""
        return not self.is_slow and self.step not in ("waiting", "searching")

    def intend(self, batch: list[ReadMessage], topic: CatalogTopic, now: int) -> Moved:
        """Decide the next batch, which implies that the one before has been delivered."""
        assert self.step == "idle"
        assert not self.in_flight
        before = self._successor(topic, now)
        intent = Intent(before.next_sequence, tuple(offset_of(each.entry) for each in batch))
        self.target = Target(
            topic_id=topic.topic_id,
            epoch=before.epoch,
            next_sequence=(before.next_sequence + len(batch)) % SEQUENCE_LIMIT,
            from_offset=before.from_offset,
            decided_ms=now,
            intent=intent,
        )
        self.in_flight = [each.entry for each in batch]
        self.batch = batch
        self.must_search = False
        return self.record()

    def frame(self, wall_ms: int, producer_id: int, latest_ms: int) -> bytes:
        """Return the batch in flight as it is sent. A record without a timestamp gets the delivery time, `wall_ms`;
        `latest_ms` is the topic's maximum."""
        assert self.target is not None
        assert self.target.intent is not None
        records: list[Record] = []
        for _, scheduled_id, message in self.batch:
            time_ms = wall_ms if message.timestamp_ms is None else min(message.timestamp_ms, latest_ms)
            headers = {
                **(message.headers or {}),
                SCHEDULED_ID_HEADER: scheduled_id,
                SCHEDULED_AT_HEADER: str(message.scheduled_at_ms),
                SCHEDULED_FOR_HEADER: str(message.announced_ms),
            }
            records.append((message.key, message.value, time_ms - wall_ms, headers))
        return build(
            records,
            first_timestamp_ms=wall_ms,
            max_timestamp_ms=wall_ms + max(record[2] for record in records),
            producer_id=producer_id,
            producer_epoch=self.target.epoch,
            base_sequence=self.target.intent.base_sequence,
        )

    def record(self) -> Moved:
        """Return the record of the partition: the delivered messages and the next intent."""
        assert self.step == "idle"
        self.step = "recording"
        delivered, self.delivered = self.delivered, ()
        return Moved(self.tp, self.target, delivered)

    def _successor(self, topic: CatalogTopic, now: int) -> Target:
        """Return the target with the epoch and sequence of the next batch."""
        target = self.target
        if target is None:
            return Target(topic.topic_id, 0, 0, 0, now)
        if target.topic_id != topic.topic_id:
            return Target(topic.topic_id, _next_epoch(target), 0, 0, now)
        if not _is_fresh(target, now):
            return Target(topic.topic_id, _next_epoch(target), 0, target.from_offset, now)
        return target

    def may_repeat(self, topic: CatalogTopic | None, now: int) -> bool:
        """Return True if the partition will recognise the batch if it has it."""
        assert self.target is not None
        return (
            not self.must_search
            and topic is not None
            and topic.topic_id == self.target.topic_id
            and _is_fresh(self.target, now)
        )

    def arrived(self, base_offset: int | None, delivered: tuple[str, ...]) -> None:
        """Note that the batch is in the partition's log, at an offset if that is known, with these messages."""
        assert self.target is not None
        assert self.target.intent is not None
        from_offset = self.target.from_offset
        if base_offset is not None:
            from_offset = max(from_offset, base_offset + len(self.target.intent.offsets))
        self.target = Target(
            topic_id=self.target.topic_id,
            epoch=self.target.epoch,
            next_sequence=self.target.next_sequence,
            from_offset=from_offset,
            decided_ms=self.target.decided_ms,
        )
        self.delivered = delivered
        self._end_batch()

    def dissolve(self) -> Moved:
        """Give up a batch that can no longer be written: its messages are due again once that is recorded."""
        assert self.target is not None
        self.target = Target(
            topic_id=self.target.topic_id,
            epoch=_next_epoch(self.target),
            next_sequence=0,
            from_offset=self.target.from_offset,
            decided_ms=self.target.decided_ms,
        )
        self.held.extendleft(reversed(self.in_flight))
        self._end_batch()
        return self.record()

    def _end_batch(self) -> None:
        self.in_flight, self.batch = [], []
        self.step = "idle"
        self.reason = None
        self.is_slow = self.must_search = False
        self._delay_ms = RETRY_MS

    def failed(self, reason: str) -> int:
        """Start waiting; return the delay in milliseconds."""
        self.step = "waiting"
        self.reason = reason
        self.batch = []
        self.call += 1
        delay_ms = self._delay_ms
        self._delay_ms = min(2 * delay_ms, RETRY_MAX_MS)
        return delay_ms


def _is_fresh(target: Target, now: int) -> bool:
    """Return True if the target was decided recently.

    A time in the future does not count: the machine has booted since, and the age is unknown.
    """
    return 0 <= now - target.decided_ms <= SURE_MS


def _next_epoch(target: Target) -> int:
    assert target.epoch + 1 < EPOCH_LIMIT, f"{target} has used up its epochs"
    return target.epoch + 1
