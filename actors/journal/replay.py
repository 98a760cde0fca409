"""The replay of an actor that keeps its state as records: it reads them, takes over, and reads records still in flight.

Owns the start, from nothing or a snapshot to a state that no earlier incarnation can change any more. Must never let
the state be served before that. A machine without requests; the actor's own runs it and serves when `is_done`. The
ledger interprets the records: it receives them in the order of the log, and builds the state.

    checking --first batch is the snapshot's--> reading         else the snapshot is dropped, and the log read from 0;
                                a log that ends before it for CHECK_WAIT_MS has lost records: a leader that was just
                                elected may know of its last committed records only after fetches of its followers
    reading --end of the log--> claiming: the start record is sent under the highest start seen + 1, and if that is the
                                first of a producer id, before it under the id before, which it closes for all earlier
    claiming --durable--> rereading up to that record           earlier starts are refused from here on
    claiming --fenced or out of sequence--> contested: the newer start is looked for; Fenced if there is one, and if
                                not, its record is lost. Any other refusal of the claim is raised as it is
    rereading --our record is the newest start--> done          else another incarnation claimed that number: claim again

The newest record of each key counts, and the state is built from these at the end of the log: compaction drops the
older ones, even while the log is read, so an intermediate state may never have existed. The replay waits for a
partition that is down, but not for damage to be repaired: where the snapshot does not cover it, it raises RecordsLost,
which names the missing records.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import UNSET, Struct

from ...transport.addresses import Address, TopicPartition
from ...transport.batch import BatchHeader, InvalidBatch, Record, build
from ...transport.compression import Buffer
from ...transport.log_access.reader import PartitionReader, StoredBatch
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.data import FetchReply, ListOffsetsReply
from ...transport.protocol.errors import ErrorBody, ErrorCode, OperatorNeeded
from .appender import Appender, Fenced, SequenceRefused
from .identity import NO_START, JournalIdentity, Start, closing_identity, identity_of, start_of
from .snapshot import LogMark, Snapshot

FETCH_BYTES = 4 * 1024 * 1024
SNAPSHOT_AGE_MS = 12 * 3600 * 1000
"""An older snapshot is not used. It must be well below the time that internal topics keep their tombstones: the log may
no longer show deletions made since the snapshot.
"""
REREAD_WAIT_MS = 1_000
"""Wait before rereading: a durable record is visible at once with one replica, and a moment later with several."""
CHECK_WAIT_MS = 12_000
"""Longer than a leader waits for a follower before it goes on without it."""

Step = Literal["checking", "reading", "claiming", "contested", "rereading", "done"]


class ReplayFetchCall(Struct, frozen=True):
    """The read of the log."""


class ReplayStartCall(Struct, frozen=True):
    """The lookup of the log's start, after the requested offset was not found."""


class ReplayFailed(RuntimeError):
    """The actor's records cannot be read."""


class InvalidRecord(ValueError):
    """A record that this version cannot read."""


class RecordsLost(ReplayFailed, OperatorNeeded):
    """Some of the records are damaged or missing, and no snapshot covers them."""


class Ledger(Protocol):
    """Builds the state from the records."""

    @property
    def start(self) -> Start:
        """Return the newest start record; one of the epoch NO_START if there is none. Called after `settle`."""
        ...

    def claim(self, start: Start) -> Record:
        """Return the start record."""
        ...

    def forget(self) -> None:
        """Drop the state read or loaded from the snapshot: the log does not continue it."""
        ...

    def read(self, header: BatchHeader, records: Sequence[Record]) -> None:
        """Read a batch of the actor's own; each once, in the order of the log. Raises if a record is invalid."""
        ...

    def settle(self) -> None:
        """Build the state at the end of the log; more records may follow."""
        ...


class Replay:
    def __init__(
        self,
        address: Address,
        topic: str,
        partition: int,
        starter: str,
        ledger: Ledger,
        snapshot: Snapshot[Any] | None = None,
    ) -> None:
        """Start the replay of the actor at `address`; the state of a snapshot is in the ledger."""
        tp = TopicPartition(topic, partition)
        self.appender = Appender(tp)
        self.mark = snapshot.mark if snapshot else None
        """The last batch read."""
        self.records_read = 0
        self.is_snapshot_refused = False
        """True if the snapshot must be replaced at once: after a clock set back, the old one would look recent."""
        self.snapshot_fault: str | None = None
        """The reason why the log does not continue the snapshot."""
        self._address = address
        self._starter = starter
        self._ledger = ledger
        self._taken_at_ms = snapshot.taken_at_ms if snapshot else None
        self._highest_start = ledger.start.epoch
        self._reader = PartitionReader(
            tp,
            self.mark.base_offset if self.mark else 0,
            isolation="read_uncommitted",
        )
        self._claimed = Start(NO_START, starter)
        self._claims: list[JournalIdentity] = []
        """Identities under which the start record has still to become durable."""
        self._claim_offset = -1
        self._checked_until = 0
        self._refusal: Fenced | SequenceRefused
        """The error of the contested claim."""
        self._step: Step = "checking" if snapshot else "reading"

    @property
    def is_done(self) -> bool:
        return self._step == "done"

    @property
    def identity(self) -> JournalIdentity:
        return identity_of(self._address, self._claimed.epoch)

    def start(self, now: int) -> list[LoopEffect]:
        self._checked_until = now + CHECK_WAIT_MS
        if self._taken_at_ms is not None and not 0 <= now - self._taken_at_ms <= SNAPSHOT_AGE_MS:
            self._forget()
        return [self._fetch()]

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        if self._step == "claiming":
            return self._on_claiming(event, now)
        match event:
            case Answered(key=ReplayFetchCall()):
                return self._on_fetched(event.reply, event.payload, now)
            case Answered(key=ReplayStartCall()):
                return self._on_log_start(event.reply)
            case Failed(key=ReplayFetchCall() | ReplayStartCall()):
                return self._on_refused(event.error)
        return []

    def _on_claiming(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        try:
            base_offset = self.appender.handle(event)
        except (Fenced, SequenceRefused) as refusal:
            self._refusal, self._step = refusal, "contested"
            return [self._fetch()]
        if base_offset is None:
            return []
        if self._claims:
            return self._append_claim(now)
        self._claim_offset = base_offset
        self._step = "rereading"
        return [self._fetch()]

    def _on_fetched(self, reply: FetchReply, payload: Sequence[Buffer], now: int) -> list[LoopEffect]:
        fetched = self._reader.on_fetched(reply, payload)
        for batch in fetched.batches():
            if self._step != "checking":
                self._read(batch)
            elif _mark_of(batch.header) == self.mark:
                self._step = "reading"
            else:
                return self._restart(batch.header)
        if self._step == "checking":
            if now < self._checked_until:
                return [self._fetch()]
            raise self._shorter_than_snapshot(f"ends at offset {reply.high_watermark}")
        if not fetched.is_at_end:
            if not fetched.has_moved:
                raise ReplayFailed(f"offset {fetched.offset} of {self.appender.address} cannot be read")
            return [self._fetch()]
        self._ledger.settle()
        if self._step == "reading":
            return self._claim(now)
        if self._step == "contested":
            raise self._refusal if self._highest_start >= self._claimed.epoch else self._start_missing()
        if fetched.next_offset <= self._claim_offset:
            return [self._fetch()]
        if self._ledger.start != self._claimed:
            if self._highest_start < self._claimed.epoch:
                raise self._start_missing()  # the claim was taken for a repeat of it
            return self._claim(now)
        self._step = "done"
        return []

    def _start_missing(self) -> RecordsLost:
        return RecordsLost(
            f"records of {self._address} are missing from {self.appender.address}: it has taken a start with epoch "
            f"{self._claimed.epoch} or later, and the newest that can be read is of epoch {self._highest_start}"
        )

    def _shorter_than_snapshot(self, found: str) -> RecordsLost:
        assert self.mark is not None
        return RecordsLost(
            f"records are missing from {self.appender.address}: it {found}, and the snapshot of {self._address} was "
            f"taken when it ended at {self.mark.next_offset}; delete the snapshot to continue with the remaining records"
        )

    def _read(self, batch: StoredBatch) -> None:
        header = batch.header
        self.mark = _mark_of(header)
        self.records_read += header.record_count
        # Each actor writes under its own ids: batches of others are skipped unopened.
        start = start_of(self._address, header)
        if start is None:
            return
        try:
            records = batch.records()
        except InvalidBatch as error:
            raise RecordsLost(f"batch {header.base_offset} of {self.appender.address}: {error}") from error
        self._highest_start = max(self._highest_start, start)
        self._ledger.read(header, records)

    def _claim(self, now: int) -> list[LoopEffect]:
        self._step = "claiming"
        self._claimed = Start(self._highest_start + 1, self._starter)
        closing = closing_identity(self._address, self._claimed.epoch)
        self._claims = [self.identity] if closing is None else [closing, self.identity]
        return self._append_claim(now)

    def _append_claim(self, now: int) -> list[LoopEffect]:
        identity = self._claims.pop(0)
        frame = build(
            [self._ledger.claim(self._claimed)],
            first_timestamp_ms=now,
            max_timestamp_ms=now,
            producer_id=identity.producer_id,
            producer_epoch=identity.epoch,
            base_sequence=0,
        )
        return self.appender.append(frame)

    def _on_refused(self, error: ErrorBody) -> list[LoopEffect]:
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            return [self._reader.locate(ReplayStartCall(), "earliest", is_endless=True)]
        if error.code == ErrorCode.CORRUPT_LOG:
            if not self._is_covered(error):
                raise RecordsLost(f"{self.appender.address} answers {error.code}: {error.message}")
            return [self._fetch()]
        raise ReplayFailed(f"{self.appender.address} answers {error.code}: {error.message}")

    def _is_covered(self, error: ErrorBody) -> bool:
        """Return True if the snapshot covers all lost records: then the replay continues behind it.

        The batch that would show that the log continues the snapshot is lost as well. It is this log's: offsets are
        never reused.
        """
        if self._step != "checking" or self.mark is None or error.next_offset is UNSET:
            return False
        if error.next_offset > self.mark.next_offset:
            return False
        self._reader.seek(self.mark.next_offset)
        self._step = "reading"
        return True

    def _restart(self, found: BatchHeader) -> list[LoopEffect]:
        assert self.mark is not None
        self.snapshot_fault = (
            f"it was taken after the batch at offset {self.mark.base_offset} with checksum {self.mark.crc32c:08x}, and "
            f"{self.appender.address} has the batch at {found.base_offset} with {found.crc32c:08x}"
        )
        self._forget()
        return [self._fetch()]

    def _forget(self) -> None:
        self.is_snapshot_refused = self._taken_at_ms is not None
        self._ledger.forget()
        self.mark = None
        self._reader.seek(0)
        self._step = "reading"

    def _on_log_start(self, reply: ListOffsetsReply) -> list[LoopEffect]:
        position = self._reader.offset
        assert position is not None
        if reply.offset <= position and self.mark is not None:
            raise self._shorter_than_snapshot(f"ends before offset {self.mark.base_offset}")
        if self.mark is not None:
            base_offset, address = self.mark.base_offset, self.appender.address
            self.snapshot_fault = (
                f"it was taken at offset {base_offset}, and {address} begins at {reply.offset}"
            )
        self._forget()
        self._reader.on_located(reply)
        return [self._fetch()]

    def _fetch(self) -> Call:
        max_wait_ms = 0 if self._step == "reading" else REREAD_WAIT_MS
        return self._reader.fetch(
            ReplayFetchCall(), max_bytes=FETCH_BYTES, max_wait_ms=max_wait_ms, is_endless=True
        )


def _mark_of(header: BatchHeader) -> LogMark:
    return LogMark(header.base_offset, header.crc32c, header.next_offset)
