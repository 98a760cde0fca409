"""Cutting a log below its checkpoint, or starting it again, as a replica must when its leader's log differs.

Owns the file `truncation`, the durable mark of a cut that has begun. Layout: `checked.py` with kind `PLTR`; the body is
a MessagePack map of the fields of `Truncation`. Steps, each of which may be repeated:

    1. `save_truncation`       the mark, durable. Everything below the offset was synced before
    2. `finish_truncation`     segments and indexes beyond are deleted, the segment of the offset is cut and synced
    3.                         snapshots, the record of compaction, the log's start and the checkpoint follow
    4.                         the directory is synced, the mark deleted, the directory synced

A crash before step 1 has ended leaves the log with its old end; after it recovery carries out the rest, before it
looks at anything else. Called by `log.py` (1) and `recovery.py` (2 to 4), so a cut and its recovery are one code.
"""

import logging
from pathlib import Path

import msgspec

from .checked import decode_checked, encode_checked
from .checkpoint import CHECKPOINT_NAME, Checkpoint, decode_checkpoint, encode_checkpoint
from .cleaned import CleanedSegment, load_cleaned, save_cleaned
from .companions import COMPACTION_NAME
from .epochs import EpochTable
from .files import Files
from .scan import SegmentReader
from .segment import INDEX_SUFFIXES, segment_bases, segment_path
from .snapshots import snapshot_offsets, snapshot_path
from .start import replace_start

TRUNCATION_NAME = "truncation"

_KIND = b"PLTR"
_log = logging.getLogger(__name__)


class Truncation(msgspec.Struct, frozen=True, kw_only=True):
    offset: int
    """The log's new end, and with `is_reset` also its start."""
    leader_epoch: int
    """The highest epoch that was ever used in the log, which survives the cut."""
    is_reset: bool = False
    """True to delete all batches."""


def save_truncation(directory: Path, files: Files, truncation: Truncation) -> None:
    """Raises StorageFull with nothing changed."""
    files.replace(directory / TRUNCATION_NAME, encode_checked(_KIND, truncation))


def finish_truncation(directory: Path, files: Files) -> None:
    """Carry out the cut that the mark names. Raises StorageFull with the mark in place."""
    truncation = decode_checked(_KIND, files.read_whole(directory / TRUNCATION_NAME), Truncation)
    if truncation is None:
        _log.error("%s: the record of a truncation is damaged: the log is not changed", directory)
    else:
        _carry_out(directory, files, truncation)
    files.unlink(directory / TRUNCATION_NAME)
    files.sync_directory(directory)


def _carry_out(directory: Path, files: Files, truncation: Truncation) -> None:
    offset = truncation.offset
    bases = segment_bases(files.names(directory))
    kept = [base for base in bases if base <= offset and not truncation.is_reset]
    for base in reversed(bases[len(kept) :]):
        files.unlink(segment_path(directory, base))
        _unlink_indexes(files, segment_path(directory, base))
    base, position, end_offset = offset, 0, offset
    if kept:
        base = kept[-1]
        position, end_offset = _place_of(segment_path(directory, base), base, offset, files)
        _cut(segment_path(directory, base), position, files)
    for snapshot in snapshot_offsets(directory, files):
        if snapshot > end_offset or truncation.is_reset:
            files.unlink(snapshot_path(directory, snapshot))
    _cut_compaction(directory, files, base, CleanedSegment(position, end_offset, end_offset), bool(kept))
    if truncation.is_reset:
        replace_start(directory, files, offset)
    _move_checkpoint(directory, files, truncation, (base, position, end_offset))
    files.sync_directory(directory)


def _place_of(path: Path, base_offset: int, offset: int, files: Files) -> tuple[int, int]:
    """Return the position at which a segment is cut so that it ends before `offset`, and the offset there."""
    position, end_offset = 0, base_offset
    descriptor = files.open_read(path)
    try:
        for header, found in SegmentReader(files, descriptor, files.size_bytes(path)).walk_intact(0):
            if header.next_offset > offset:
                break
            position, end_offset = found + header.size_bytes, header.next_offset
    finally:
        files.close(descriptor)
    return position, end_offset


def _cut(path: Path, size_bytes: int, files: Files) -> None:
    """Cut the file and make that durable. Its indexes are deleted: recovery makes those of the part that stays."""
    files.truncate(path, size_bytes)
    descriptor = files.open_write(path)
    try:
        files.sync_data(descriptor)
    finally:
        files.close(descriptor)
    _unlink_indexes(files, path)


def _unlink_indexes(files: Files, path: Path) -> None:
    for suffix in INDEX_SUFFIXES:
        files.unlink(path.with_suffix(suffix))


def _cut_compaction(
    directory: Path, files: Files, last_base: int, last: CleanedSegment, is_any_kept: bool
) -> None:
    """Limit the record of compaction to the part that stays; delete it with the last segment."""
    if COMPACTION_NAME not in files.names(directory):
        return
    if not is_any_kept:
        files.unlink(directory / COMPACTION_NAME)
        return
    cleaned = load_cleaned(directory, files)
    segments = {base: entry for base, entry in cleaned.segments.items() if base <= last_base}
    if segments.pop(last_base, None) is not None and last.size_bytes:
        segments[last_base] = last
    end_offset = last.next_offset
    marks = [
        msgspec.structs.replace(mark, offset=min(mark.offset, end_offset))
        for before, mark in zip((None, *cleaned.marks), cleaned.marks, strict=False)
        if before is None or before.offset < end_offset
    ]
    cut = msgspec.structs.replace(cleaned, segments=segments, marks=tuple(marks), swap=None)
    if cut != cleaned:
        save_cleaned(directory, files, cut)


def _move_checkpoint(
    directory: Path, files: Files, truncation: Truncation, end: tuple[int, int, int]
) -> None:
    """Put the recovery point at the new end, if it lies beyond: everything before that end was synced."""
    names = files.names(directory)
    base_offset, position, end_offset = end
    old = decode_checkpoint(files.read_whole(directory / CHECKPOINT_NAME))
    if not truncation.is_reset and (old is None or old.recovery_offset <= end_offset):
        return  # recovery reads the tail
    epochs = EpochTable(() if old is None or truncation.is_reset else old.epochs)
    epochs.cut(end_offset)
    checkpoint = Checkpoint(
        log_start_offset=end_offset if old is None or truncation.is_reset else old.log_start_offset,
        recovery_offset=end_offset,
        recovery_segment=base_offset,
        recovery_position=position,
        epochs=epochs.entries,
        leader_epoch=truncation.leader_epoch,
        high_watermark=min(end_offset, 0 if old is None else old.high_watermark),
        active_since_ms=0 if old is None else old.active_since_ms,
        companions=tuple(name for name in (() if old is None else old.companions) if name in names),
    )
    files.write_aside(directory / CHECKPOINT_NAME, encode_checkpoint(checkpoint))
