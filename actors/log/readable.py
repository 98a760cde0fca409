"""The part of an open log that changes nothing: its bounds and size, reads, searches by time, and the check of all bytes.

Owns the guard of the storage (`usable.py`). `log.py` adds everything that changes the log.
"""

from .errors import CorruptLog, OffsetOutOfRange
from .files import Buffer
from .reading import LogReader
from .segment import Segment
from .segments import SegmentList
from .usable import Usable


class ReadableLog:
    _segments: SegmentList
    _reader: LogReader
    log_start_offset: int

    def __init__(self) -> None:
        self._usable = Usable()

    @property
    def _active(self) -> Segment:
        return self._segments.active

    @property
    def log_end_offset(self) -> int:
        """Return the offset that the next batch gets."""
        return self._segments.active.next_offset

    @property
    def size_bytes(self) -> int:
        return self._segments.size_bytes

    @property
    def segment_count(self) -> int:
        return len(self._segments)

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
        with self._usable:
            return self._reader.read(offset, max_bytes, up_to_offset)

    def bytes_from(self, offset: int) -> int:
        """Return the number of bytes at and after `offset`, to the precision of the index; 0 only at the end."""
        with self._usable:
            return self._reader.bytes_from(max(offset, self.log_start_offset))

    def offset_for_timestamp(self, timestamp_ms: int, is_committed: bool = False) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None. Raises CorruptLog.

        Markers do not count. With `is_committed` the records of aborted transactions do not count either.
        """
        with self._usable:
            return self._reader.offset_for_timestamp(timestamp_ms, self.log_start_offset, is_committed)

    def verify(self) -> list[CorruptLog]:
        """Read everything and report all damage, without changing anything."""
        with self._usable:
            return self._reader.verify()
