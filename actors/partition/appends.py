"""Appends: from the batches of a Produce to the appended batches and the acknowledgements that wait for them.

Owns the log end as it will be when this turn's appends are written, and the requests that wait. A batch is validated
(`validation.py`), compared with its producer's sequence, with recent dedup ids and with its publisher's expectation
(`expectations.py`), stamped and given its offset here; the process writes it at the end of the turn. The write succeeds
or fails for the whole turn, so undoing takes two steps: the end offset goes back, and the log reverts the producers'
states. Called by the leader.
"""

from collections.abc import Sequence

from msgspec import Struct

from ...transport.batch import HEAD_BYTES, BatchHeader, InvalidBatch, marker, parse_header, stamped_head
from ...transport.compression import Buffer
from ...transport.deduplication import dedup_id_of
from ...transport.future import LATEST_MS
from ...transport.machine import Payload, Sender
from ...transport.protocol.data import Acks, Expected, ProducedBatch
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import TopicConfig
from ...transport.protocol.transactions import Marker
from ..log.errors import SequenceError
from ..log.key_versions import KeyWrite
from ..log.producers import Duplicate, ProducerStates
from .copies import Copies
from .expectations import keys_of, refusal_of
from .replication import Watermarks
from .validation import validated


class Placement(Struct):
    """The outcome for a request's batches: the new ones to append, one result for each, and the offset of their end."""

    frames: list[Buffer]
    headers: list[BatchHeader]
    results: list[ProducedBatch]
    complete_at_offset: int = 0
    """The request is as durable as its batches once a log holds everything below this offset."""


class PendingProduce(Struct, frozen=True, gc=False):
    sender: Sender
    acks: Acks
    results: list[ProducedBatch] | None
    """None: markers and copies, which have no results."""
    complete_at_offset: int


class Appends:
    def __init__(self, producers: ProducerStates, log_end_offset: int, leader_epoch: int) -> None:
        self._producers = producers
        self._dedup_ids = producers.dedup_ids
        self._leader_epoch = leader_epoch
        self.log_end_offset = log_end_offset
        """The offset of the next batch: the log's own end plus this turn's batches."""
        self.bytes_written = 0
        """Total bytes written by this incarnation."""
        self.bytes_placed = 0
        """The same, once this turn's batches are written."""
        self._pending: list[PendingProduce] = []

    def __len__(self) -> int:
        return len(self._pending)

    def place(
        self,
        payload: Payload,
        config: TopicConfig,
        now: int,
        latest_ms: int = LATEST_MS,
        expected: Sequence[Expected | None] | None = None,
    ) -> Placement:
        """Validate, stamp and place each batch; one with a timestamp after `latest_ms` is refused.

        `expected`, if given, has an expectation or None for each.
        """
        placement = Placement([], [], [])
        for number, frame in enumerate(payload):
            header = validated(frame, config, latest_ms)
            if isinstance(header, ErrorBody):
                placement.results.append(ProducedBatch(-1, error=header))
                continue
            expectation = None if expected is None else expected[number]
            result, ends_at = self._place(frame, header, placement, now, expectation)
            placement.complete_at_offset = max(placement.complete_at_offset, ends_at)
            placement.results.append(result)
        return placement

    def _place(
        self,
        frame: Buffer,
        header: BatchHeader,
        placement: Placement,
        now: int,
        expected: Expected | None,
    ) -> tuple[ProducedBatch, int]:
        versions = self._producers.key_versions
        writes: Sequence[KeyWrite] = ()
        try:
            dedup_id = dedup_id_of(frame, header)
            verdict = self._producers.check(header)
            if versions.is_kept:
                writes = keys_of(frame, header)
        except InvalidBatch as error:
            return ProducedBatch(-1, error=ErrorBody(ErrorCode.INVALID_BATCH, str(error))), 0
        except SequenceError as error:
            return ProducedBatch(-1, error=ErrorBody(error.code, str(error))), 0
        first_offset = verdict.base_offset if type(verdict) is Duplicate else None
        if dedup_id is not None:
            first_offset = self._dedup_ids.find(dedup_id, now)
        if first_offset is not None:
            # The first attempt may be recent and not durable yet; then the repeat waits as long.
            return ProducedBatch(first_offset, True), first_offset + header.record_count
        if expected is not None or versions.is_kept:
            refusal = refusal_of(versions, writes, header, expected, self.log_end_offset)
            if refusal is not None:
                return ProducedBatch(-1, error=refusal), 0
        if dedup_id is not None:
            self._dedup_ids.note(dedup_id, self.log_end_offset, now)
        return ProducedBatch(self._append(frame, header, placement, now, writes)), self.log_end_offset

    def place_copies(self, copies: Copies, now: int) -> None:
        """Place batches that have their offsets and epochs, of which none lies below the log's end."""
        assert copies.base_offset >= self.log_end_offset, (copies.base_offset, self.log_end_offset)
        copies.note(self._producers, now)
        self.log_end_offset = copies.headers[-1].next_offset
        self.bytes_placed += sum(map(len, copies.frames))

    def place_markers(self, markers: Sequence[Marker], now: int, wall_ms: int) -> Placement:
        """Place the markers that are not in the log yet, with wall-clock time as their timestamp."""
        placement = Placement([], [], [])
        for each in markers:
            if self._has_ended(each):
                # Its marker may be recent and not durable yet.
                placement.complete_at_offset = self.log_end_offset
                continue
            frame = marker(each.producer_id, each.producer_epoch, each.committed, wall_ms)
            self._append(frame, parse_header(frame), placement, now)
            placement.complete_at_offset = self.log_end_offset
        return placement

    def _has_ended(self, each: Marker) -> bool:
        """Return True if the transaction has ended and its marker is written.

        Without an open transaction a marker is still needed once: it fences late batches.
        """
        if self._producers.transactions.is_open(each.producer_id, each.producer_epoch):
            return False
        known = self._producers.get(each.producer_id)
        return known is not None and known.epoch > each.producer_epoch

    def _append(
        self,
        frame: Buffer,
        header: BatchHeader,
        placement: Placement,
        now: int,
        writes: Sequence[KeyWrite] = (),
    ) -> int:
        """Place a batch and return its offset."""
        base_offset = self.log_end_offset
        placed = tuple.__new__(BatchHeader, (base_offset, self._leader_epoch, *header[2:]))
        self._producers.apply(placed, now)
        if self._producers.key_versions.is_kept:
            self._producers.key_versions.note(placed, writes)
        # Two buffers a batch: the body is written from where it was received.
        placement.frames.append(stamped_head(header, base_offset, self._leader_epoch))
        placement.frames.append(memoryview(frame)[HEAD_BYTES:])
        placement.headers.append(placed)
        self.log_end_offset = base_offset + header.record_count
        self.bytes_placed += len(frame)
        return base_offset

    def park(self, pending: PendingProduce) -> None:
        """Park an acknowledgement. The turn's bound on requests bounds these too."""
        self._pending.append(pending)

    def written(self, log_end_offset: int) -> None:
        """Note that every placed batch is in the log."""
        assert log_end_offset == self.log_end_offset, "the log and its machine disagree on the end"
        self.bytes_written = self.bytes_placed

    def release(self, watermarks: Watermarks) -> list[PendingProduce]:
        """Take out the requests that are held by as many replicas as they asked for."""
        released: list[PendingProduce] = []
        waiting: list[PendingProduce] = []
        for pending in self._pending:
            is_held = pending.complete_at_offset <= watermarks.held(pending.acks)
            (released if is_held else waiting).append(pending)
        self._pending = waiting
        return released

    def take_all(self) -> list[PendingProduce]:
        """Take out every request that waits: whether it will be held is not known here any more."""
        taken, self._pending = self._pending, []
        return taken

    def failed(self, log_end_offset: int) -> list[PendingProduce]:
        """Undo this turn, of which no batch was written, and take out the requests that depended on it."""
        self.log_end_offset = log_end_offset
        self.bytes_placed = self.bytes_written
        lost = [pending for pending in self._pending if pending.complete_at_offset > log_end_offset]
        self._pending = [pending for pending in self._pending if pending.complete_at_offset <= log_end_offset]
        return lost
