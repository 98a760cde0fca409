"""One file of batches, `<base offset, 20 digits>.log`, with its indexes.

      0              size of batch 0       ...               size_bytes
    +--------------+--------------+------+----------------+
    | batch 0      | batch 1      | ...  | batch n        |     nothing before or between them
    +--------------+--------------+------+----------------+

The file of a log's last segment may end with zeros: room preallocated for the next batches. A sync of a file whose
size is unchanged needs no commit of the file system's journal, which is a third of its time. Room is made in steps,
and only while batches are small, because with large ones that third does not matter; it is cut off before the segment
has a successor and when the log is closed cleanly. `size_bytes` is the size of the batches; bytes behind it are never
read.

Owns the file's descriptor, its size and its indexes; the batch's own layout is `transport/batch.py`'s. Only the last
segment of a log is ever appended to. Opened lazily: a segment that is not read costs its name and its size. Called by
`log.py` and `recovery.py` alone.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ...transport.batch import HEAD_BYTES, BatchHeader
from .errors import StorageFull, Unreadable
from .files import Buffer, Files
from .index import INDEX_INTERVAL_BYTES, NO_TIMESTAMP_MS, IndexPoint, SegmentIndex, last_entry
from .scan import HIGHEST_OFFSET, Search, SegmentReader

LOG_SUFFIX = ".log"
SMALL_APPEND_BYTES = 16 * 1024
SMALL_APPENDS_BEFORE_ROOM = 32
"""Room is made after this many small appends in a row: a rarely written log takes no more than its batches."""
ROOM_BYTES = 256 * 1024
_ZEROS = bytes(ROOM_BYTES)
INDEX_SUFFIXES = (".index", ".timeindex")


def segment_bases(names: Iterable[str]) -> list[int]:
    """Return the base offsets of the segments among the names of a directory, rising."""
    stems = (name[: -len(LOG_SUFFIX)] for name in names if name.endswith(LOG_SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def segment_path(directory: Path, base_offset: int) -> Path:
    return directory / f"{base_offset:020d}{LOG_SUFFIX}"


class Segment:
    """One segment. `next_offset` is the offset after the last batch, or the successor's base in a sealed segment.

    In a segment that compaction wrote offsets may be missing, between batches and at both ends; `end_offset` is then
    the one after the last batch, and -1 in any other.
    """

    def __init__(self, directory: Path, base_offset: int, size_bytes: int, files: Files) -> None:
        self.base_offset = base_offset
        self.path = segment_path(directory, base_offset)
        self.size_bytes = size_bytes
        self.next_offset = base_offset
        self.end_offset = -1
        self._files = files
        self._file_bytes = size_bytes
        self._small_appends = 0
        self._is_sealed = False
        self._descriptor = -1
        self._index: SegmentIndex | None = None
        self.searches: dict[int, Search] = {}
        """Result or progress of the search behind damage, by the position of the damage (`segment_reading.py`)."""
        self._max_timestamp_ms = NO_TIMESTAMP_MS
        self._noticed_ms: int | None = None

    # -- opening and closing

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def open_active(self) -> None:
        """Open for appending, creating the file if it is missing."""
        self._descriptor = self._files.open_write(self.path)

    def _readable(self) -> int:
        if self._descriptor < 0:
            self._descriptor = self._files.open_read(self.path)
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._files.close(descriptor)

    def unlink(self) -> None:
        """Delete the file and then its indexes; recovery deletes indexes that remain alone."""
        self.close()
        self._files.unlink(self.path)
        for suffix in INDEX_SUFFIXES:
            self._files.unlink(self.path.with_suffix(suffix))

    def known_end(self) -> int | None:
        """Return the offset after the last batch, as far as it is known without reading the segment."""
        last = last_entry(self.path, self.base_offset, self._files)
        if last is not None and last[1] == self.size_bytes:
            return last[0]
        return self.base_offset if self.size_bytes == 0 else None

    # -- writing

    def append(self, frames: Sequence[Buffer], headers: Sequence[BatchHeader], total_bytes: int) -> None:
        """Write batches at the end. Raises StorageFull with the file unchanged."""
        self._small_appends = self._small_appends + 1 if total_bytes <= SMALL_APPEND_BYTES else 0
        end = self.size_bytes + total_bytes
        if end > self._file_bytes and self._small_appends > SMALL_APPENDS_BEFORE_ROOM:
            self._make_room()
        try:
            self._files.write_at(self._descriptor, frames, total_bytes, self.size_bytes)
        except StorageFull:
            self.cut(self.size_bytes)
            raise
        self._file_bytes = max(self._file_bytes, end)
        index = self.index()
        indexed_position = index.last_position
        position, newest_ms = self.size_bytes, self._max_timestamp_ms
        for header in headers:
            if position - indexed_position >= INDEX_INTERVAL_BYTES:
                index.add(IndexPoint(header.base_offset, position, newest_ms))
                indexed_position = position
            newest_ms = max(newest_ms, header.max_timestamp_ms)
            position += HEAD_BYTES + header.length
        self.size_bytes, self._max_timestamp_ms = position, newest_ms
        self.next_offset = headers[-1].next_offset

    def _make_room(self) -> None:
        """Write zeros behind the last batch, synced with the next one. Without disk space for them, skip it."""
        try:
            self._files.write_at(self._descriptor, [_ZEROS], len(_ZEROS), self.size_bytes)
            self._file_bytes = self.size_bytes + len(_ZEROS)
        except StorageFull:
            self.cut(self.size_bytes)
            self._small_appends = 0

    def trim(self) -> bool:
        """Cut off the room behind the last batch; return True if there was any. The caller syncs."""
        if self._file_bytes == self.size_bytes:
            return False
        self.cut(self.size_bytes)
        return True

    def sync(self) -> None:
        self._files.sync_data(self._descriptor)

    def cut(self, size_bytes: int) -> None:
        """Cut the file: above the highest known safe position, or behind the last batch."""
        self._files.truncate(self.path, size_bytes)
        self.size_bytes = self._file_bytes = size_bytes

    def write_index(self) -> None:
        """Write the index up to the segment's present end. Raises StorageFull."""
        index = self.index()
        index.add(IndexPoint(self.next_offset, self.size_bytes, self._max_timestamp_ms))
        index.write()

    # -- the index

    def index(self, trusted_bytes: int | None = None) -> SegmentIndex:
        """Return the index, loaded and completed up to `trusted_bytes` (default: the whole segment)."""
        if self._index is None:
            trusted_bytes = self.size_bytes if trusted_bytes is None else trusted_bytes
            index = SegmentIndex(self.path, self.base_offset, self._files)
            index.load(trusted_bytes)
            self._max_timestamp_ms = index.last.max_timestamp_ms
            self._index = index
            self._catch_up(index, trusted_bytes)
        return self._index

    def seal(self, next_offset: int) -> None:
        """Seal the segment: its successor begins at `next_offset`."""
        self.next_offset = next_offset
        self._is_sealed = True

    @property
    def is_compacted(self) -> bool:
        return self.end_offset >= 0

    def has_only_gap_from(self, offset: int) -> bool:
        """Return True if compaction left no record here from `offset` on."""
        return 0 <= self.end_offset <= offset

    def forget_index(self) -> None:
        """Discard an index that contradicts the file; the next use rebuilds it."""
        if self._index is not None:
            self._index.clear()
            self._index = None

    def take_index(self, index: SegmentIndex, max_timestamp_ms: int) -> None:
        """Use an index that was made while the segment was written."""
        self._index, self._max_timestamp_ms = index, max_timestamp_ms

    def _catch_up(self, index: SegmentIndex, trusted_bytes: int) -> None:
        if index.last.position >= trusted_bytes:
            return
        reader = SegmentReader(self._files, self._readable(), trusted_bytes)
        end_offset = -1
        try:
            for header, position in reader.walk_intact(index.last.position):
                self.note(header, position)
                is_last = position + header.size_bytes == trusted_bytes
                end_offset = header.next_offset if is_last else -1
        except Unreadable:
            if not self._is_sealed:
                raise
            return  # the index up to there is usable; later reads raise the error
        if self._is_sealed:
            with suppress(StorageFull):  # the next incarnation rebuilds an index that cannot be stored
                if end_offset >= 0:
                    end_offset = self.next_offset if self.is_compacted else end_offset
                    index.add(IndexPoint(end_offset, self.size_bytes, self._max_timestamp_ms))
                index.write()

    def note(self, header: BatchHeader, position: int) -> None:
        """Index a batch that was found on disk."""
        index = self.index()
        if position - index.last.position >= INDEX_INTERVAL_BYTES:
            index.add(IndexPoint(header.base_offset, position, self._max_timestamp_ms))
        self._max_timestamp_ms = max(self._max_timestamp_ms, header.max_timestamp_ms)

    @property
    def max_timestamp_ms(self) -> int | None:
        """Return the newest record's timestamp; None when no batch can be read."""
        self.index()
        return None if self._max_timestamp_ms == NO_TIMESTAMP_MS else self._max_timestamp_ms

    def ages_from_ms(self, now_ms: int) -> int | None:
        """Return the time from which retention counts: the newest record's timestamp, unless it lies in the future.

        If it does, the last append counts, and if that lies in the future too (the wall clock was set back), the
        moment when this was noticed. None when no batch can be read.
        """
        newest_ms = self.max_timestamp_ms
        if newest_ms is None or newest_ms <= now_ms:
            return newest_ms
        appended_ms = self._files.modified_ms(self.path)
        if appended_ms <= now_ms:
            return appended_ms
        if self._noticed_ms is None or self._noticed_ms > now_ms:
            self._noticed_ms = now_ms
        return self._noticed_ms

    # -- reading

    def reader(self, end_offset: int | None = None) -> SegmentReader:
        """Return a reader. Batches from `end_offset` (default: where the segment was sealed) on count as damage."""
        if end_offset is None:
            end_offset = self.next_offset if self._is_sealed else HIGHEST_OFFSET
        return SegmentReader(self._files, self._readable(), self.size_bytes, end_offset)

    def bytes_at(self, position: int, size_bytes: int) -> bytes:
        return self._files.read(self._readable(), size_bytes, position)
