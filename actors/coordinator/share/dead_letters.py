"""Dead records of a share group on their way to the dead-letter topic, a limited number from each partition. Pure.

Owns the copies in flight and the alarms. Must never write the dead letter of a record whose death is not durable: it
might be delivered again. The record is done only when its dead letter is durable; a copy repeated by a successor has
the dedup id of the first, so the dead-letter topic drops the duplicate. Called by group.py.

    dead, durable --read from its partition--> dead letter --produced--> done
    no dead-letter topic configured            parked: stays dead, keeps its place, under an alarm
    it does not exist, or refuses              as parked, retried every REFUSED_MS
    a partition is offline                     retried every RETRY_MS
    retention has deleted the record           done: there is no record left to copy

The format is `transport/dead_letters.py`.
"""

from bisect import bisect_right
from typing import TypeAlias

from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.batch import Headers, InvalidBatch
from ....transport.dead_letters import DeadLetterHeaders, dead_letter_id, encode
from ....transport.deduplication import (
    identified_batch,
    identified_headers,
    partition_for_dedup_id,
)
from ....transport.fetched_records import open_batch
from ....transport.lineage import lineage_of
from ....transport.log_access.reader import Fetched
from ....transport.log_access.writer import append_call, result_of
from ....transport.machine import Answered, Failed, LoopEffect, SetTimer
from ....transport.partitioner import partition_for_key
from ....transport.protocol.data import FetchedRecord
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .keyed import EXPIRED_RECORD
from .partition import EXPIRED, GONE, DeadRecord, SharePartition
from .partitions import SharePartitions
from .records import ShareProgress
from .spans import State
from .tails import RETRY_MS

REFUSED_MS = 2_000
MAX_COPIES = 64
"""Most copies in flight from one partition: each end is recorded, and one record covers many ends."""
_CLASSES = {EXPIRED: "lock_expired", GONE: "member_gone", EXPIRED_RECORD: "record_expired"}
"""Classes of reasons for counters; any other reason is a member's own, `failed`."""
REASON = "not accepted within the allowed number of deliveries"


class DeadLetterReadCall(Struct, frozen=True):
    """The read of a dead record from its partition."""

    tp: TopicPartition
    offset: int


class DeadLetterWriteCall(Struct, frozen=True):
    """The write of its dead letter."""

    tp: TopicPartition
    offset: int


class DeadLetterRetryTimer(Struct, frozen=True):
    """The time of the next attempt to copy a dead record."""

    tp: TopicPartition
    offset: int


CopyCall: TypeAlias = DeadLetterReadCall | DeadLetterWriteCall


class Copy(Struct, frozen=True):
    """A copy in flight."""

    part: SharePartition
    dead: DeadRecord


class DeadLetters:
    def __init__(self, group: str, partitions: SharePartitions) -> None:
        self._group = group
        self._partitions = partitions
        self._durable: dict[TopicPartition, list[range]] = {}
        """Offsets whose death is durable."""
        self._copies: dict[tuple[TopicPartition, int], Copy] = {}
        """Copies in flight by topic-partition and offset."""
        self._copy_counts: dict[TopicPartition, int] = {}
        self._refused: dict[TopicPartition, str] = {}
        self.written: dict[str, int] = {}
        """Dead letters written since the start, by the class of their reason."""

    @property
    def has_work(self) -> bool:
        return bool(self._durable or self._copies)

    def on_durable(self, tp: TopicPartition, progress: ShareProgress | None) -> None:
        found: list[range] = []
        position = progress.start if progress is not None else 0
        for count, state, _, _ in progress.runs if progress is not None else ():
            if state == State.DEAD:
                found.append(range(position, position + count))
            position += count
        if found:
            self._durable[tp] = found
        else:
            self._durable.pop(tp, None)
            self._refused.pop(tp, None)

    def alarms(self, dead_letter: str | None) -> tuple[str, ...]:
        found: list[str] = []
        for tp, offsets in sorted(self._durable.items()):
            why = "no dead-letter topic is configured" if dead_letter is None else self._refused.get(tp)
            if why is not None:
                count = sum(len(some) for some in offsets)
                found.append(
                    f"{tp[0]}/{tp[1]}: dead records wait, {count} of them, from offset {offsets[0][0]}: {why}"
                )
        return tuple(found[:10])

    def advance(self, dead_letter: str | None) -> list[LoopEffect]:
        """Start the copies that can start."""
        if dead_letter is None:
            return []
        effects: list[LoopEffect] = []
        for tp, offsets in self._durable.items():
            part, count = self._partitions.get(tp), self._copy_counts.get(tp, 0)
            # Refill when half of them have ended: the search walks over all runs.
            if part is None or count > MAX_COPIES // 2:
                continue
            for dead in part.dead():
                if count >= MAX_COPIES:
                    break
                if (tp, dead.offset) not in self._copies and _is_in(dead.offset, offsets):
                    count += 1
                    self._copies[tp, dead.offset] = Copy(part, dead)
                    read = DeadLetterReadCall(tp, dead.offset)
                    effects.append(part.reader(tp, dead.offset).fetch(read, max_bytes=1))
            self._copy_counts[tp] = count
        return effects

    def on_rested(self, tp: TopicPartition, offset: int) -> None:
        """Let `advance` start the copy again."""
        self._end(tp, offset)

    def on_outcome(
        self, call: CopyCall, event: Answered | Failed, dead_letter: str | None, now: int
    ) -> list[LoopEffect]:
        """Handle the answer of a copy; the record is done once its dead letter is written."""
        copy = self._copies[call.tp, call.offset]
        if self._partitions.get(call.tp) is not copy.part:
            self._end(call.tp, call.offset)
            return []
        is_read = isinstance(call, DeadLetterReadCall)
        if isinstance(event, Failed):
            if not is_read or event.error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                return self._rest(call.tp, call.offset, event.error, now)
        elif is_read:
            try:
                reader = copy.part.reader(call.tp, call.offset)
                found = _record_at(reader.on_fetched(event.reply, event.payload))
            except (ProtocolError, InvalidBatch) as error:
                return self._rest(call.tp, call.offset, ErrorBody("CORRUPT_LOG", str(error)), now)
            if found is not None:
                return self._produce(call.tp, copy, *found, dead_letter, now)
        else:
            refusal = result_of(event).error
            if refusal is not None:
                return self._rest(call.tp, call.offset, refusal, now)
            reason = _CLASSES.get(copy.dead.reason, "failed")
            self.written[reason] = self.written.get(reason, 0) + 1
        copy.part.settle(call.offset, call.offset + 1)
        self._partitions.mark(call.tp)
        self._end(call.tp, call.offset)
        self._refused.pop(call.tp, None)
        return []

    def _end(self, tp: TopicPartition, offset: int) -> None:
        del self._copies[tp, offset]
        self._copy_counts[tp] -= 1

    def _produce(
        self,
        tp: TopicPartition,
        copy: Copy,
        record: FetchedRecord,
        leader_epoch: int,
        topic: str | None,
        now: int,
    ) -> list[LoopEffect]:
        dead, known = copy.dead, None if topic is None else self._partitions.topic(topic)
        if topic is None or known is None:
            error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"there is no topic {topic!r} for dead letters")
            return self._rest(tp, dead.offset, error, now)
        lineage = lineage_of(copy.part.topic_id, None)
        dedup_id = dead_letter_id(self._group, tp, dead.offset, leader_epoch, lineage)
        headers = identified_headers(_headers(self._group, tp, dead, record, now), dedup_id)
        if record.key is not None:
            partition = partition_for_key(record.key, known.partitions)
        else:
            partition = partition_for_dedup_id(dedup_id, known.partitions)
        batch = identified_batch((record.key, record.value, 0, headers), now)
        return [append_call(DeadLetterWriteCall(tp, dead.offset), TopicPartition(topic, partition), batch)]

    def _rest(self, tp: TopicPartition, offset: int, error: ErrorBody, now: int) -> list[LoopEffect]:
        if not error.retriable:
            self._refused[tp] = f"{error.code}: {error.message}"
        pause_ms = RETRY_MS if error.retriable else REFUSED_MS
        return [SetTimer(DeadLetterRetryTimer(tp, offset), now + pause_ms)]


def _is_in(offset: int, ranges: list[range]) -> bool:
    index = bisect_right(ranges, offset, key=lambda some: some.start) - 1
    return index >= 0 and offset in ranges[index]


def _headers(group: str, tp: TopicPartition, dead: DeadRecord, record: FetchedRecord, now: int) -> Headers:
    failure = DeadLetterHeaders(
        topic=tp[0],
        partition=tp[1],
        offset=dead.offset,
        timestamp_ms=record.timestamp_ms,
        group=group,
        failures=dead.deliveries,
        deliveries=dead.deliveries,
        last_failure_ms=now,
        reason=dead.reason if dead.reason.strip() else REASON,
    )
    return encode(record.headers, failure)


def _record_at(fetched: Fetched) -> tuple[FetchedRecord, int] | None:
    """Return the record at the position before and the leader epoch of its batch; None if the log holds none there."""
    for header, frame in fetched.batches():
        if header.base_offset > fetched.offset or header.is_control:
            return None
        [record] = open_batch(header, frame, fetched.offset, 1)
        return record, header.leader_epoch
    return None
