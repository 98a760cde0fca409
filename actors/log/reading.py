"""Reads of a log: batches by offset, offsets by time, and the extent of damage.

Owns the cursors, which save a consumer that continues the search for its position. Changes nothing in the log. Called
by `log.py`, which checks the bounds and guards the storage.
"""

from collections import OrderedDict
from collections.abc import Sequence

from ...transport.batch import BatchHeader
from .errors import CorruptLog, Unreadable
from .files import Buffer
from .segment import Segment
from .segment_reading import locate, read_batches, unreadable
from .segments import SegmentList
from .timestamps import first_at_or_after
from .transactions import Transactions
from .verification import damage_in

CURSORS_LIMIT = 256


class LogReader:
    def __init__(self, segments: SegmentList, transactions: Transactions) -> None:
        self._segments = segments
        self._transactions = transactions
        self._cursors: OrderedDict[int, tuple[Segment, int]] = OrderedDict()

    def read(self, offset: int, max_bytes: int, up_to_offset: int) -> tuple[Buffer, int]:
        """Read batches as `PartitionLog.read` specifies. `offset` lies within the log. Raises CorruptLog."""
        segments = self._segments
        requested, offset = offset, segments.after_gap(offset)
        if offset >= min(up_to_offset, segments.active.next_offset):
            return b"", max(requested, min(offset, up_to_offset))
        try:
            segment, run, next_offset, position = self._read_run(offset, max_bytes, up_to_offset)
        except CorruptLog as loss:
            raise self._extended(loss) from loss
        if not run:
            return b"", offset
        self._remember(next_offset, segment, position + len(run))
        return run, min(segments.after_gap(next_offset), up_to_offset)

    def _read_run(
        self, offset: int, max_bytes: int, up_to_offset: int
    ) -> tuple[Segment, memoryview, int, int]:
        segment, position = self._find(offset)
        return segment, *read_batches(segment, position, offset, max_bytes, up_to_offset), position

    def _find(self, offset: int) -> tuple[Segment, int]:
        segment = self._segments.holding(offset)
        cursor = self._cursors.get(offset)
        is_known = cursor is not None and cursor[0] is segment
        position = cursor[1] if cursor is not None and is_known else locate(segment, offset)
        self._segments.keep_open(segment)
        return segment, position

    def _remember(self, next_offset: int, segment: Segment, position: int) -> None:
        """Remember the position where a consumer stopped reading, to save the search when it continues."""
        self._cursors[next_offset] = (segment, position)
        if len(self._cursors) > CURSORS_LIMIT:
            self._cursors.popitem(last=False)

    def forget(self, replaced: Sequence[Segment]) -> None:
        """Drop the cursors in segments that no longer exist."""
        for offset in [offset for offset, (segment, _) in self._cursors.items() if segment in replaced]:
            del self._cursors[offset]

    def _extended(self, loss: CorruptLog) -> CorruptLog:
        """Extend a loss by the losses that follow directly, at the beginning of the next segments."""
        segments, next_offset = self._segments, loss.next_offset
        log_end_offset = segments.active.next_offset
        while segments.holding(next_offset).base_offset == next_offset < log_end_offset:
            try:
                self._read_run(segments.after_gap(next_offset), 0, log_end_offset)
                break
            except CorruptLog as following:
                next_offset = following.next_offset
        return CorruptLog(loss.segment, loss.position, loss.offset, next_offset, loss.reason)

    def bytes_from(self, offset: int) -> int:
        """Return the number of bytes at and after `offset`, to the precision of the index; 0 only at the end."""
        offset = self._segments.after_gap(offset)
        if offset >= self._segments.active.next_offset:
            return 0
        segments = self._segments.starting_with(offset)
        return sum(segment.size_bytes for segment in segments) - segments[0].index().position_of(offset)

    def offset_for_timestamp(
        self, timestamp_ms: int, from_offset: int, is_committed: bool
    ) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time and an offset, or None.

        Markers do not count; with `is_committed`, neither do the records of aborted transactions. Raises CorruptLog.
        """

        def is_readable(header: BatchHeader) -> bool:
            if header.is_control:
                return False
            return not (is_committed and header.is_transactional and self._transactions.is_aborted(header))

        for segment in self._segments.all:
            newest_ms = segment.max_timestamp_ms
            self._segments.keep_open(segment)
            if newest_ms is None or newest_ms < timestamp_ms:
                continue
            try:
                found = first_at_or_after(segment, timestamp_ms, from_offset, is_readable)
            except Unreadable as error:
                raise unreadable(segment, 0, segment.base_offset, error) from error
            if found is not None:
                return found
        return None

    def verify(self) -> list[CorruptLog]:
        """Read everything and report all damage."""
        found: list[CorruptLog] = []
        for segment in self._segments.all:
            found += damage_in(segment)
            if segment is not self._segments.active:
                segment.close()
        return found
