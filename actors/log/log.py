"""A partition's log: append, sync, read, retain. A partition process reaches its files only through this module.

Owns the list of segments, the checkpoint and the producers' snapshots. Must never be used by two processes (the
partition process holds the directory's lock) or two threads. Plain and synchronous: the process calls it in its turn,
and no method waits except for the disk.

Order of one turn: `append` all batches the turn decided on (written, not yet durable), `sync` (one fdatasync covers
all of them), and only then send the replies. A failed sync is final: every later call raises StorageFailed, and the
process must end.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...transport.batch import BatchHeader
from .checkpoint import CHECKPOINT_NAME, CLEAN_NAME, Checkpoint, encode_checkpoint, note_sync_failure
from .cleaned import Cleaned
from .compaction import Compactor
from .companions import COMPACTION_NAME
from .errors import CorruptLog, OffsetOutOfRange, StorageFailed, StorageFull, Unreadable
from .files import Buffer, Files
from .producers import ProducerStates
from .recovery import Recovered, recover
from .retention import LogConfig, expired_count, is_roll_due
from .segment import Segment
from .snapshots import write_snapshot
from .start import note_start
from .timestamps import first_at_or_after
from .usable import Usable
from .verification import damage_in

CHECKPOINT_BYTES = 32 * 1024 * 1024
CHECKPOINT_BATCHES = 50_000
"""A sync makes a checkpoint when this many batches lie above the last one, to bound the work of a recovery."""
SNAPSHOT_PRODUCERS_PER_BATCH = 4
"""A checkpoint writes a producer snapshot only when replaying instead would take about as long as reading it."""
OPEN_SEGMENTS_LIMIT = 32
CURSORS_LIMIT = 256


def _ignore(_: int) -> None:
    """Discard progress reports."""


class PartitionLog:
    """The log of one partition (see the module). Create it with `open`."""

    def __init__(
        self, directory: Path, config: LogConfig, files: Files, recovered: Recovered, now_ms: int
    ) -> None:
        self.directory = directory
        self.config = config
        self.producers: ProducerStates = recovered.producers
        self.was_clean = recovered.was_clean
        self.log_start_offset = recovered.log_start_offset
        self.last_leader_epoch = recovered.last_leader_epoch
        self.losses = recovered.losses
        """Ranges that the files prove to be missing, as of the opening."""
        self.lost_files = recovered.lost_files
        """Files beside the segments that are missing or damaged, as of the opening."""
        self._companions = recovered.companions
        taken = -1 if recovered.checkpoint is None else recovered.checkpoint.leader_epoch
        self.leader_epoch = max(taken, recovered.last_leader_epoch) + 1
        """The epoch of this opening, durable before the first append: no batch of an earlier opening, kept or lost by
        a power cut, has the same offset and epoch as one of this.
        """
        self._files = files
        self._segments = recovered.segments
        self._bases = [segment.base_offset for segment in recovered.segments]
        self._sealed_bytes = sum(segment.size_bytes for segment in recovered.segments[:-1])
        self._checkpoint = recovered.checkpoint
        self._snapshot_offset = recovered.snapshot_offset
        self._batches_since_snapshot = self._remembered  # unknown: assume that a snapshot is worth its cost
        self._active_since_ms = min(recovered.active_since_ms, now_ms)
        if self._active_since_ms == 0 and self._active.size_bytes:
            self._active_since_ms = now_ms
        self._synced_bytes = self._active.size_bytes
        self._bytes_since_checkpoint = 0
        self._batches_since_checkpoint = 0
        self._usable = Usable()
        self._opened: OrderedDict[int, Segment] = OrderedDict()
        self._cursors: OrderedDict[int, tuple[Segment, int]] = OrderedDict()
        self._compactor = Compactor(
            directory, files, recovered.cleaned, self._replace, self.producers.transactions
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        config: LogConfig,
        now_ms: int,
        files: Files | None = None,
        on_progress: Callable[[int], None] = _ignore,
    ) -> "PartitionLog":
        """Recover the log in `directory`, creating it if missing. Takes well under a second at any size.

        `on_progress` is called with the number of bytes checked so far, about once a megabyte. Raises StorageFailed,
        and StorageFull if a new log finds no room.
        """
        files = files or Files()
        producers = ProducerStates()
        producers.identities.reconfigure(config.dedup_window_ms, config.dedup_window_count)
        recovered = recover(directory, files, producers, now_ms, on_progress)
        log = cls(directory, config, files, recovered, now_ms)
        log.checkpoint()
        return log

    # -- state

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    @property
    def log_end_offset(self) -> int:
        """Return the offset that the next batch gets."""
        return self._active.next_offset

    @property
    def size_bytes(self) -> int:
        return self._sealed_bytes + self._active.size_bytes

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def _remembered(self) -> int:
        """Return the number of entries in a snapshot."""
        return len(self.producers) + len(self.producers.identities)

    def note_companion(self, name: str) -> None:
        """Note that the folder now has this file: if it is missing at the next opening, it was lost."""
        if name not in self._companions:
            self._companions |= {name}
            self.checkpoint()

    def reconfigure(self, config: LogConfig) -> None:
        """Take effect with the next append, retention and pass of compaction; for dedup ids at once."""
        self.config = config
        if not config.is_compacting:
            self._compactor.stop()
        self.producers.identities.reconfigure(config.dedup_window_ms, config.dedup_window_count)

    # -- writing

    def append(self, frames: Sequence[Buffer], headers: Sequence[BatchHeader], now_ms: int) -> None:
        """Write batches at the end; `sync` makes them durable. All or nothing.

        `frames`, one after the other, are the stamped batches that `headers` describe (one frame a batch, or
        several), with consecutive offsets from `log_end_offset`. All go in one segment; when it is full, a new one is
        begun first. On StorageFull the log and `producers` return to their state before this turn, and the log stays
        usable.
        """
        if not headers:
            return
        total_bytes = sum(map(len, frames))
        self._check_sequence(headers, total_bytes)
        with self._usable:
            try:
                age_ms = now_ms - self._active_since_ms
                if is_roll_due(self.config, self._active.size_bytes, total_bytes, age_ms):
                    self._roll()
                if self._active.size_bytes == 0:
                    self._active_since_ms = now_ms
                self._active.append(frames, headers, total_bytes)
            except StorageFull:
                self.producers.revert()
                raise
        self.producers.confirm(headers, now_ms)
        self.last_leader_epoch = headers[-1].leader_epoch
        self._bytes_since_checkpoint += total_bytes
        self._batches_since_checkpoint += len(headers)
        self._batches_since_snapshot += len(headers)

    def _check_sequence(self, headers: Sequence[BatchHeader], total_bytes: int) -> None:
        expected_offset, epoch, described_bytes = self.log_end_offset, self.last_leader_epoch, 0
        for header in headers:
            assert header.base_offset == expected_offset, (header.base_offset, expected_offset)
            assert header.leader_epoch >= epoch, (header.leader_epoch, epoch)
            expected_offset, epoch = header.next_offset, header.leader_epoch
            described_bytes += header.size_bytes
        assert described_bytes == total_bytes, (described_bytes, total_bytes)

    def sync(self) -> None:
        """Make everything appended so far durable with one fdatasync. Raises StorageFailed, which is final."""
        with self._usable:
            self._sync()
        if (
            self._bytes_since_checkpoint >= CHECKPOINT_BYTES
            or self._batches_since_checkpoint >= CHECKPOINT_BATCHES
        ):
            self.checkpoint()

    def _sync(self) -> None:
        if self._synced_bytes == self._active.size_bytes:
            return
        try:
            self._active.sync()
        except StorageFailed:
            note_sync_failure(self.directory, self._files)
            raise
        self._synced_bytes = self._active.size_bytes

    def _trim(self) -> None:
        """Sync the active segment as a file that ends with its last batch."""
        if self._active.trim():
            self._synced_bytes = -1
        self._sync()

    def _roll(self) -> None:
        """Seal the active segment and begin the next. Raises StorageFull with the active segment unchanged.

        The old segment is known to be whole on disk before the new one exists, so only a log's last segment can be
        torn.
        """
        self._trim()
        self._active.write_index()
        self._write_snapshot()
        self._write_checkpoint()
        base_offset = self.log_end_offset
        successor = Segment(self.directory, base_offset, 0, self._files)
        successor.open_active()
        self._files.sync_directory(self.directory)
        self._active.seal(base_offset)
        self._sealed_bytes += self._active.size_bytes
        self._keep_open(self._active)
        self._segments.append(successor)
        self._bases.append(base_offset)
        self._synced_bytes = 0
        self._active_since_ms = 0

    # -- checkpoints

    def checkpoint(self) -> bool:
        """Sync, and record the recovery point, where the next recovery begins.

        Return False when the disk is too full for it: the old checkpoint stays valid, and recovery reads more.
        """
        with self._usable:
            self._sync()
            try:
                self._active.write_index()
                if self._batches_since_snapshot * SNAPSHOT_PRODUCERS_PER_BATCH >= self._remembered:
                    self._write_snapshot()
                self._write_checkpoint()
            except StorageFull:
                return False
        return True

    def _write_snapshot(self) -> None:
        if self._snapshot_offset == self.log_end_offset:
            return
        write_snapshot(self.directory, self._files, self.producers, self.log_end_offset)
        self._snapshot_offset = self.log_end_offset
        self._batches_since_snapshot = 0

    def _write_checkpoint(self) -> None:
        checkpoint = Checkpoint(
            log_start_offset=self.log_start_offset,
            recovery_offset=self.log_end_offset,
            recovery_segment=self._active.base_offset,
            recovery_position=self._active.size_bytes,
            last_leader_epoch=self.last_leader_epoch,
            leader_epoch=self.leader_epoch,
            active_since_ms=self._active_since_ms,
            companions=tuple(sorted(self._companions)),
        )
        if checkpoint != self._checkpoint:
            self._files.replace(self.directory / CHECKPOINT_NAME, encode_checkpoint(checkpoint))
            self._checkpoint = checkpoint
        self._bytes_since_checkpoint = 0
        self._batches_since_checkpoint = 0

    def close(self, clean: bool = True) -> None:
        """Release every file; with `clean`, first make all data durable and leave the clean marker."""
        if clean:
            self._compactor.stop()
            with self._usable:
                self._trim()
        if clean and self.checkpoint():
            with self._usable, suppress(StorageFull):
                self._files.replace(self.directory / CLEAN_NAME, b"")
        self._compactor.release()
        for segment in self._segments:
            segment.close()
        self._usable.end("the log is closed")

    # -- reading

    def read(self, offset: int, max_bytes: int, up_to_offset: int) -> tuple[Buffer, int]:
        """Return whole batches from the one that holds `offset`, or the next existing one, all below `up_to_offset`.

        They lie back to back in one buffer, as `transport.batch.split` takes them apart; the offset after them comes
        with it. The buffer is empty when there is no batch to read yet. It ends at a segment's end, at damage, or
        before exceeding `max_bytes` (but never before its first batch). Every checksum has been verified. Compacted
        offsets are skipped: the returned offset may lie far behind the batches, or have moved without any.

        Raises OffsetOutOfRange outside log_start_offset to log_end_offset, and CorruptLog when the batch that holds
        `offset` is damaged or missing; its `next_offset` is where reading can continue. Finding that place in a long
        damaged stretch takes several calls: SearchUnfinished asks for the next one.
        """
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.log_end_offset)
        asked, offset = offset, self.after_gap(offset)
        if offset >= min(up_to_offset, self.log_end_offset):
            return b"", max(asked, min(offset, up_to_offset))
        with self._usable:
            try:
                segment, run, next_offset, position = self._read_run(offset, max_bytes, up_to_offset)
            except CorruptLog as loss:
                raise self._extended(loss) from loss
            if not run:
                return b"", offset
            self._remember(next_offset, segment, position + len(run))
            return run, min(self.after_gap(next_offset), up_to_offset)

    def _read_run(
        self, offset: int, max_bytes: int, up_to_offset: int
    ) -> tuple[Segment, memoryview, int, int]:
        segment, position = self._find(offset)
        return segment, *segment.read(position, offset, max_bytes, up_to_offset), position

    def _extended(self, loss: CorruptLog) -> CorruptLog:
        """Extend a loss by the losses that follow directly, at the beginning of the next segments."""
        next_offset = loss.next_offset
        while self._segment_of(next_offset).base_offset == next_offset < self.log_end_offset:
            try:
                self._read_run(self.after_gap(next_offset), 0, self.log_end_offset)
                break
            except CorruptLog as following:
                next_offset = following.next_offset
        return CorruptLog(loss.segment, loss.position, loss.offset, next_offset, loss.reason)

    def after_gap(self, offset: int) -> int:
        """Skip to the next segment if compaction left no record from `offset` to its segment's end."""
        while offset < self.log_end_offset:
            segment = self._segment_of(offset)
            if not segment.has_only_gap_from(offset):
                break
            offset = segment.next_offset
        return offset

    def _find(self, offset: int) -> tuple[Segment, int]:
        segment = self._segment_of(offset)
        remembered = self._cursors.get(offset)
        if remembered is not None and remembered[0] is segment:
            position = remembered[1]
        else:
            position = segment.locate(offset)
        if segment is not self._active:
            self._keep_open(segment)
        return segment, position

    def _segment_of(self, offset: int) -> Segment:
        return self._segments[bisect_right(self._bases, offset) - 1]

    def _remember(self, next_offset: int, segment: Segment, position: int) -> None:
        """Remember the place where a consumer stopped reading, to save the search when it continues."""
        self._cursors[next_offset] = (segment, position)
        if len(self._cursors) > CURSORS_LIMIT:
            self._cursors.popitem(last=False)

    def _keep_open(self, segment: Segment) -> None:
        """Bound the number of descriptors: close the least recently used sealed segment."""
        self._opened[segment.base_offset] = segment
        self._opened.move_to_end(segment.base_offset)
        if len(self._opened) > OPEN_SEGMENTS_LIMIT:
            self._opened.popitem(last=False)[1].close()

    def bytes_from(self, offset: int) -> int:
        """Return the number of bytes at and after `offset`, to the precision of the index; 0 only at the end."""
        offset = self.after_gap(max(offset, self.log_start_offset))
        if offset >= self.log_end_offset:
            return 0
        with self._usable:
            first = bisect_right(self._bases, offset) - 1
            size_bytes = sum(segment.size_bytes for segment in self._segments[first:])
            return size_bytes - self._segments[first].index().position_of(offset)

    def offset_for_timestamp(self, timestamp_ms: int, is_committed: bool = False) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None. Raises CorruptLog.

        Markers do not count. With `is_committed` the records of aborted transactions do not count either.
        """
        transactions = self.producers.transactions

        def is_readable(header: BatchHeader) -> bool:
            if header.is_control:
                return False
            return not (is_committed and header.is_transactional and transactions.is_aborted(header))

        with self._usable:
            for segment in self._segments:
                newest_ms = segment.max_timestamp_ms
                if segment is not self._active:
                    self._keep_open(segment)
                if newest_ms is None or newest_ms < timestamp_ms:
                    continue
                try:
                    found = first_at_or_after(segment, timestamp_ms, self.log_start_offset, is_readable)
                except Unreadable as error:
                    raise segment.unreadable(0, segment.base_offset, error) from error
                if found is not None:
                    return found
        return None

    def verify(self) -> list[CorruptLog]:
        """Read everything and report all damage, without changing anything."""
        with self._usable:
            found: list[CorruptLog] = []
            for segment in self._segments:
                found += damage_in(segment)
                if segment is not self._active:
                    segment.close()
        return found

    # -- deleting

    def apply_retention(self, now_ms: int, consumed_offset: int | None = None) -> int:
        """Delete the segments that have outlived the topic's retention; return the new log_start_offset.

        Some group still has to read the records from `consumed_offset` on; None: no group holds back retention. When
        even the newest record is too old the active segment is rolled and deleted too, as in Kafka.
        """
        with self._usable:
            self.producers.expire(now_ms)
            count = expired_count(self.config, self._segments, now_ms, consumed_offset)
            if count == len(self._segments):
                try:
                    self._roll()
                except StorageFull:
                    count -= 1  # the active segment waits until the others have made room
            if count:
                with suppress(StorageFull):  # without room even for a name: try again later
                    self._move_start(max(self.log_start_offset, self._segments[count - 1].next_offset))
        return self.log_start_offset

    def delete_before(self, offset: int) -> None:
        """Make `offset` the log's start, durably, and delete the segments wholly below it.

        Raises OffsetOutOfRange beyond the log's end. Raises StorageFull, with nothing changed, if that cannot be
        recorded.
        """
        if offset > self.log_end_offset:
            raise OffsetOutOfRange(offset, self.log_start_offset, self.log_end_offset)
        if offset <= self.log_start_offset:
            return
        with self._usable:
            self._move_start(offset)

    def _move_start(self, offset: int) -> None:
        """Record the start, then delete the segments below. Raises StorageFull, with no change.

        A full disk has room for the name that records it, so that deleting can make room.
        """
        self._sync()
        note_start(self.directory, self._files, offset)
        self.log_start_offset = offset
        self._files.sync_directory(self.directory)
        with suppress(StorageFull):
            if self._active.size_bytes and self.log_end_offset <= self.log_start_offset:
                self._roll()
            self._write_checkpoint()
        while len(self._segments) > 1 and self._segments[0].next_offset <= self.log_start_offset:
            segment = self._segments.pop(0)
            self._sealed_bytes -= segment.size_bytes
            self._bases.pop(0)
            self._opened.pop(segment.base_offset, None)
            self._compactor.on_deleted(segment)
            segment.unlink()
        self._files.sync_directory(self.directory)
        self.checkpoint()

    # -- compaction

    def compact(self, now_ms: int, budget_bytes: int, wall_ms: int | None = None) -> bool:
        """Compact about `budget_bytes`, if due; return True if there is more to do now. See `Compactor.step`."""
        if not self.config.is_compacting:
            return False
        with self._usable:
            is_more = self._compactor.step(self.config, self._segments, now_ms, wall_ms, budget_bytes)
        if self._compactor.cleaned != Cleaned():
            self.note_companion(COMPACTION_NAME)
        return is_more

    def _replace(self, replaced: Sequence[Segment], successor: Segment) -> None:
        """Replace several neighbouring segments by the one that compaction made of them."""
        first = self._segments.index(replaced[0])
        self._segments[first : first + len(replaced)] = [successor]
        self._bases = [segment.base_offset for segment in self._segments]
        self._sealed_bytes += successor.size_bytes - sum(segment.size_bytes for segment in replaced)
        for segment in replaced:
            self._opened.pop(segment.base_offset, None)
        for offset in [offset for offset, (segment, _) in self._cursors.items() if segment in replaced]:
            del self._cursors[offset]
