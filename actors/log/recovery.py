"""Opening a log after a crash or a clean end of its last owner.

Owns every decision about which bytes on disk are trusted. Called by `PartitionLog` alone, with the directory locked:
when the log is opened, and when it is cut below its checkpoint.

1. Note and delete the clean marker, so that a death during recovery is not taken for a clean end.
2. Finish or undo the swap of an interrupted compaction, finish a truncation that has begun (`truncation.py`); delete
   files that an interrupted write, roll or deletion left.
3. Everything up to the checkpoint's recovery point, and every segment but the last, was synced: it is trusted unread,
   and damage in it is rot. Rot is never cut; readers receive CorruptLog. Offsets once given out are never given out
   again: a log shorter than its recovery point continues in a new segment there, with a gap before it.
   The same holds for a log shorter than a producer snapshot says. Where the log's start (`start.py`, checkpoint), or
   the index of a segment, proves that a segment is missing, an empty segment takes its place, and the loss is reported.
4. Only the last segment's tail remains (`tail.py`). It is checked batch by batch, every checksum, and cut at the
   first batch that fails.
5. The remaining tail is synced before it may be read.
6. Producers, dedup ids and versions of keys come from the newest good snapshot and the batches after it.

Recovering a recovered log changes nothing. Only tails and names are read: the size of the log does not matter.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ...transport.batch import DEDUP, BatchHeader
from ...transport.deduplication import dedup_id_of
from .checkpoint import (
    CHECKPOINT_NAME,
    CLEAN_NAME,
    SYNC_FAILED_NAME,
    Checkpoint,
    decode_checkpoint,
    note_sync_failure,
)
from .cleaned import Cleaned, is_damaged, load_cleaned, recover_cleaned, save_cleaned, shown_by_indexes
from .companions import COMPACTION_NAME, COMPANIONS, loss_of_companion
from .epoch_search import epochs_in
from .epochs import EpochTable
from .errors import CorruptLog, StorageFailed, StorageFull
from .files import TEMPORARY_SUFFIX, Files
from .key_versions import KeyWrite, writes_of
from .producers import ProducerStates
from .scan import CHUNK_BYTES
from .segment import INDEX_SUFFIXES, LOG_SUFFIX, Segment, segment_bases
from .segment_reading import gap_reason
from .snapshots import load_newest, snapshot_offsets
from .start import note_start, noted_start
from .tail import Tail
from .truncation import TRUNCATION_NAME, finish_truncation

FOLDERS_ABOVE = 3
"""A partition's folder, its topic's, and `topics` may each be new: each is an entry of the folder above it."""

_log = logging.getLogger(__name__)


@dataclass
class Recovered:
    """A log's recovered state. The last segment is open for appending; everything in it is synced."""

    segments: list[Segment]
    log_start_offset: int
    epochs: EpochTable
    highest_leader_epoch: int
    """The highest epoch that a leader of this log took, used or not, or that a batch has."""
    taken_leader_epoch: int
    """The same without those of batches."""
    active_since_ms: int
    producers: ProducerStates
    snapshot_offset: int | None
    checkpoint: Checkpoint | None
    cleaned: Cleaned
    was_clean: bool
    losses: list[CorruptLog]
    companions: frozenset[str]
    lost_files: list[str]
    """Missing files that the checkpoint names, and files found to be damaged."""


def recover(
    directory: Path,
    files: Files,
    producers: ProducerStates,
    now_ms: int,
    on_progress: Callable[[int], None],
) -> Recovered:
    """Recover `directory` (created when missing), and fill `producers`.

    `on_progress` is called with the number of bytes checked so far.

    Raises StorageFailed or StorageFull when the operating system refuses a call.
    """
    return _Recovery(directory, files, producers, now_ms, on_progress).run()


class _Recovery:
    def __init__(
        self,
        directory: Path,
        files: Files,
        producers: ProducerStates,
        now_ms: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._files = files
        self._producers = producers
        self._now_ms = now_ms
        self._on_progress = on_progress
        self._checked_bytes = 0
        self._epochs = EpochTable()
        self._cleaned = Cleaned()
        self._losses: list[CorruptLog] = []

    def run(self) -> Recovered:
        self._make_directory()
        # Renames and deletions of the last owner may be in the cache only. They must be durable before recovery
        # relies on them.
        self._files.sync_directory(self._directory)
        names = self._files.names(self._directory)
        was_clean = CLEAN_NAME in names
        if was_clean:
            self._files.unlink(self._directory / CLEAN_NAME)
            self._files.sync_directory(self._directory)
        self._cleaned = recover_cleaned(self._directory, self._files, names)
        if TRUNCATION_NAME in names:
            finish_truncation(self._directory, self._files)
            self._cleaned = load_cleaned(self._directory, self._files)
        checkpoint = decode_checkpoint(self._files.read_whole(self._directory / CHECKPOINT_NAME))
        names = self._files.names(self._directory)
        self._delete_leftovers(names)
        start = max(noted_start(names) or 0, checkpoint.log_start_offset if checkpoint else 0)
        is_start_known = checkpoint is not None or noted_start(names) is not None
        segments = self._segments(names, checkpoint, start if is_start_known else None)
        lost_files = self._lost_files(names, checkpoint)
        if COMPACTION_NAME in lost_files:
            self._rebuild_cleaned(segments[:-1])
            names = self._files.names(self._directory)
        self._epochs = epochs_in(segments[:-1]) if checkpoint is None else EpochTable(checkpoint.epochs)
        active = self._recover_last(segments, checkpoint, sync_failed=SYNC_FAILED_NAME in names)
        active = self._go_on_behind_proofs(segments, active, start)
        self._note_gaps(segments)
        snapshot_offset = load_newest(self._directory, self._files, self._producers, active.next_offset)
        self._producers.bound_times(self._now_ms)
        self._producers.replay(self._batches_from(segments, snapshot_offset or 0), self._now_ms)
        taken = -1 if checkpoint is None else checkpoint.leader_epoch
        log_start_offset = max(segments[0].base_offset, start)
        self._note_start(log_start_offset)
        is_same_active = checkpoint is not None and checkpoint.recovery_segment == active.base_offset
        return Recovered(
            segments=segments,
            log_start_offset=log_start_offset,
            epochs=self._epochs,
            highest_leader_epoch=max(taken, self._epochs.last, self._cleaned.leader_epoch),
            taken_leader_epoch=taken,
            active_since_ms=checkpoint.active_since_ms if checkpoint and is_same_active else 0,
            companions=frozenset(COMPANIONS & set(names)),
            lost_files=lost_files,
            producers=self._producers,
            snapshot_offset=snapshot_offset,
            checkpoint=checkpoint,
            cleaned=self._cleaned,
            was_clean=was_clean,
            losses=self._losses,
        )

    # -- the directory

    def _make_directory(self) -> None:
        """Create the folder. Those above it may be new too, or made by an owner that died before it synced them."""
        self._files.make_directory(self._directory)
        for folder in tuple(self._directory.parents)[:FOLDERS_ABOVE]:
            self._files.sync_directory(folder)

    def _delete_leftovers(self, names: list[str]) -> None:
        logs = {Path(name).stem for name in names if name.endswith(LOG_SUFFIX)}
        for name in names:
            is_orphan = Path(name).suffix in INDEX_SUFFIXES and Path(name).stem not in logs
            if is_orphan or name.endswith(TEMPORARY_SUFFIX):
                self._files.unlink(self._directory / name)

    def _segments(self, names: list[str], checkpoint: Checkpoint | None, start: int | None) -> list[Segment]:
        """Return all segments, without those that retention had given up but not deleted yet; at least one.

        `start` is the start of the log, None when no file records it.
        """
        segments = [
            Segment(
                self._directory,
                base,
                self._files.size_bytes(self._directory / f"{base:020d}{LOG_SUFFIX}"),
                self._files,
            )
            for base in segment_bases(names)
        ]
        for segment, successor in pairwise(segments):
            segment.seal(successor.base_offset)
        if segments and segments[-1].base_offset in self._cleaned.segments:
            # Only a log's last segment is appended to, and none that was is ever compacted: its successor is missing.
            end_offset = self._cleaned.segments[segments[-1].base_offset].next_offset
            segments[-1].seal(end_offset)
            self._begin_segment(segments, end_offset)
        self._recognise_cleaned(segments)
        while len(segments) > 1 and segments[0].next_offset <= (start or 0):
            segments.pop(0).unlink()
        if segments and start is not None and start < segments[0].base_offset:
            # An empty segment takes the place of the missing ones, so that reads there raise CorruptLog.
            missing = self._begin_segment([], start)
            missing.close()
            missing.seal(segments[0].base_offset)
            segments.insert(0, missing)
        if not segments:
            self._begin_segment(segments, max(start or 0, checkpoint.recovery_offset if checkpoint else 0))
        return segments

    def _recognise_cleaned(self, segments: list[Segment]) -> None:
        """Recognise compacted segments, only where size and bounds match: elsewhere missing offsets are damage."""
        for segment in segments:
            entry = self._cleaned.segments.get(segment.base_offset)
            if entry is not None and (entry.size_bytes, entry.next_offset) == (
                segment.size_bytes,
                segment.next_offset,
            ):
                segment.end_offset = entry.end_offset

    def _rebuild_cleaned(self, sealed: list[Segment]) -> None:
        self._cleaned = Cleaned(segments=shown_by_indexes(sealed))
        self._recognise_cleaned(sealed)
        with suppress(StorageFull):  # reported again at the next start
            save_cleaned(self._directory, self._files, self._cleaned)

    def _begin_segment(self, segments: list[Segment], base_offset: int) -> Segment:
        segment = Segment(self._directory, base_offset, 0, self._files)
        segment.open_active()
        self._files.sync_directory(self._directory)
        segments.append(segment)
        return segment

    def _note_start(self, log_start_offset: int) -> None:
        with suppress(StorageFull):  # the checkpoint records it as well
            note_start(self._directory, self._files, log_start_offset)
            self._files.sync_directory(self._directory)

    def _lost_files(self, names: list[str], checkpoint: Checkpoint | None) -> list[str]:
        known = set(checkpoint.companions) if checkpoint is not None else set()
        lost = known - set(names)
        if COMPACTION_NAME in names and is_damaged(self._directory, self._files):
            lost.add(COMPACTION_NAME)
        for name in sorted(lost):
            _log.error("%s: %s", self._directory, loss_of_companion(name))
        return sorted(lost)

    # -- the last segment

    def _recover_last(
        self, segments: list[Segment], checkpoint: Checkpoint | None, sync_failed: bool
    ) -> Segment:
        last = segments[-1]
        safe_position, safe_offset = 0, last.base_offset
        if checkpoint is not None:
            if checkpoint.recovery_segment == last.base_offset:
                safe_position, safe_offset = checkpoint.recovery_position, checkpoint.recovery_offset
            if checkpoint.recovery_segment > last.base_offset or safe_position > last.size_bytes:
                return self._go_on_after_gap(segments, checkpoint.recovery_offset)
        if not last.is_open:
            last.open_active()
        last.next_offset = safe_offset
        last.index(trusted_bytes=safe_position)
        if last.size_bytes > safe_position:
            tail = Tail(self._directory, self._files, last)
            tail.check(safe_position, self._on_tail_batch)
            if sync_failed:
                tail.rewrite(safe_position)
            try:
                last.sync()
            except StorageFailed:
                note_sync_failure(self._directory, self._files)
                raise
        if sync_failed:
            self._files.unlink(self._directory / SYNC_FAILED_NAME)
        self._files.sync_directory(self._directory)
        return last

    def _go_on_after_gap(self, segments: list[Segment], recovery_offset: int) -> Segment:
        last = segments[-1]
        _log.error(
            "%s ends before offset %d, which was safely written; the log continues there, with a gap",
            last.path,
            recovery_offset,
        )
        with suppress(StorageFull):
            if last.is_open:
                last.write_index()  # stores where the segment ended
        last.seal(recovery_offset)
        last.close()
        return self._begin_segment(segments, recovery_offset)

    def _go_on_behind_proofs(self, segments: list[Segment], active: Segment, start: int) -> Segment:
        """Continue the log behind offsets that are proven to have existed.

        A producer snapshot is written, and the start moved, after all earlier batches were synced: both prove that
        the log reached that offset.
        """
        proven_offset = max([start, *snapshot_offsets(self._directory, self._files)])
        if proven_offset <= active.next_offset:
            return active
        return self._go_on_after_gap(segments, proven_offset)

    def _note_gaps(self, segments: list[Segment]) -> None:
        for segment in segments[:-1]:
            end_offset = segment.known_end()
            if end_offset is None or segment.is_compacted or end_offset >= segment.next_offset:
                continue
            loss = CorruptLog(
                segment.path.name, segment.size_bytes, end_offset, segment.next_offset, gap_reason(segment)
            )
            _log.error("%s: %s", self._directory, loss)
            self._losses.append(loss)

    def _on_tail_batch(self, header: BatchHeader) -> None:
        self._epochs.note(header.leader_epoch, header.base_offset)
        self._progress(header)

    # -- producers and epochs

    def _batches_from(
        self, segments: list[Segment], offset: int
    ) -> Iterator[tuple[BatchHeader, str | None, Sequence[KeyWrite]]]:
        """Yield each batch's header, its dedup id if it is marked to have one, and its keys if they have versions."""
        is_kept = self._producers.key_versions.is_kept
        for segment in segments:
            if segment.next_offset <= offset or segment.size_bytes == 0:
                continue
            reader = segment.reader()
            for header, position in reader.walk_intact(segment.index().position_of(offset)):
                self._progress(header)
                if header.base_offset >= offset:
                    is_marked = header.attributes & DEDUP
                    frame = reader.frame(position, header) if is_marked or is_kept else b""
                    dedup_id = dedup_id_of(frame, header) if is_marked else None
                    yield header, dedup_id, writes_of(frame, header) if is_kept else ()
            if segment is not segments[-1]:
                segment.close()

    def _progress(self, header: BatchHeader) -> None:
        before = self._checked_bytes
        self._checked_bytes += header.size_bytes
        if self._checked_bytes // CHUNK_BYTES > before // CHUNK_BYTES:
            self._on_progress(self._checked_bytes)
