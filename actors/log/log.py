"""A partition's log: append, sync, read, retain. A partition process reaches its files only through this module.

Owns the active segment and every change of the log: appends, rolls, deletion. `segments.py` has the list of
segments, `readable.py` the reads, `checkpointing.py` the time of checkpoints, `compaction.py` rewrites the sealed
segments. Must never be used by two processes (the partition process holds the directory's lock) or two threads. Plain
and synchronous: the process calls it in its turn, and no method waits except for the disk.

Order of one turn: `append` all batches the turn decided on (written, not yet durable), `sync` (one fdatasync covers
all of them), and only then send the replies. A failed sync is final: every later call raises StorageFailed, and the
process must end.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...transport.batch import HEAD_BYTES, BatchHeader
from .checkpoint import CLEAN_NAME, Checkpoint, note_sync_failure
from .checkpointing import Checkpointer
from .cleaned import Cleaned
from .compaction import Compactor
from .companions import COMPACTION_NAME
from .epochs import NO_EPOCH
from .errors import OffsetOutOfRange, StaleLeaderEpoch, StorageFailed, StorageFull
from .files import Buffer, Files
from .producers import ProducerStates
from .readable import ReadableLog
from .reading import LogReader
from .recovery import Recovered, recover
from .retention import LogConfig, expired_count, is_roll_due
from .segment import Segment
from .segments import SegmentList
from .start import note_start
from .truncation import Truncation, save_truncation


def _ignore(_: int) -> None:
    """Discard progress reports."""


class PartitionLog(ReadableLog):
    """The log of one partition (see the module). Create it with `open`."""

    def __init__(
        self, directory: Path, config: LogConfig, files: Files, recovered: Recovered, now_ms: int
    ) -> None:
        super().__init__()
        self.directory = directory
        self.config = config
        self.was_clean = recovered.was_clean
        self.lost_files = recovered.lost_files
        """Files beside the segments that are missing or damaged, as of the opening."""
        self._files = files
        self._take(recovered, now_ms)

    def _take(self, recovered: Recovered, now_ms: int) -> None:
        self.losses = recovered.losses
        """Ranges that the files prove to be missing, as of the opening, or of the last truncation."""
        self.producers: ProducerStates = recovered.producers
        self.log_start_offset = recovered.log_start_offset
        self.epochs = recovered.epochs
        self.last_leader_epoch = recovered.epochs.last
        is_apart = self.config.has_source_epochs
        self.highest_leader_epoch = (
            recovered.taken_leader_epoch if is_apart else recovered.highest_leader_epoch
        )
        """The highest epoch that a leader of this log took, used or not."""
        self._is_epoch_noted = True
        self.leader_epoch = NO_EPOCH
        """The epoch in which this opening leads, durable before its first append (`lead`)."""
        self.high_watermark = 0 if recovered.checkpoint is None else recovered.checkpoint.high_watermark
        """An offset below which every record was known to be committed."""
        self._segments = SegmentList(recovered.segments)
        self._reader = LogReader(self._segments, self.producers.transactions)
        self._checkpointer = Checkpointer(self.directory, self._files, recovered)
        self._active_since_ms = min(recovered.active_since_ms, now_ms)
        if self._active_since_ms == 0 and self._active.size_bytes:
            self._active_since_ms = now_ms
        self._synced_bytes = self._active.size_bytes
        self._compactor = Compactor(
            self.directory, self._files, recovered.cleaned, self._replace, self.producers.transactions
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
        producers.dedup_ids.reconfigure(config.dedup_window_ms, config.dedup_window_count)
        producers.key_versions.is_kept = config.keeps_key_versions
        recovered = recover(directory, files, producers, now_ms, on_progress)
        return cls(directory, config, files, recovered, now_ms)

    def lead(self, leader_epoch: int) -> None:
        """Take an epoch for this opening's own batches. Raises StaleLeaderEpoch unless it is above all earlier ones.

        It is durable before the first append, at the latest: so no batch of an earlier leader of this log, kept or
        lost by a power cut, has the same offset and epoch as one of this.
        """
        if leader_epoch <= self.highest_leader_epoch:
            raise StaleLeaderEpoch(leader_epoch, self.highest_leader_epoch)
        self.leader_epoch = self.highest_leader_epoch = leader_epoch
        self._is_epoch_noted = self.checkpoint()

    def follow(self) -> None:
        """Lead no more: the log takes the batches of another leader."""
        self.leader_epoch = NO_EPOCH

    # -- state

    def note_companion(self, name: str) -> None:
        """Note that the folder now has this file: if it is missing at the next opening, it was lost."""
        if name not in self._checkpointer.companions:
            self._checkpointer.companions |= {name}
            self.checkpoint()

    def reconfigure(self, config: LogConfig) -> None:
        """Take effect with the next append, retention and pass of compaction; for dedup ids at once."""
        self.config = config
        self._count_epochs()
        if not config.is_compacting:
            self._compactor.stop()
        self.producers.dedup_ids.reconfigure(config.dedup_window_ms, config.dedup_window_count)

    # -- writing

    def append(self, frames: Sequence[Buffer], headers: Sequence[BatchHeader], now_ms: int) -> None:
        """Write batches at the end; `sync` makes them durable. All or nothing.

        `frames`, one after the other, are the stamped batches that `headers` describe (one frame a batch, or
        several), with rising offsets from `log_end_offset` on: a leader's are consecutive, and where compaction has
        dropped some of them, a copy of its log has the same gaps. All go in one segment; when it is full, a new one is
        begun first. On StorageFull the log and `producers` return to their state before this turn, and the log stays
        usable.
        """
        if not headers:
            return
        total_bytes = sum(map(len, frames))
        _check_sequence(headers, self.log_end_offset, self.last_leader_epoch, total_bytes)
        with self._usable:
            try:
                if not self._is_epoch_noted:
                    self._write_checkpoint()  # the disk was full before
                    self._is_epoch_noted = True
                active = self._segments.active
                age_ms = now_ms - self._active_since_ms
                if is_roll_due(self.config, active.size_bytes, total_bytes, age_ms):
                    self._roll()
                    active = self._segments.active
                if active.size_bytes == 0:
                    self._active_since_ms = now_ms
                active.append(frames, headers, total_bytes)
            except StorageFull:
                self.producers.revert()
                raise
        self.producers.confirm(headers, now_ms)
        if headers[-1].leader_epoch != self.last_leader_epoch:
            self._note_epochs(headers)
        self._checkpointer.appended(total_bytes, len(headers))

    def _note_epochs(self, headers: Sequence[BatchHeader]) -> None:
        for header in headers:
            self.epochs.note(header.leader_epoch, header.base_offset)
        self.last_leader_epoch = self.epochs.last
        self._count_epochs()

    def _count_epochs(self) -> None:
        """Count the epochs of batches as taken by leaders of this log, unless they are those of another broker."""
        if not self.config.has_source_epochs:
            self.highest_leader_epoch = max(self.highest_leader_epoch, self.last_leader_epoch)

    def sync(self) -> None:
        """Make everything appended so far durable with one fdatasync. Raises StorageFailed, which is final."""
        with self._usable:
            self._sync()
        if self._checkpointer.is_due:
            self.checkpoint()

    def _sync(self) -> None:
        active = self._segments.active
        if self._synced_bytes == active.size_bytes:
            return
        try:
            active.sync()
        except StorageFailed:
            note_sync_failure(self.directory, self._files)
            raise
        self._synced_bytes = active.size_bytes

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
        self._checkpointer.write_snapshot(self.log_end_offset)
        self._write_checkpoint()
        successor = Segment(self.directory, self.log_end_offset, 0, self._files)
        successor.open_active()
        self._files.sync_directory(self.directory)
        self._segments.roll(successor)
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
                if self._checkpointer.is_snapshot_due:
                    self._checkpointer.write_snapshot(self.log_end_offset)
                self._write_checkpoint()
            except StorageFull:
                return False
        return True

    def _write_checkpoint(self) -> None:
        checkpoint = Checkpoint(
            log_start_offset=self.log_start_offset,
            recovery_offset=self.log_end_offset,
            recovery_segment=self._active.base_offset,
            recovery_position=self._active.size_bytes,
            epochs=self.epochs.entries,
            leader_epoch=self.highest_leader_epoch,
            high_watermark=min(self.high_watermark, self.log_end_offset),
            active_since_ms=self._active_since_ms,
            companions=tuple(sorted(self._checkpointer.companions)),
        )
        self._checkpointer.write(checkpoint)

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
        self._segments.close()
        self._usable.end("the log is closed")

    # -- deleting

    def apply_retention(
        self, now_ms: int, consumed_offset: int | None = None, up_to_offset: int | None = None
    ) -> int:
        """Delete the segments that have outlived the topic's retention; return the new log_start_offset.

        Some group still has to read the records from `consumed_offset` on; None: no group holds back retention. No
        record from `up_to_offset` on is deleted, whatever its age. When
        even the newest record is too old the active segment is rolled and deleted too, as in Kafka.
        """
        with self._usable:
            self.producers.expire(now_ms)
            segments = self._segments.all
            count = expired_count(self.config, segments, now_ms, consumed_offset)
            if up_to_offset is not None:
                count = min(count, sum(1 for segment in segments if segment.next_offset <= up_to_offset))
            if count == len(segments):
                try:
                    self._roll()
                except StorageFull:
                    count -= 1  # the active segment waits until the others have made room
            if count:
                with suppress(StorageFull):  # without room even for a name: try again later
                    self._move_start(max(self.log_start_offset, segments[count - 1].next_offset))
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
        self.epochs.trim(offset)
        self._files.sync_directory(self.directory)
        with suppress(StorageFull):
            if self._active.size_bytes and self.log_end_offset <= self.log_start_offset:
                self._roll()
            self._write_checkpoint()
        while len(self._segments) > 1 and self._segments.all[0].next_offset <= self.log_start_offset:
            segment = self._segments.remove_first()
            self._compactor.on_deleted(segment)
            segment.unlink()
        self._files.sync_directory(self.directory)
        self.checkpoint()

    # -- truncation

    def truncate_to(self, offset: int, now_ms: int) -> None:
        """Remove every batch that reaches beyond `offset`, durably; `producers` returns to its state there.

        Only a log that does not lead is cut. A crash at any step leaves the log as it was, or cut. Raises StorageFull
        with nothing changed.
        """
        assert self.log_start_offset <= offset, "below its start a log starts again"
        if offset < self.log_end_offset:
            self._recover_to(Truncation(offset=offset, leader_epoch=self.highest_leader_epoch), now_ms)

    def reset_to(self, offset: int, now_ms: int) -> None:
        """Remove every batch; the log begins and ends at `offset`. Otherwise as `truncate_to`."""
        truncation = Truncation(offset=offset, leader_epoch=self.highest_leader_epoch, is_reset=True)
        self._recover_to(truncation, now_ms)

    def _recover_to(self, truncation: Truncation, now_ms: int) -> None:
        """Mark the truncation, and recover the log, which carries it out as after a crash."""
        with self._usable:
            self._compactor.stop()
            self._sync()
            save_truncation(self.directory, self._files, truncation)
            self._segments.close()
            self.producers.clear()
            try:
                self._take(recover(self.directory, self._files, self.producers, now_ms, _ignore), now_ms)
            except StorageFull as error:
                raise StorageFailed(f"a truncation could not be finished: {error}") from error
        self.high_watermark = min(self.high_watermark, self.log_end_offset)
        self.checkpoint()

    # -- compaction

    def compact(
        self,
        now_ms: int,
        budget_bytes: int,
        wall_ms: int | None = None,
        up_to_offset: int | None = None,
    ) -> bool:
        """Compact about `budget_bytes`, if due; return True if there is more to do now. See `Compactor.step`.

        A pass that begins leaves the segments alone that reach beyond `up_to_offset`.
        """
        if not self.config.is_compacting:
            return False
        with self._usable:
            end_offset = self.log_end_offset if up_to_offset is None else up_to_offset
            is_more = self._compactor.step(
                self.config, self._segments.all, now_ms, wall_ms, budget_bytes, end_offset
            )
        if self._compactor.cleaned != Cleaned():
            self.note_companion(COMPACTION_NAME)
        return is_more

    def _replace(self, replaced: Sequence[Segment], successor: Segment) -> None:
        """Replace several neighbouring segments by the one that compaction made of them."""
        self._segments.replace(replaced, successor)
        self._reader.forget(replaced)


def _check_sequence(
    headers: Sequence[BatchHeader], log_end_offset: int, leader_epoch: int, total_bytes: int
) -> None:
    """Assert that the batches follow the log's last one, and that their sizes add up to the frames' size."""
    described_bytes = 0
    for header in headers:
        assert header.base_offset >= log_end_offset, (header.base_offset, log_end_offset)
        assert header.leader_epoch >= leader_epoch, (header.leader_epoch, leader_epoch)
        log_end_offset, leader_epoch = header.base_offset + header.record_count, header.leader_epoch
        described_bytes += HEAD_BYTES + header.length
    assert described_bytes == total_bytes, (described_bytes, total_bytes)
