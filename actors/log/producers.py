"""The last batches of each idempotent producer, by which a repeated batch is recognised and a missing one noticed.

Pure: no file, no clock. Also holds dedup ids (`dedup_index.py`), transactions (`transactions.py`) and the versions of
keys (`key_versions.py`), so that one snapshot contains all of them. A function of the log: replaying the headers of the
log's batches in order gives the same state (`last_seen_ms` apart, which only decides when a silent producer is
forgotten). The partition's machine calls `check` and `apply` when it decides; the log calls `confirm` when the batches
are written and `revert` when the disk was full.

Rules, after Kafka's ProducerStateEntry and ProducerAppendInfo, with one hole closed: there an unknown producer may
begin at any sequence.

    producer id   epoch     sequence                          verdict
    -1            any       any                               Accept: not idempotent
    unknown       any       0                                 Accept
    unknown       any       other                             UnknownProducer
    known         older     any                               ProducerFenced
    known         newer     0                                 Accept
    known         newer     other                             OutOfOrderSequence
    known         same      one of the last five, exactly     Duplicate(the first answer)
    known         same      last + 1 (after 2^31 - 1: 0)      Accept
    known         same      other                             OutOfOrderSequence

A marker, the end of a transaction (`transactions.py`), raises its producer's epoch by one: a late batch of the ended
transaction is ProducerFenced.
"""

from collections.abc import Iterable, Sequence

import msgspec

from ...transport.batch import CONTROL, NO_PRODUCER, SEQUENCE_LIMIT, TRANSACTIONAL, BatchHeader
from ...transport.producer_ids import era_of
from .checked import decode_checked, encode_checked
from .dedup_index import DedupIndex, Sighting
from .errors import OutOfOrderSequence, ProducerFenced, UnknownProducer
from .key_versions import KeyVersions, KeyVersionsSnapshot, KeyWrite
from .transactions import Transactions, TransactionsSnapshot

BATCHES_KEPT = 5
PRODUCER_LIMIT = 100_000
PRODUCER_EXPIRY_MS = 24 * 60 * 60 * 1000

_KIND = b"PLPS"


class Accept(msgspec.Struct, frozen=True):
    """The batch is new and in order."""


class Duplicate(msgspec.Struct, frozen=True):
    """The batch was appended before, at `base_offset`."""

    base_offset: int


ACCEPT = Accept()


class WrittenBatch(msgspec.Struct, frozen=True, array_like=True):
    """The sequences of one batch, both inclusive, and its base offset."""

    first_sequence: int
    last_sequence: int
    base_offset: int


class ProducerState(msgspec.Struct, frozen=True, array_like=True):
    """One producer's epoch and its last batches in it, the newest last; none yet after a marker."""

    epoch: int
    last_seen_ms: int
    batches: tuple[WrittenBatch, ...]

    @property
    def next_sequence(self) -> int:
        return (self.batches[-1].last_sequence + 1) % SEQUENCE_LIMIT if self.batches else 0


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    offset: int
    producers: dict[int, ProducerState]
    dedup_ids: list[Sighting] = []
    """The dedup ids; missing in snapshots of versions without them."""
    transactions: TransactionsSnapshot = TransactionsSnapshot()
    key_versions: KeyVersionsSnapshot = KeyVersionsSnapshot()


class ProducerStates:
    """The states of at most `limit` producers; a new one displaces the one silent for longest."""

    def __init__(self, limit: int = PRODUCER_LIMIT, expiry_ms: int = PRODUCER_EXPIRY_MS) -> None:
        self.dedup_ids = DedupIndex()
        self.transactions = Transactions()
        self.key_versions = KeyVersions()
        self._limit = limit
        self._expiry_ms = expiry_ms
        self._producers: dict[int, ProducerState] = {}  # most recently seen last
        self._undo: list[tuple[int, ProducerState | None]] = []
        self._applied_end = self._confirmed_end = 0
        """The offset below which batches have been applied."""

    def __len__(self) -> int:
        return len(self._producers)

    def clear(self) -> None:
        """Forget everything: the log is recovered again."""
        self._producers.clear()
        self._undo.clear()
        self._applied_end = self._confirmed_end = 0
        self.dedup_ids.load([])
        self.transactions.load(TransactionsSnapshot())
        self.key_versions.clear()

    def get(self, producer_id: int) -> ProducerState | None:
        return self._producers.get(producer_id)

    def highest_era(self) -> int:
        """The highest era of the ids that the controller gave out; -1 when there is none."""
        eras = (era_of(producer_id) for producer_id in self._producers)
        return max((era for era in eras if era is not None), default=-1)

    # -- deciding

    def check(self, header: BatchHeader) -> Accept | Duplicate:
        """Decide about a batch without changing state. Raises UnknownProducer, ProducerFenced or OutOfOrderSequence."""
        if header.producer_id == NO_PRODUCER:
            return ACCEPT
        known = self._producers.get(header.producer_id)
        if known is None:
            if header.base_sequence != 0:
                raise UnknownProducer(
                    f"producer {header.producer_id} is not known here, so its sequence {header.base_sequence}"
                    " cannot be placed"
                )
            return ACCEPT
        if header.producer_epoch != known.epoch:
            return self._check_epoch(header, known)
        if header.base_sequence == known.next_sequence:
            return ACCEPT
        return self._check_repeat(header, known)

    def _check_epoch(self, header: BatchHeader, known: ProducerState) -> Accept:
        if header.producer_epoch < known.epoch:
            raise ProducerFenced(
                f"producer {header.producer_id} has epoch {known.epoch}, the batch has {header.producer_epoch}"
            )
        if header.base_sequence != 0:
            raise OutOfOrderSequence(
                f"producer {header.producer_id} must begin epoch {header.producer_epoch} with sequence 0,"
                f" not {header.base_sequence}"
            )
        return ACCEPT

    def _check_repeat(self, header: BatchHeader, known: ProducerState) -> Duplicate:
        for written in reversed(known.batches):
            if (
                header.base_sequence == written.first_sequence
                and header.last_sequence == written.last_sequence
            ):
                return Duplicate(written.base_offset)
        raise OutOfOrderSequence(
            f"producer {header.producer_id} sent sequence {header.base_sequence}, expected {known.next_sequence}"
        )

    # -- recording

    def apply(self, header: BatchHeader, now_ms: int | None = None) -> None:
        """Record a batch that has its base offset. Repeating it changes only the time the producer was last seen.

        A decision may omit `now_ms`: `confirm` supplies it later.
        """
        if header.producer_id == NO_PRODUCER:
            return
        known = self._producers.pop(header.producer_id, None)
        seen_ms = header.max_timestamp_ms if now_ms is None else now_ms
        if header.base_offset < self._applied_end:
            if known is not None:
                seen_ms = max(seen_ms, known.last_seen_ms)
                self._producers[header.producer_id] = ProducerState(known.epoch, seen_ms, known.batches)
            return
        self._applied_end = header.next_offset
        self._undo.append((header.producer_id, known))
        attributes = header.attributes
        if attributes & TRANSACTIONAL:
            self.transactions.apply(header)
        if attributes & CONTROL:
            self._producers[header.producer_id] = _after_marker(header, known, seen_ms)
        else:
            written = WrittenBatch(header.base_sequence, header.last_sequence, header.base_offset)
            kept: tuple[WrittenBatch, ...] = ()
            if known is not None and known.epoch == header.producer_epoch:
                kept = known.batches[1 - BATCHES_KEPT :]
            self._producers[header.producer_id] = ProducerState(
                header.producer_epoch, seen_ms, (*kept, written)
            )
        if len(self._producers) > self._limit:
            self._forget_one()

    def _forget_one(self) -> None:
        busy = self.transactions.open_producers()
        silent = next((producer_id for producer_id in self._producers if producer_id not in busy), None)
        if silent is not None:
            self._forget(silent)

    def _forget(self, producer_id: int) -> None:
        self._undo.append((producer_id, self._producers.pop(producer_id)))

    def confirm(self, headers: Sequence[BatchHeader], now_ms: int) -> None:
        """Confirm that these batches are written; everything applied so far becomes final."""
        for header in headers:
            self.apply(header, now_ms)
        self._undo.clear()
        self._confirmed_end = self._applied_end
        self.dedup_ids.confirm(now_ms)
        self.transactions.confirm()
        self.key_versions.confirm()

    def revert(self) -> None:
        """Take back everything applied since the last `confirm`: those batches were not written."""
        for producer_id, before in reversed(self._undo):
            if before is None:
                del self._producers[producer_id]
            else:
                self._producers[producer_id] = before
        self._undo.clear()
        self._applied_end = self._confirmed_end
        self.dedup_ids.revert()
        self.transactions.revert()
        self.key_versions.revert()

    def expire(self, now_ms: int) -> None:
        """Forget producers silent for longer than the expiry."""
        limit_ms = now_ms - self._expiry_ms
        silent = [key for key, known in self._producers.items() if known.last_seen_ms < limit_ms]
        pending = {producer_id for producer_id, _ in self._undo} | self.transactions.open_producers()
        for producer_id in silent:
            if producer_id not in pending:
                del self._producers[producer_id]

    # -- snapshots

    def encode(self, offset: int) -> bytes:
        """Return a snapshot of the confirmed state, for a log whose written batches end before `offset`."""
        producers = dict(self._producers)
        for producer_id, before in reversed(self._undo):
            if before is None:
                producers.pop(producer_id, None)
            else:
                producers[producer_id] = before
        snapshot = _Snapshot(
            offset,
            producers,
            self.dedup_ids.sightings(),
            self.transactions.snapshot(),
            self.key_versions.snapshot(),
        )
        return encode_checked(_KIND, snapshot)

    def load(self, data: bytes | None, offset: int) -> bool:
        """Load a snapshot that verifies and was made for `offset`; return True if it was loaded."""
        snapshot = decode_checked(_KIND, data, _Snapshot)
        if snapshot is None or snapshot.offset != offset:
            return False
        self._producers = dict(snapshot.producers)
        self.dedup_ids.load(snapshot.dedup_ids)
        self.transactions.load(snapshot.transactions)
        self.key_versions.load(snapshot.key_versions)
        self._applied_end = self._confirmed_end = offset
        return True

    def bound_times(self, now_ms: int) -> None:
        """Limit all times to `now_ms`: if the clock was ahead before the machine booted, no entry would ever expire."""
        for producer_id, known in self._producers.items():
            if known.last_seen_ms > now_ms:
                self._producers[producer_id] = ProducerState(known.epoch, now_ms, known.batches)
        self.dedup_ids.bound_times(now_ms)

    def replay(
        self, batches: Iterable[tuple[BatchHeader, str | None, Sequence[KeyWrite]]], now_ms: int
    ) -> None:
        """Apply batches read back from the log, each with its dedup id if it has one, and its keys if the topic keeps
        their versions. All count as seen now."""
        for header, dedup_id, writes in batches:
            self.apply(header, now_ms)
            self._undo.clear()
            self._confirmed_end = self._applied_end
            self.transactions.confirm()
            if dedup_id is not None:
                self.dedup_ids.replay(dedup_id, header.base_offset, now_ms)
            if self.key_versions.is_kept:
                self.key_versions.note(header, writes)
                self.key_versions.confirm()


def _after_marker(header: BatchHeader, known: ProducerState | None, seen_ms: int) -> ProducerState:
    """Raise the epoch, unless batches of the next epoch have already been applied."""
    if known is not None and known.epoch > header.producer_epoch:
        return ProducerState(known.epoch, seen_ms, known.batches)
    return ProducerState(header.producer_epoch + 1, seen_ms, ())
