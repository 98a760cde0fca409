"""The progress of compaction: the file `compaction` in the partition's directory, and the swap that commits a step.

Layout: `checked.py` with kind `PLCM`; the body is a MessagePack map of the fields of `Cleaned`. A segment is
rewritten aside, as `<base offset>.cleaned`, and synced; then this file is replaced, naming the swap: **this commits
the step**. A crash before the commit leaves the old segments and a file to delete; after it recovery carries out the
swap. The next replacement of the file, which precedes the next `.cleaned`, drops the swap.

If the file is lost, that is reported, compaction starts over, and recovery writes it again. No record is lost with it:
the index of a compacted segment ends with the next segment's base, which shows that the offsets missing before it are
no damage. Where the index is lost too, they look like damage (CORRUPT_LOG says where to continue).
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .checked import decode_checked, encode_checked
from .companions import COMPACTION_NAME
from .errors import StorageFailed, StorageFull, Unreadable
from .files import Files
from .scan import Damaged
from .segment import INDEX_SUFFIXES, Segment, segment_path

CLEANED_SUFFIX = ".cleaned"
MARKS_LIMIT = 100

_KIND = b"PLCM"
_log = logging.getLogger(__name__)


class CleanedSegment(msgspec.Struct, frozen=True, array_like=True):
    """A segment that compaction wrote: its size, the offset after its last record, and the next segment's base."""

    size_bytes: int
    end_offset: int
    next_offset: int


class CleanMark(msgspec.Struct, frozen=True, array_like=True):
    """The time since which every offset below this one is clean: no key has two records there."""

    offset: int
    since_ms: int


class Swap(msgspec.Struct, frozen=True, array_like=True):
    """`<base_offset>.cleaned` replaces its segment and the segments listed in `replaced`."""

    base_offset: int
    size_bytes: int
    replaced: tuple[int, ...]


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    marks: tuple[CleanMark, ...] = ()
    """Marks in rising order of offset and time."""
    segments: dict[int, CleanedSegment] = {}
    """Compacted segments by base offset."""
    swap: Swap | None = None
    held_from: int = -1
    """The offset from which tombstones are kept, because an unreadable segment may hold older records; -1: none."""
    tombstones_since_ms: int = -1
    """The time since which the oldest remaining tombstone has been clean; -1: there is none."""
    leader_epoch: int = -1
    """The highest leader epoch of all batches ever compacted."""

    @property
    def cleaned_offset(self) -> int:
        return self.marks[-1].offset if self.marks else 0

    def clean_since(self, offset: int) -> int | None:
        """Return the time at which `offset` first was in the clean part; None if it is not clean yet."""
        return next((mark.since_ms for mark in self.marks if mark.offset > offset), None)

    def with_mark(self, mark: CleanMark, expiry_ms: int) -> "Cleaned":
        """Record a finished pass.

        Of the marks older than `expiry_ms` only the last is kept. Beyond the limit the oldest is dropped, and the
        next one stands for its offsets.
        """
        marks = [*self.marks, mark] if mark.offset > self.cleaned_offset else list(self.marks)
        while len(marks) > 1 and (marks[1].since_ms <= expiry_ms or len(marks) > MARKS_LIMIT):
            del marks[0]
        return msgspec.structs.replace(self, marks=tuple(marks))

    def without_swap(self, bases: Iterable[int]) -> "Cleaned":
        """Record a finished swap, and forget segments that no longer exist."""
        known = {base: self.segments[base] for base in bases if base in self.segments}
        return msgspec.structs.replace(self, swap=None, segments=known)


def shown_by_indexes(segments: Iterable[Segment]) -> dict[int, CleanedSegment]:
    """Return the sealed segments that compaction wrote, as far as their indexes show it: the file has been lost."""
    found = ((segment.base_offset, _shown_by_index(segment)) for segment in segments)
    return {base_offset: entry for base_offset, entry in found if entry is not None}


def _shown_by_index(segment: Segment) -> CleanedSegment | None:
    if segment.known_end() != segment.next_offset:
        return None
    if segment.size_bytes == 0:
        return CleanedSegment(0, segment.base_offset, segment.next_offset)
    points = segment.index().points_before(segment.next_offset - 1)
    last_known = next((point.position for point in points if point.position < segment.size_bytes), 0)
    reader = segment.reader()
    end_offset = segment.base_offset
    try:
        is_gap_before = reader.head(0).base_offset > segment.base_offset
        for header, _ in reader.walk(last_known):
            end_offset = header.next_offset
    except (Damaged, Unreadable):
        return None
    finally:
        segment.close()
    if not is_gap_before and end_offset == segment.next_offset:
        return None
    return CleanedSegment(segment.size_bytes, end_offset, segment.next_offset)


def load_cleaned(directory: Path, files: Files) -> Cleaned:
    return decode_checked(_KIND, files.read_whole(directory / COMPACTION_NAME), Cleaned) or Cleaned()


def is_damaged(directory: Path, files: Files) -> bool:
    """Return True if the file exists and cannot be read."""
    data = files.read_whole(directory / COMPACTION_NAME)
    return data is not None and decode_checked(_KIND, data, Cleaned) is None


def save_cleaned(directory: Path, files: Files, cleaned: Cleaned) -> None:
    """Save the file. Raises StorageFull with the file unchanged."""
    files.replace(directory / COMPACTION_NAME, encode_checked(_KIND, cleaned))


def cleaned_path(directory: Path, base_offset: int) -> Path:
    return segment_path(directory, base_offset).with_suffix(CLEANED_SUFFIX)


def carry_out(directory: Path, files: Files, swap: Swap) -> None:
    """Put a rewritten segment in its place, after the file above has committed the swap. Idempotent."""
    try:
        source, target = cleaned_path(directory, swap.base_offset), segment_path(directory, swap.base_offset)
        _unlink_indexes(files, target)
        if source.name in files.names(directory):
            files.rename(source, target)
        for base_offset in swap.replaced:
            path = segment_path(directory, base_offset)
            files.unlink(path)
            _unlink_indexes(files, path)
        files.sync_directory(directory)
    except StorageFull as error:
        # Half of a swap is not a usable state; recovery finishes it.
        raise StorageFailed(str(error)) from error


def _unlink_indexes(files: Files, path: Path) -> None:
    for suffix in INDEX_SUFFIXES:
        files.unlink(path.with_suffix(suffix))


def recover_cleaned(directory: Path, files: Files, names: list[str]) -> Cleaned:
    """Finish or undo the step that compaction was taking when its process died."""
    cleaned = load_cleaned(directory, files)
    if cleaned.swap is not None:
        carry_out(directory, files, cleaned.swap)
        bases = [base for base in cleaned.segments if base not in cleaned.swap.replaced]
        cleaned = cleaned.without_swap(bases)
        try:
            save_cleaned(directory, files, cleaned)
        except StorageFull:
            _log.warning(
                "%s: no disk space to record that a compaction step is done; the next pass records it",
                directory,
            )
    for name in names:
        if name.endswith(CLEANED_SUFFIX):
            files.unlink(directory / name)
    return cleaned
