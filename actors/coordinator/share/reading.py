"""Reads acquired records for members that cannot open batches, one request after another at each partition. Pure.

Owns the requests being read for. Records that do not fit the reply are given back as if they had never been acquired;
an offset that holds no record is done. Called by acquiring.py once the acquisition is durable.

    queue of runs --fetch--> records taken, gaps settled --more--> fetch on
                         --bytes used up | partition offline--> the rest given back; answered with the records read
                         --cannot be opened--> all records covered by the damage are dead, and the rest is read
"""

from typing import Any

from msgspec import UNSET, Struct

from ....transport.addresses import TopicPartition
from ....transport.compression import CodecUnavailable
from ....transport.fetched_records import MAX_INLINE_BYTES, decode_for_json, end_of_batch_at
from ....transport.log_access.reader import PartitionReader
from ....transport.machine import Answered, Failed, LoopEffect, Reply
from ....transport.protocol.data import FetchedRecord
from ....transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ....transport.protocol.shares import AcquiredRecord, AcquireReply
from .acquire_replies import Acquired
from .partitions import SharePartitions
from .spans import Span

_ABOUT_THE_LOG = (ErrorCode.OFFSET_OUT_OF_RANGE, ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.LOG_TRUNCATED)
"""Refusals that concern no record: the known bounds of the log must be fetched again."""


class RecordsCall(Struct, frozen=True):
    """The fetch of a job, by the job's number."""

    number: int


class RecordsJob(Struct):
    """The reading of the records of one request."""

    acquired: Acquired
    unread: list[tuple[TopicPartition, Span]]
    bytes_left: int
    records: list[AcquiredRecord]
    error: ErrorBody | None = None
    """The reason why some of them could not be read."""


class RecordReading:
    def __init__(self, partitions: SharePartitions) -> None:
        self._partitions = partitions
        self._jobs: dict[int, RecordsJob] = {}
        self._started = 0

    def begin(self, acquired: Acquired) -> list[LoopEffect]:
        self._started += 1
        bytes_left = min(acquired.request.max_bytes, MAX_INLINE_BYTES)
        self._jobs[self._started] = RecordsJob(acquired, list(acquired.taken), bytes_left, [])
        return self._go_on(self._started)

    def _go_on(self, number: int) -> list[LoopEffect]:
        job = self._jobs[number]
        if not job.unread:
            return self._end(number, job.error)
        tp, span = job.unread[0]
        part = self._partitions.get(tp)
        reader = part.reader(tp, span.first) if part is not None else PartitionReader(tp, span.first)
        return [reader.fetch(RecordsCall(number), max_bytes=job.bytes_left)]

    def handle(self, number: int, event: Answered | Failed) -> list[LoopEffect]:
        job = self._jobs[number]
        if isinstance(event, Failed):
            return self._break_off(number, event.error)
        tp, span = job.unread[0]
        part = self._partitions.get(tp)
        if part is None or event.reply.topic_id not in (UNSET, part.topic_id):
            return self._end(number, _nothing(tp, span.first))
        batches = event.payload[0] if len(event.payload) == 1 else b"".join(event.payload)
        aborted = () if event.reply.aborted is UNSET else event.reply.aborted
        try:
            found, end = decode_for_json(
                batches,
                span.first,
                span.count,
                job.bytes_left,
                max(event.reply.next_offset, span.first),
                aborted,
            )
        except ProtocolError as error:
            # A batch whose codec is missing here is not damaged: other members may open it.
            if isinstance(error.__cause__, CodecUnavailable):
                return self._end(number, error.body)
            return self._break_off(number, error.body, end_of_batch_at(batches, span.first))
        end = min(end, span.end)
        if end == span.first:
            return self._end(number, _nothing(tp, span.first))
        self._take(job, tp, span, [record for record in found if record.offset < end], end)
        if end < span.end:
            job.unread[0] = (tp, span.cut(end, span.end))
        else:
            del job.unread[0]
        return self._go_on(number) if job.bytes_left > 0 else self._end(number)

    def _take(
        self, job: RecordsJob, tp: TopicPartition, span: Span, found: list[FetchedRecord], end: int
    ) -> None:
        position = span.first
        for record in found:
            self._settle(tp, span, position, record.offset)
            position = record.offset + 1
            job.bytes_left -= len(record.key or b"") + len(record.value or b"")
            job.records.append(_inline(tp, span.deliveries, record))
        self._settle(tp, span, position, end)

    def _settle(self, tp: TopicPartition, span: Span, first: int, end: int) -> None:
        part = self._partitions.get(tp)
        if first < end and part is not None:
            part.settle_gap(span.cut(first, end))
            self._partitions.mark(tp)

    def _break_off(self, number: int, error: ErrorBody, damage_end: int | None = None) -> list[LoopEffect]:
        """Stop at the first span, which cannot be read at its start; with `damage_end` it can be read from there on."""
        job = self._jobs[number]
        tp, span = job.unread[0]
        part = self._partitions.get(tp)
        if error.retriable or error.code in _ABOUT_THE_LOG or part is None:
            return self._end(number, error)
        if damage_end is None and error.next_offset is not UNSET:
            damage_end = error.next_offset
        end = min(max(span.first + 1, damage_end or 0), span.end)
        part.dead_letter_unreadable(span.cut(span.first, end), error.message)
        self._partitions.mark(tp)
        if end < span.end:
            job.unread[0] = (tp, span.cut(end, span.end))
        else:
            del job.unread[0]
        job.error = job.error or error
        return self._go_on(number)

    def _end(self, number: int, error: ErrorBody | None = None) -> list[LoopEffect]:
        job = self._jobs.pop(number)
        for tp, span in job.unread:
            part = self._partitions.get(tp)
            if part is not None:
                part.return_unread(span)
                self._partitions.mark(tp)
        acquired = job.acquired
        body: Any = AcquireReply(lock_ms=acquired.lock_ms, records=job.records, results=acquired.results)
        if error is not None and not job.records and acquired.results is UNSET:
            body = ErrorBody(error.code, error.message, True)
        return [Reply(acquired.sender, body)]


def _nothing(tp: TopicPartition, offset: int) -> ErrorBody:
    message = f"{tp[0]}/{tp[1]} cannot be read at offset {offset} now"
    return ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, message, True)


def _inline(tp: TopicPartition, deliveries: int, record: FetchedRecord) -> AcquiredRecord:
    return AcquiredRecord(
        topic=tp[0],
        partition=tp[1],
        offset=record.offset,
        delivery_count=deliveries,
        timestamp_ms=record.timestamp_ms,
        key=record.key,
        key_text=record.key_text,
        value=record.value,
        value_text=record.value_text,
        headers=record.headers,
    )
