"""Appends: from the batches of a Produce to the appended batches and the acknowledgements that wait for them.

Owns the log end as it will be when this turn's appends are written, and the requests that wait. A batch is validated
(undamaged, small enough, of a kind that clients may send, in its producer's order, without a recent dedup id),
stamped and given its offset here; the process writes it at the end of the turn. The write succeeds or fails for the
whole turn, so undoing takes two steps: the end offset goes back, and the log reverts the producers' states. Called by
the partition's machine.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from ...transport.batch import (
    CONTROL,
    DEDUP,
    HEAD_BYTES,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    NO_PRODUCER,
    SEQUENCE_LIMIT,
    SMALLEST_RECORD_BYTES,
    TRANSACTIONAL,
    BatchHeader,
    InvalidBatch,
    marker,
    parse_header,
    records_announced,
    stamped_head,
    unpacked_bytes,
    verify,
)
from ...transport.compression import CODEC_MASK, CODEC_NONE, CODECS, Buffer
from ...transport.deduplication import dedup_id_of
from ...transport.future import LATEST_MS, too_far_ahead
from ...transport.machine import Payload, Sender
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.data import Acks, ProducedBatch
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import TopicConfig
from ...transport.protocol.transactions import Marker
from ..log.errors import SequenceError
from ..log.producers import Duplicate, ProducerStates
from .replication import Watermarks

BROKER_ATTRIBUTES = CONTROL | LOG_APPEND_TIME
"""Only the broker writes such batches: a client that could write them would forge commits."""


class Admission(Struct):
    """The outcome for a request's batches: the new ones to append, one result for each, and the offset of their end."""

    frames: list[Buffer]
    headers: list[BatchHeader]
    results: list[ProducedBatch]
    complete_at_offset: int = 0
    """The request is as durable as its batches once a log holds everything below this offset."""


class PendingProduce(NamedTuple):
    sender: Sender
    acks: Acks
    results: list[ProducedBatch] | None
    """None: markers, which have no results."""
    complete_at_offset: int


class Appends:
    def __init__(self, producers: ProducerStates, log_end_offset: int, leader_epoch: int) -> None:
        self._producers = producers
        self._identities = producers.identities
        self._leader_epoch = leader_epoch
        self.log_end_offset = log_end_offset
        """The offset of the next batch: the log's own end plus this turn's batches."""
        self.bytes_written = 0
        """Total bytes written by this incarnation."""
        self.bytes_admitted = 0
        self._pending: list[PendingProduce] = []

    def __len__(self) -> int:
        return len(self._pending)

    def admit(self, payload: Payload, config: TopicConfig, now: int, latest_ms: int = LATEST_MS) -> Admission:
        """Validate, stamp and place each batch; one with a timestamp after `latest_ms` is refused."""
        admission = Admission([], [], [])
        for frame in payload:
            judged = judge(frame, config)
            if not isinstance(judged, ErrorBody):
                newest_ms = max(judged.first_timestamp_ms, judged.max_timestamp_ms)
                if newest_ms > latest_ms:
                    judged = too_far_ahead(newest_ms, latest_ms)
            if isinstance(judged, ErrorBody):
                admission.results.append(ProducedBatch(-1, error=judged))
                continue
            result, ends_at = self._place(frame, judged, admission, now)
            admission.complete_at_offset = max(admission.complete_at_offset, ends_at)
            admission.results.append(result)
        return admission

    def _place(
        self, frame: Buffer, header: BatchHeader, admission: Admission, now: int
    ) -> tuple[ProducedBatch, int]:
        try:
            dedup_id = dedup_id_of(frame, header)
            verdict = self._producers.check(header)
        except InvalidBatch as error:
            return ProducedBatch(-1, error=ErrorBody(ErrorCode.INVALID_BATCH, str(error))), 0
        except SequenceError as error:
            return ProducedBatch(-1, error=ErrorBody(error.code, str(error))), 0
        first_offset = verdict.base_offset if type(verdict) is Duplicate else None
        if dedup_id is not None:
            first_offset = self._identities.find(dedup_id, now)
        if first_offset is not None:
            # The first attempt may be recent and not durable yet; then the repeat waits as long.
            return ProducedBatch(first_offset, True), first_offset + header.record_count
        if dedup_id is not None:
            self._identities.note(dedup_id, self.log_end_offset, now)
        return ProducedBatch(self._append(frame, header, admission, now)), self.log_end_offset

    def admit_markers(self, markers: Sequence[Marker], now: int, wall_ms: int) -> Admission:
        """Place the markers that are not in the log yet, with wall-clock time as their timestamp."""
        admission = Admission([], [], [])
        for each in markers:
            if self._has_ended(each):
                # Its marker may be recent and not durable yet.
                admission.complete_at_offset = self.log_end_offset
                continue
            frame = marker(each.producer_id, each.producer_epoch, each.committed, wall_ms)
            self._append(frame, parse_header(frame), admission, now)
            admission.complete_at_offset = self.log_end_offset
        return admission

    def _has_ended(self, each: Marker) -> bool:
        """Return True if the transaction has ended and its marker is written.

        Without an open transaction a marker is still needed once: it fences late batches.
        """
        if self._producers.transactions.is_open(each.producer_id, each.producer_epoch):
            return False
        known = self._producers.get(each.producer_id)
        return known is not None and known.epoch > each.producer_epoch

    def _append(self, frame: Buffer, header: BatchHeader, admission: Admission, now: int) -> int:
        """Place a batch and return its offset."""
        base_offset = self.log_end_offset
        placed = BatchHeader(base_offset, self._leader_epoch, *header[2:])
        self._producers.apply(placed, now)
        # Two buffers a batch: the body is written from where it was received.
        admission.frames.append(stamped_head(header, base_offset, self._leader_epoch))
        admission.frames.append(memoryview(frame)[HEAD_BYTES:])
        admission.headers.append(placed)
        self.log_end_offset = base_offset + header.record_count
        self.bytes_admitted += len(frame)
        return base_offset

    def park(self, pending: PendingProduce) -> None:
        """Park an acknowledgement. The turn's bound on requests bounds these too."""
        self._pending.append(pending)

    def written(self, log_end_offset: int) -> None:
        """Note that every admitted batch is in the log."""
        assert log_end_offset == self.log_end_offset, "the log and its machine disagree on the end"
        self.bytes_written = self.bytes_admitted

    def release(self, watermarks: Watermarks) -> list[PendingProduce]:
        """Take out the requests that are held by as many replicas as they asked for."""
        released: list[PendingProduce] = []
        waiting: list[PendingProduce] = []
        for pending in self._pending:
            is_held = pending.complete_at_offset <= watermarks.held(pending.acks)
            (released if is_held else waiting).append(pending)
        self._pending = waiting
        return released

    def failed(self, log_end_offset: int) -> list[PendingProduce]:
        """Undo this turn, of which no batch was written, and take out the requests that depended on it."""
        self.log_end_offset = log_end_offset
        self.bytes_admitted = self.bytes_written
        lost = [pending for pending in self._pending if pending.complete_at_offset > log_end_offset]
        self._pending = [pending for pending in self._pending if pending.complete_at_offset <= log_end_offset]
        return lost


def judge(frame: Buffer, config: TopicConfig) -> BatchHeader | ErrorBody:
    """Return the header of a valid batch, or the refusal, before its place in the log is considered."""
    if len(frame) > config.max_message_bytes:
        return ErrorBody(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the batch has {len(frame)} bytes, the topic takes {config.max_message_bytes}",
        )
    try:
        header = verify(frame)
    except InvalidBatch as error:
        return ErrorBody(ErrorCode.INVALID_BATCH, str(error))
    fault = fault_of(frame, header)
    if fault is not None:
        return ErrorBody(ErrorCode.INVALID_BATCH, fault)
    excess = excess_of(frame, header, config)
    return header if excess is None else ErrorBody(ErrorCode.MESSAGE_TOO_LARGE, excess)


def fault_of(frame: Buffer, header: BatchHeader) -> str | None:
    """Return the fault of an undamaged batch, as far as it can be determined without opening it."""
    if header.attributes & BROKER_ATTRIBUTES:
        return "control and log-append-time batches are the broker's own"
    if header.attributes & ~(CODEC_MASK | DEDUP | TRANSACTIONAL):
        return f"unknown batch attributes {header.attributes:#x}"
    if header.attributes & CODEC_MASK not in CODECS.values():
        return f"unknown batch codec {header.attributes & CODEC_MASK}"
    if header.record_count >= SEQUENCE_LIMIT:
        return f"a batch cannot hold {header.record_count} records"
    if header.producer_id != NO_PRODUCER and not is_sequenced(header):
        return "an idempotent batch needs a producer id, an epoch and a sequence from zero up"
    if header.is_transactional is (coordinator_of(header.producer_id) is None):
        return "a batch is transactional if and only if its producer id was given for a transactional_id"
    return fault_of_contents(frame, header)


def fault_of_contents(frame: Buffer, header: BatchHeader) -> str | None:
    """Check that the contents back the header's record count: otherwise the offsets would have a gap."""
    if header.attributes & CODEC_MASK == CODEC_NONE:
        is_backed = records_announced(memoryview(frame)[HEADER_BYTES:]) == header.record_count
        return None if is_backed else f"the batch says {header.record_count} records, its contents do not"
    stated_bytes = unpacked_bytes(frame, header)
    if stated_bytes is None:
        return "a compressed batch is one zstd frame that states the size of its contents"
    if header.record_count * SMALLEST_RECORD_BYTES >= stated_bytes:
        return f"the batch says {header.record_count} records, which do not fit {stated_bytes} unpacked bytes"
    return None


def excess_of(frame: Buffer, header: BatchHeader, config: TopicConfig) -> str | None:
    """Return the exceeded limit. A batch's size on the wire does not bound the work and memory of its readers."""
    if header.record_count > config.max_records_per_batch:
        return f"the batch has {header.record_count} records, the topic takes {config.max_records_per_batch}"
    stated_bytes = unpacked_bytes(frame, header) or 0
    if stated_bytes > config.max_unpacked_bytes:
        return f"the batch unpacks to {stated_bytes} bytes, the topic takes {config.max_unpacked_bytes}"
    return None


def is_sequenced(header: BatchHeader) -> bool:
    return header.producer_id >= 0 and header.producer_epoch >= 0 and header.base_sequence >= 0
