"""One partition of a share group: decides which member has which records. Pure.

Owns the runs (`spans.py`), the reasons of dead records and the limits. Must never give out a record that is acquired,
done or dead. Every change appears in `progress`, which the coordinator records before it answers. Called by the modules
of the group.

    available --acquire--> acquired (deliveries + 1)        available: not before its `until`
    acquired --accept--> done        --release--> available (deliveries - 1)       --renew--> acquired
             --fail, lock over--> available; with as many deliveries as allowed: dead
             --reject--> dead --its dead letter is written--> done
"""

from collections.abc import Iterator

from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.log_access.reader import PartitionReader
from ....transport.protocol.errors import ErrorCode, ProtocolError
from ....transport.protocol.shares import (
    MAX_LOCKED,
    MAX_LOCKED_BYTES,
    Acknowledgement,
    Expired,
)
from .fair_queue import FairQueue
from .losses import Loss, Losses
from .records import ShareProgress, runs_of, spans_of
from .retries import Retries
from .spans import Span, State

MAX_RUNS = 10_000
"""Most runs of records in different states; beyond, no undelivered record is given out until some are done."""
MAX_REASONS = 500
"""Most reasons of dead records, each up to 1,000 characters: they are part of every record of progress."""
EXPIRED = "its lock expired"
GONE = "the connection of its member was lost"
GONE_TOO_OFTEN = "the connections of its members were lost {count} times"


class DeadRecord(Struct, frozen=True):
    offset: int
    deliveries: int
    reason: str


class SharePartition:
    def __init__(self, progress: ShareProgress) -> None:
        self.topic_id = progress.topic_id
        self.leader_epoch = progress.leader_epoch
        """Leader epoch of the partition from which this progress was read."""
        self.spans = spans_of(progress)
        self.is_verified = not len(self.spans)
        """True if the log since the partition's latest start is known to hold the records of this progress."""
        self._reasons = dict(progress.reasons)
        self.retries = Retries(Losses(progress.losses))
        self.tail = self.spans.end
        """End of the readable log when it was last fetched."""
        self.queue: FairQueue | None = None
        """The order of deliveries, in a group that looks at keys: then every record below `end` is in it or done."""
        self.looked_ms = 0
        """The time of the latest look for records behind the known ones while these wait."""
        self.expired: Expired = "deliver"
        """The end of records whose time is over when they are chosen."""
        self._record_bytes = 1

    def progress(self, now: int) -> ShareProgress:
        runs, reasons = runs_of(self.spans), dict(self._reasons)
        return ShareProgress(
            self.topic_id, self.spans.start, runs, reasons, now, self.leader_epoch, self.retries.losses.runs
        )

    @property
    def end(self) -> int:
        return self.spans.end

    def reader(self, tp: TopicPartition, offset: int) -> PartitionReader:
        """Return a reader of the log that this progress belongs to."""
        return PartitionReader(tp, offset, self.topic_id, self.leader_epoch)

    @property
    def wants_tail(self) -> bool:
        """Return True if all known records have been delivered, or may no longer exist."""
        is_passed = self.spans.end >= self.tail and len(self.spans) < MAX_RUNS
        return is_passed or not self.is_verified

    def can_give(self, now: int) -> bool:
        """Return True if an `acquire` would find a record: one check for all waiting requests."""
        if not self.is_verified:
            return False
        if self.queue is not None:
            return self.queue.can_give(now) and self.room > 0
        is_fresh = self.tail > self.spans.end and len(self.spans) < MAX_RUNS
        return (
            is_fresh or any(span.state == State.AVAILABLE and span.until <= now for span in self.spans)
        ) and self.room > 0

    @property
    def room(self) -> int:
        """Return the number of records that may be locked in addition; at least one if none is locked."""
        limit = min(MAX_LOCKED, max(1, MAX_LOCKED_BYTES // self._record_bytes))
        return max(0, limit - self.count(State.ACQUIRED))

    def acquire(self, member: str, limit: int, now: int, until: int) -> list[Span]:
        """Lock up to `limit` records for the member; the earliest that are available."""
        limit = min(limit, self.room)
        taken: list[Span] = []
        for span in [span for span in self.spans if span.state == State.AVAILABLE and span.until <= now]:
            if limit <= 0:
                break
            end = min(span.end, span.first + limit)
            taken.append(Span(span.first, end, State.ACQUIRED, span.deliveries + 1, until, member, now))
            self.spans.put(taken[-1])
            limit -= end - span.first
        fresh = min(limit, self.tail - self.spans.end)
        if fresh > 0 and len(self.spans) < MAX_RUNS:
            first = self.spans.end
            taken.append(Span(first, first + fresh, State.ACQUIRED, 1, until, member, now))
            self.spans.append(taken[-1])
        return taken

    def acknowledge(
        self, member: str, acknowledgement: Acknowledgement, now: int, until: int, limit: int
    ) -> None:
        """Apply an acknowledgement. Raises ProtocolError without any change unless the member holds all its offsets."""
        first, last = acknowledgement.first_offset, acknowledgement.last_offset
        end = first + 1 if last is None else last + 1
        if end <= first:
            message = f"last_offset: is before first_offset in {_where(acknowledgement, end)}"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        held = self.spans.within(first, end)
        count = acknowledgement.delivery_count
        if sum(span.count for span in held if _holds(span, member, count, now)) != end - first:
            message = (
                f"{member} does not hold all of {_where(acknowledgement, end)}: it never did, its lock expired,"
                " or it has acknowledged"
            )
            raise ProtocolError(ErrorCode.NOT_ACQUIRED, message)
        for span in held:
            self._judge(span, acknowledgement, now, until, limit)

    def _judge(self, span: Span, acknowledgement: Acknowledgement, now: int, until: int, limit: int) -> None:
        first, end, deliveries = span.first, span.end, span.deliveries
        match acknowledgement.verdict:
            case "accept":
                self.spans.put(Span(first, end, State.DONE))
                self.retries.ended(first, end)
            case "release":
                self.spans.put(Span(first, end, State.AVAILABLE, deliveries - 1))
            case "renew":
                self.spans.put(Span(first, end, State.ACQUIRED, deliveries, until, span.member, span.since))
            case "reject":
                self.dead_letter(span, acknowledgement.reason)
            case "fail" if deliveries >= limit:
                self.dead_letter(span, acknowledgement.reason)
            case "fail":
                ready_at = now + acknowledgement.delay_ms if acknowledgement.delay_ms else 0
                self.spans.put(Span(first, end, State.AVAILABLE, deliveries, ready_at))
                self.retries.failed(span, acknowledgement.reason, now)

    def dead_letter(self, span: Span, reason: str) -> None:
        self.retries.ended(span.first, span.end)
        self.spans.put(Span(span.first, span.end, State.DEAD, span.deliveries))
        room = MAX_REASONS - len(self._reasons)
        if reason and room > 0:
            self._reasons.update(dict.fromkeys(range(span.first, min(span.end, span.first + room)), reason))

    def expire(self, now: int, limit: int) -> bool:
        """Take back the records whose locks have expired; return True if there were any."""
        expired = [span for span in self.spans if span.state == State.ACQUIRED and span.until <= now]
        for span in expired:
            if span.deliveries >= limit:
                self.dead_letter(span, EXPIRED)
            else:
                self.spans.put(Span(span.first, span.end, State.AVAILABLE, span.deliveries))
                self.retries.failed(span, EXPIRED, now)
        return bool(expired)

    def next_due(self, now: int) -> int | None:
        """Return the time at which a lock or a delay ends next, or a record has been failing for too long."""
        is_timed = (State.ACQUIRED, State.AVAILABLE)
        times = [span.until for span in self.spans if span.state in is_timed and span.until > now]
        alarm_at = self.retries.next_alarm(now)
        if self.queue is not None and (free_at := self.queue.next_due(now)) is not None:
            times.append(free_at)
        return min(times if alarm_at is None else [*times, alarm_at], default=None)

    def dead_letter_unreadable(self, span: Span, reason: str) -> None:
        """Mark unreadable records as dead. The reason is kept once for all of them; no dead letters are written."""
        for held in self._still_locked(span):
            self.dead_letter(held, "")
            self._reasons[held.first] = reason

    def settle_gap(self, span: Span) -> None:
        """Mark these locked offsets as done: they hold no records."""
        for held in self._still_locked(span):
            self.spans.put(Span(held.first, held.end, State.DONE))
            self.retries.ended(held.first, held.end)

    def take_back(self, member: str, loss: Loss | None, now: int) -> bool:
        """Take back all records that the member holds; return True if there were any.

        Without `loss` the member returns them, and the deliveries do not count. Otherwise it is lost, and a record may
        have killed it: the deliveries count as failed, or by themselves as lost, and as many may be lost as may fail.
        """
        held = [span for span in self.spans if span.state == State.ACQUIRED and span.member == member]
        for span in held:
            if loss is None:
                self.spans.put(Span(span.first, span.end, State.AVAILABLE, span.deliveries - 1))
                continue
            for part, losses in [(span, 0)] if loss.is_charged else self.retries.losses.lost(span):
                if losses >= loss.limit:
                    self.dead_letter(part, GONE_TOO_OFTEN.format(count=losses))
                elif losses:
                    self.spans.put(Span(part.first, part.end, State.AVAILABLE, part.deliveries - 1))
                elif part.deliveries >= loss.limit:
                    self.dead_letter(part, GONE)
                else:
                    self.spans.put(Span(part.first, part.end, State.AVAILABLE, part.deliveries))
                    self.retries.failed(part, GONE, now)
        return bool(held)

    def return_unread(self, span: Span) -> None:
        """Undo a lock that the member was never notified of."""
        for held in self._still_locked(span):
            self.spans.put(Span(held.first, held.end, State.AVAILABLE, held.deliveries - 1))

    def _still_locked(self, span: Span) -> list[Span]:
        return [
            held
            for held in self.spans.within(span.first, span.end)
            if held.state == State.ACQUIRED and held.member == span.member and held.until == span.until
        ]

    def settle(self, first: int, end: int) -> None:
        """Mark these records as done: their dead letters are written."""
        if max(first, self.spans.start) < end:
            self.spans.put(Span(max(first, self.spans.start), end, State.DONE))
            for offset in range(first, end):
                self._reasons.pop(offset, None)

    def on_tail(self, log_start: int, tail: int, record_bytes: int | None = None) -> bool:
        """Update the log's bounds and record size; return True if a deletion by retention changed the progress."""
        self._record_bytes = record_bytes or self._record_bytes
        self.tail = max(tail, self.spans.end)
        if log_start <= self.spans.start:
            return False
        self.spans.skip_to(log_start)
        if self.queue is not None:
            self.queue.forget_outside(self.spans.start, 2**63)
        self.retries.ended(0, log_start)
        self.tail = max(tail, self.spans.end)
        self._reasons = {offset: text for offset, text in self._reasons.items() if offset >= log_start}
        return True

    def cut(self, end: int) -> None:
        """Forget the offsets from `end` on, where the log was cut: records there now were never delivered."""
        self.spans.cut_at(end)
        if self.queue is not None:
            self.queue.forget_outside(self.spans.start, end)
        self.retries.ended(end, 2**63)
        self._reasons = {offset: text for offset, text in self._reasons.items() if offset < end}
        self.tail = self.spans.end
        self.leader_epoch = None

    def dead(self) -> Iterator[DeadRecord]:
        for span in self.spans:
            if span.state == State.DEAD:
                for offset in range(span.first, span.end):
                    yield DeadRecord(offset, span.deliveries, self._reasons.get(offset, ""))

    @property
    def is_held(self) -> bool:
        return any(span.state == State.ACQUIRED for span in self.spans)

    def members(self) -> set[str]:
        return {span.member for span in self.spans if span.state == State.ACQUIRED}

    def count(self, state: State) -> int:
        return sum(span.count for span in self.spans if span.state == state)


def _where(acknowledgement: Acknowledgement, end: int) -> str:
    at = f"{acknowledgement.topic}/{acknowledgement.partition}"
    return f"{at}, offsets {acknowledgement.first_offset} to {end - 1}"


def _holds(span: Span, member: str, delivery_count: int | None, now: int) -> bool:
    return (
        span.state == State.ACQUIRED
        and span.member == member
        and span.until > now
        and (delivery_count is None or span.deliveries == delivery_count)
    )
