"""The indexes of a segment, by offset and by time, to within `INDEX_INTERVAL_BYTES`.

Two files beside each segment, `<base offset>.index` and `<base offset>.timeindex`, of entries of one form, big-endian:

      0         8           16           20
    +---------+-----------+------------+
    | key i64 | value i64 | crc32c u32 |        the checksum covers the segment's base offset (i64), key and value
    +---------+-----------+------------+
    .index        key: an offset, the base of a batch        value: that batch's position in the segment
    .timeindex    key: the highest timestamp of all records  value: that same offset
                       below an offset, in milliseconds

Entries come in pairs, one in each file, for the same offset; values strictly rise. Both are caches: an entry that
does not verify, and all entries after it, are dropped and rebuilt from the segment. They are written, never synced,
at each checkpoint and when the segment is sealed. An owner's checkpoint adds a pair for the segment's end, so that
opening the segment reads no bytes before it.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...transport.batch import checksum
from .errors import StorageFull, Unreadable
from .files import Files

INDEX_INTERVAL_BYTES = 64 * 1024
NO_TIMESTAMP_MS = -(2**63)
"""Below every timestamp: no record has been written yet."""

_ENTRY = struct.Struct(">qqI")
_CHECKED = struct.Struct(">qqq")


class IndexPoint(NamedTuple):
    """Everything below `offset` lies before `position`, and has timestamps up to `max_timestamp_ms`."""

    offset: int
    position: int
    max_timestamp_ms: int


class _Entries:
    """One index file: the entries read from it or still to be written to it."""

    def __init__(self, path: Path, base_offset: int, files: Files) -> None:
        self.path = path
        self._base_offset = base_offset
        self._files = files
        self.keys = array("q")
        self.values = array("q")
        self._written = 0

    def load(self) -> None:
        """Load the entries that verify, and cut off the rest of the file."""
        data = self._files.read_whole(self.path) or b""
        for start in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
            key, value, crc32c = _ENTRY.unpack_from(data, start)
            if crc32c != self._crc32c(key, value):
                break
            self.keys.append(key)
            self.values.append(value)
        self._written = len(self.keys)
        if len(data) != self._written * _ENTRY.size:
            self._files.truncate(self.path, self._written * _ENTRY.size)

    def _crc32c(self, key: int, value: int) -> int:
        return checksum(_CHECKED.pack(self._base_offset, key, value))

    def add(self, key: int, value: int) -> None:
        self.keys.append(key)
        self.values.append(value)

    def cut(self, count: int) -> None:
        """Keep the first `count` entries."""
        del self.keys[count:]
        del self.values[count:]
        if self._written > count:
            self._files.truncate(self.path, count * _ENTRY.size)
            self._written = count

    def write(self) -> None:
        """Append entries that are not in the file. Raises StorageFull with the file cut back to whole entries."""
        if self._written == len(self.keys):
            return
        data = b"".join(
            _ENTRY.pack(key, value, self._crc32c(key, value))
            for key, value in zip(self.keys[self._written :], self.values[self._written :], strict=True)
        )
        descriptor = self._files.open_append(self.path)
        try:
            self._files.append(descriptor, [data], len(data))
        except StorageFull:
            self._files.truncate(self.path, self._written * _ENTRY.size)
            raise
        finally:
            self._files.close(descriptor)
        self._written = len(self.keys)


def last_entry(segment_path: Path, base_offset: int, files: Files) -> tuple[int, int] | None:
    """Return (offset, position) of an index's last pair without reading the rest; None if it does not verify."""
    path = segment_path.with_suffix(".index")
    if not path.exists():
        return None
    size_bytes = files.size_bytes(path)
    descriptor = files.open_read(path)
    try:
        data = files.read(descriptor, _ENTRY.size, max(0, size_bytes - _ENTRY.size))
    except Unreadable:
        return None
    finally:
        files.close(descriptor)
    if len(data) < _ENTRY.size:
        return None
    key, value, crc32c = _ENTRY.unpack(data)
    return (key, value) if crc32c == checksum(_CHECKED.pack(base_offset, key, value)) else None


class SegmentIndex:
    """Both indexes of one segment, always with the same number of entries."""

    def __init__(self, segment_path: Path, base_offset: int, files: Files) -> None:
        self._base_offset = base_offset
        self._offsets = _Entries(segment_path.with_suffix(".index"), base_offset, files)
        self._times = _Entries(segment_path.with_suffix(".timeindex"), base_offset, files)

    def load(self, size_bytes: int) -> None:
        """Read both files, keeping the pairs that agree with each other and lie within the first `size_bytes`."""
        self._offsets.load()
        self._times.load()
        agreeing = 0
        for offset, position, indexed in zip(
            self._offsets.keys, self._offsets.values, self._times.values, strict=False
        ):
            if offset != indexed or position > size_bytes:
                break
            agreeing += 1
        self._offsets.cut(agreeing)
        self._times.cut(agreeing)

    @property
    def last_position(self) -> int:
        """Return the position of the last pair."""
        return self._offsets.values[-1] if self._offsets.values else 0

    @property
    def last(self) -> IndexPoint:
        """Return the last pair; the segment's beginning when there is none."""
        if not self._offsets.keys:
            return IndexPoint(self._base_offset, 0, NO_TIMESTAMP_MS)
        return IndexPoint(self._offsets.keys[-1], self._offsets.values[-1], self._times.keys[-1])

    def add(self, point: IndexPoint) -> None:
        """Add a pair; a second one for the same place changes nothing.

        An empty segment has one if compaction wrote it: the offset before which nothing is missing.
        """
        is_end_of_empty = not self._offsets.keys and point.offset > self._base_offset
        if point.position <= self.last_position and not is_end_of_empty:
            return
        self._offsets.add(point.offset, point.position)
        self._times.add(point.max_timestamp_ms, point.offset)

    def points_before(self, offset: int) -> Iterator[IndexPoint]:
        """Return the entries at or before `offset`, the nearest first."""
        for entry in range(bisect_right(self._offsets.keys, offset) - 1, -1, -1):
            yield IndexPoint(self._offsets.keys[entry], self._offsets.values[entry], self._times.keys[entry])

    def position_of(self, offset: int) -> int:
        """Return the position of some batch that begins at or before `offset`."""
        entry = bisect_right(self._offsets.keys, offset) - 1
        return self._offsets.values[entry] if entry >= 0 else 0

    def offset_after(self, offset: int) -> int | None:
        """Return the first indexed offset beyond `offset`."""
        entry = bisect_right(self._offsets.keys, offset)
        return self._offsets.keys[entry] if entry < len(self._offsets.keys) else None

    def position_before(self, timestamp_ms: int) -> int:
        """Return a position before which every record is older than `timestamp_ms`."""
        entry = bisect_left(self._times.keys, timestamp_ms) - 1
        return self._offsets.values[entry] if entry >= 0 else 0

    def clear(self) -> None:
        """Drop every entry, on disk too, before the segment is indexed again."""
        self._offsets.cut(0)
        self._times.cut(0)

    def write(self) -> None:
        self._offsets.write()
        self._times.write()
