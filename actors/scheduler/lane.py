"""One partition that messages are delivered to: what waits for it, and the one batch that is on its way. Pure.

Owns the way of a batch from intent to delivery, and what is known of the partition. At most one batch is out, so the
partition's memory of a producer's last batches always covers it. Called by moves.py, which gives it messages, calls in
its name and records what it decides.

    step          meaning                                                    ends by
    idle          nothing is out                                             messages in the queue: intend
    recording     a Moved is on its way into the log                         durable
    reading       the intent's contents are read again                       read: producing; some are gone: scanning
    producing     the batch is out                                           answered: idle, and the end is recorded;
                                                                             failed: waiting
    waiting       until the timer, or the partition is up, or the topic is   reading, or scanning when it may be there
                  there                                                      and the partition may not say so
    scanning      is the batch there?                                        found: naming; not there: dissolved
    naming        the delivered messages' ids are read again                 read: idle, and the end is recorded

A batch that failed keeps its sequence, so a partition that has it answers with the first answer. That memory ends (a day
of silence, a topic made anew, a refusal for another reason before the sequence is looked at); then the partition's log is
searched from where the batch can be. What is not there is *dissolved*: the next epoch begins, and the messages are due
again.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from ...transport.addresses import TopicPartition
from ...transport.batch import SEQUENCE_LIMIT
from ...transport.protocol.topics import CatalogTopic
from .pending import offset_of
from .reading import Found
from .records import Intent, Moved, Target

RETRY_MS = 100
RETRY_MAX_MS = 1_000
SURE_MS = 12 * 3600 * 1000
"""For so long a partition surely knows a producer: half of what it keeps silent ones."""
EPOCH_LIMIT = 2**15

Step = Literal["idle", "recording", "reading", "producing", "waiting", "scanning", "naming"]


class TargetQueue:
    def __init__(self, tp: TopicPartition, target: Target | None, flight: Sequence[int] = ()) -> None:
        """`flight`: the entries of the target's intent."""
        self.tp = tp
        self.target = target
        """As decided."""
        self.step: Step = "waiting" if flight else "idle"
        self.reason: str | None = "on its way when the scheduler was restarted" if flight else None
        """Why nothing is delivered at the moment."""
        self.queue: deque[Found] = deque()
        self.held: deque[int] = deque()
        """Entries for which there was no room in the queue, or no use."""
        self.flight: list[int] = list(flight)
        self.batch: list[Found] = []
        """The contents of the flight, when they are in memory."""
        intent = target.intent if target is not None else None
        self.must_scan = intent is not None and len(flight) < len(intent.offsets)
        """Whether the batch cannot be made again, or the partition would not say whether it has it."""
        self.is_slow = False
        self.call = 0
        """Counts the calls made in its name; an answer to an earlier one is not heard."""
        self.delivered: tuple[str, ...] = ()
        """What has been delivered and is not recorded as such."""
        self._delay_ms = RETRY_MS

    @property
    def takes_messages(self) -> bool:
        """Whether there is a use for contents in memory."""
        return not self.is_slow and self.step not in ("waiting", "scanning")

    def intend(self, batch: list[Found], topic: CatalogTopic, now: int) -> Moved:
        """The next batch is decided, and with it that the one before has been delivered."""
        assert self.step == "idle"
        assert not self.flight
        before = self._successor(topic, now)
        intent = Intent(before.next_sequence, tuple(offset_of(found.entry) for found in batch))
        self.target = Target(
            topic_id=topic.topic_id,
            epoch=before.epoch,
            next_sequence=(before.next_sequence + len(batch)) % SEQUENCE_LIMIT,
            from_offset=before.from_offset,
            decided_ms=now,
            intent=intent,
        )
        self.flight = [found.entry for found in batch]
        self.batch = batch
        self.must_scan = False
        return self.record()

    def record(self) -> Moved:
        """What there is to say of the partition: what was delivered, what comes next."""
        assert self.step == "idle"
        self.step = "recording"
        delivered, self.delivered = self.delivered, ()
        return Moved(self.tp, self.target, delivered)

    def _successor(self, topic: CatalogTopic, now: int) -> Target:
        """Under which epoch and sequence the next batch goes."""
        target = self.target
        if target is None:
            return Target(topic.topic_id, 0, 0, 0, now)
        if target.topic_id != topic.topic_id:
            return Target(topic.topic_id, _next_epoch(target), 0, 0, now)
        if not _is_fresh(target, now):
            return Target(topic.topic_id, _next_epoch(target), 0, target.from_offset, now)
        return target

    def may_repeat(self, topic: CatalogTopic | None, now: int) -> bool:
        """Whether the partition will know the batch if it has it."""
        assert self.target is not None
        return (
            not self.must_scan
            and topic is not None
            and topic.topic_id == self.target.topic_id
            and _is_fresh(self.target, now)
        )

    def arrived(self, base_offset: int | None, delivered: tuple[str, ...]) -> None:
        """The batch is in the partition's log, at an offset if that is known, with these messages."""
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
        self._end_flight()

    def dissolve(self) -> Moved:
        """The batch is nowhere, and cannot come any more: its messages are due again once that is recorded."""
        assert self.target is not None
        self.target = Target(
            topic_id=self.target.topic_id,
            epoch=_next_epoch(self.target),
            next_sequence=0,
            from_offset=self.target.from_offset,
            decided_ms=self.target.decided_ms,
        )
        self.held.extendleft(reversed(self.flight))
        self._end_flight()
        return self.record()

    def _end_flight(self) -> None:
        self.flight, self.batch = [], []
        self.step = "idle"
        self.reason = None
        self.is_slow = self.must_scan = False
        self._delay_ms = RETRY_MS

    def failed(self, reason: str) -> int:
        """Wait; for how long, in milliseconds."""
        self.step = "waiting"
        self.reason = reason
        self.batch = []
        self.call += 1
        delay_ms = self._delay_ms
        self._delay_ms = min(2 * delay_ms, RETRY_MAX_MS)
        return delay_ms


def _is_fresh(target: Target, now: int) -> bool:
    """Not when it was decided in what is the future: the machine has booted since, and how long ago is unknown."""
    return 0 <= now - target.decided_ms <= SURE_MS


def _next_epoch(target: Target) -> int:
    assert target.epoch + 1 < EPOCH_LIMIT, f"{target} has used up its epochs"
    return target.epoch + 1
