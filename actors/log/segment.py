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

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...transport.batch import HEADER_BYTES, BatchHeader
from .errors import CorruptLog, StorageFull, Unreadable
from .files import Buffer, Files
from .index import INDEX_INTERVAL_BYTES, NO_TIMESTAMP_MS, IndexPoint, SegmentIndex, last_entry
from .scan import HIGHEST_OFFSET, Damaged, Search, SegmentReader, judge_head, whole_batches

LOG_SUFFIX = ".log"
SMALL_APPEND_BYTES = 16 * 1024
SMALL_APPENDS_BEFORE_ROOM = 32
"""Room is made after this many small appends in a row: a rarely written log takes no more than its batches."""
ROOM_BYTES = 256 * 1024
_ZEROS = bytes(ROOM_BYTES)
SEARCH_BYTES = 16 * 1024 * 1024
"""The number of bytes of a damaged stretch that one read searches; the next one continues."""
SEARCHES_LIMIT = 1000
INDEX_SUFFIXES = (".index", ".timeindex")


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
        self._searches: dict[int, Search] = {}
        """Result or progress of the search behind damage, by the position of the damage."""
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
        if self.size_bytes == 0:
            return self.base_offset
        last = last_entry(self.path, self.base_offset, self._files)
        return last[0] if last is not None and last[1] == self.size_bytes else None

    def gap_reason(self) -> str:
        if self.size_bytes == 0:
            return f"segment {self.base_offset} is missing"
        end_offset = self.known_end()
        if end_offset is None:
            return "the segment behind it is missing, or this one was cut short"
        return f"segment {end_offset} is missing, or this one was cut short"

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
        indexed_position = index.last.position
        position, newest_ms = self.size_bytes, self._max_timestamp_ms
        for header in headers:
            if position - indexed_position >= INDEX_INTERVAL_BYTES:
                index.add(IndexPoint(header.base_offset, position, newest_ms))
                indexed_position = position
            newest_ms = max(newest_ms, header.max_timestamp_ms)
            position += header.size_bytes
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

    def reader(self, end: int | None = None) -> SegmentReader:
        end_offset = self.next_offset if self._is_sealed else HIGHEST_OFFSET
        return SegmentReader(
            self._files, self._readable(), self.size_bytes if end is None else end, end_offset
        )

    def bytes_at(self, position: int, size_bytes: int) -> bytes:
        return self._files.read(self._readable(), size_bytes, position)

    def locate(self, offset: int) -> int:
        """Return the position of the batch that holds `offset`, or the next one behind a gap.

        Raises CorruptLog when damage contains or hides it, and SearchUnfinished when the search takes longer.
        """
        try:
            return self._walk_to(offset)
        except Unreadable as error:
            raise self.unreadable(self.index().position_of(offset), offset, error) from error

    def _start_of_walk(self, reader: SegmentReader, offset: int) -> int:
        """Return the position of the last indexed batch at or before `offset` whose head is intact."""
        for point in self.index().points_before(offset):
            try:
                header = reader.head(point.position, HEADER_BYTES)
            except Damaged:
                continue
            if header.base_offset == point.offset:
                return point.position
            # An entry may verify and still be wrong for a segment that was swapped or cut.
            self.index().clear()
            self._index = None
            break
        return 0

    def _walk_to(self, offset: int) -> int:
        reader = self._bounded_reader()
        position = self._start_of_walk(reader, offset)
        found, found_end, previous_offset = -1, -1, -1
        damage: Damaged | None = None
        while position < reader.end:
            try:
                header = reader.head(position, INDEX_INTERVAL_BYTES)
            except Damaged as reached:
                damage = reached
                position = self._next_whole(reader, position, previous_offset)
                if position < reader.end and reader.head(position).base_offset <= offset:
                    continue
                if found >= 0 and offset < self._end_of(reader, found):
                    return found
                raise self._lost(damage, reader, position, offset) from reached
            if header.base_offset > offset:
                if found >= 0 or (self.is_compacted and damage is None):
                    is_inside = found >= 0 and (offset < found_end or offset < self._end_of(reader, found))
                    return found if is_inside else position  # compaction left a gap, and the offset is in it
                break
            found, found_end, previous_offset = position, header.next_offset, header.base_offset
            damage = None
            position += header.size_bytes
        if found >= 0 and offset < self._end_of(reader, found):
            return found
        raise self._lost(damage, reader, position, offset)

    def _bounded_reader(self) -> SegmentReader:
        return SegmentReader(self._files, self._readable(), self.size_bytes, self.next_offset)

    def _next_whole(self, reader: SegmentReader, position: int, previous_offset: int) -> int:
        """Return the position of the first whole batch behind the damage at `position`. Raises SearchUnfinished."""
        search = self._searches.get(position)
        if search is None:
            if len(self._searches) >= SEARCHES_LIMIT:
                self._searches.clear()
            search = self._searches[position] = Search(position, previous_offset)
        return reader.next_whole(search, SEARCH_BYTES)

    def _end_of(self, reader: SegmentReader, position: int) -> int:
        """Return the offset after a batch that damage follows. If its body is damaged too, reading it will raise."""
        try:
            return reader.batch(position).next_offset
        except (Damaged, Unreadable):
            return self.next_offset

    def _lost(self, damage: Damaged | None, reader: SegmentReader, position: int, offset: int) -> CorruptLog:
        next_offset = self.next_offset
        if position < reader.end:
            next_offset = reader.head(position).base_offset
        if damage is None:
            damage = Damaged(reader.end, self.gap_reason())
        return CorruptLog(self.path.name, damage.position, offset, next_offset, damage.reason)

    def read(self, position: int, offset: int, max_bytes: int, up_to_offset: int) -> tuple[memoryview, int]:
        """Return whole batches from `position`, the location of `offset`, and the offset after them.

        At most `max_bytes`, but always one batch if one is visible below `up_to_offset`. Every checksum is verified.
        """
        available_bytes = self.size_bytes - position
        if available_bytes <= 0:
            raise self._lost(None, self._bounded_reader(), position, offset)
        descriptor = self._readable()
        size_bytes = min(max(max_bytes, HEADER_BYTES), available_bytes)
        try:
            chunk = self._files.read(descriptor, size_bytes, position)
        except Unreadable as error:
            chunk = self._first_batch(position, offset, error)
        try:
            first = judge_head(chunk, 0, position, self.size_bytes)
            if first.size_bytes > len(chunk):
                chunk = self._files.read(descriptor, first.size_bytes, position)
                if len(chunk) < first.size_bytes:
                    raise Damaged(position, "the file was cut short while in use")
            length, next_offset = whole_batches(chunk, up_to_offset)
        except Damaged as damage:
            raise self._corrupt(position, offset, damage) from damage
        return memoryview(chunk)[:length], next_offset

    def _first_batch(self, position: int, offset: int, error: Unreadable) -> bytes:
        """Return the batch at `position` alone, the bytes behind it being unreadable. Raises CorruptLog if it is too."""
        reader = self.reader()
        resume: int | None = None
        try:
            header = reader.head(position, HEADER_BYTES)
            resume = position + header.size_bytes
            return self._files.read(self._readable(), header.size_bytes, position)
        except Damaged as damage:
            raise self._corrupt(position, offset, damage) from damage
        except Unreadable as unreadable:
            raise self.unreadable(position, offset, unreadable, resume) from error

    def unreadable(
        self, position: int, offset: int, error: Unreadable, resume: int | None = None
    ) -> CorruptLog:
        """Return the error for a stretch that the device cannot read.

        Reading continues behind it at `resume`, where a batch should begin, or else at the next indexed position.
        """
        indexed = self.index().offset_after(offset)
        next_offset = self.next_offset if indexed is None else indexed
        if resume is not None and resume < self.size_bytes:
            with suppress(Unreadable, Damaged):
                next_offset = self.reader().head(resume, HEADER_BYTES).base_offset
        return CorruptLog(self.path.name, position, offset, next_offset, str(error))

    def _corrupt(self, position: int, offset: int, damage: Damaged) -> CorruptLog:
        reader = self._bounded_reader()
        # The batch holds `offset`, so later batches lie beyond it.
        following = self._next_whole(reader, position, offset)
        return self._lost(Damaged(position, damage.reason), reader, following, offset)
