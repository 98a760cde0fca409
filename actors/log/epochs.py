"""The leader epochs of a log's batches, and the offset at which each began.

Owns the table, a function of the log: epochs rise with offsets, so each takes one range of them. The checkpoint holds
the table up to its recovery point (`checkpoint.py`), recovery adds the tail; without a checkpoint it is read from the
segments (`epochs_in`). With it a leader finds where another replica's log begins to differ from its own, as in
KIP-101 and KIP-279:

    epoch    0        1        4              offset 0      10       25       31 (end)
    end_of(1) = (1, 25)   end_of(3) = (1, 25): there was none between   end_of(4) = (4, 31)

Called by `log.py` and `recovery.py`; the partition's machine looks ends up.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise

from ...transport.batch import HEADER_BYTES
from .errors import Unreadable
from .scan import Damaged, SegmentReader
from .segment import Segment

NO_EPOCH = -1
"""The leader epoch of a log without batches."""


class EpochTable:
    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        """Take pairs of an epoch and the offset at which it begins, both rising."""
        self._entries = [(epoch, start) for epoch, start in entries]

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._entries)

    @property
    def last(self) -> int:
        """Return the epoch of the log's last batch."""
        return self._entries[-1][0] if self._entries else NO_EPOCH

    def note(self, epoch: int, start_offset: int) -> None:
        """Note a batch; only the first of an epoch counts."""
        if epoch > self.last:
            self._entries.append((epoch, start_offset))

    def end_of(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return the highest epoch of the log up to `epoch`, and the offset after its last batch.

        (NO_EPOCH, offset of the first batch) if every batch has a later epoch.
        """
        found, end_offset = NO_EPOCH, log_end_offset
        for entry_epoch, start_offset in reversed(self._entries):
            if entry_epoch <= epoch:
                found = entry_epoch
                break
            end_offset = start_offset
        return found, end_offset

    def cut(self, log_end_offset: int) -> None:
        """Forget the epochs that begin at or after the log's new end."""
        while self._entries and self._entries[-1][1] >= log_end_offset:
            self._entries.pop()

    def trim(self, log_start_offset: int) -> None:
        """Forget the epochs that end before the log's start; the last one stays."""
        while len(self._entries) > 1 and self._entries[1][1] <= log_start_offset:
            self._entries.pop(0)


def epochs_in(segments: Sequence[Segment]) -> EpochTable:
    """Read the table from sealed segments: one head of each, and of those in which an epoch begins one in 64 KiB.

    Where the first batches of an epoch cannot be found, because compaction has dropped them or they are damaged, it
    counts as begun right after the batch before: a replica that is compared with this table cuts too much and fetches
    that again, and never too little.
    """
    table = EpochTable()
    unread_offset: int | None = None
    """Where the segments begin whose first head is damaged, and none since has been read."""
    firsts = [_first_epoch(segment) for segment in segments]
    for segment, (first, following) in zip(segments, pairwise([*firsts, None]), strict=True):
        if first is None:
            unread_offset = segment.base_offset if unread_offset is None else unread_offset
            continue
        table.note(first, segment.base_offset if unread_offset is None else unread_offset)
        unread_offset = None
        if following is None or first != following:
            _note_starts(segment, table)
    return table


def _first_epoch(segment: Segment) -> int | None:
    """Return the epoch of a segment's first batch; None if it has none, or a damaged head."""
    try:
        return segment.reader().head(0, HEADER_BYTES).leader_epoch if segment.size_bytes else None
    except (Damaged, Unreadable):
        return None
    finally:
        segment.close()


def _note_starts(segment: Segment, table: EpochTable) -> None:
    """Note the epochs that begin inside a segment. Damage ends the search, the next segment continues it."""
    reader = segment.reader()
    points = [*reversed(list(segment.index().points_before(segment.next_offset)))]
    with suppress(Damaged, Unreadable):
        position, end_offset = 0, segment.base_offset
        for point in points:
            if point.position >= segment.size_bytes:
                break
            if reader.head(point.position, HEADER_BYTES).leader_epoch == table.last:
                position, end_offset = point.position, point.offset
                continue
            _walk(reader, position, point.position, end_offset, table)
            position, end_offset = point.position, point.offset
        _walk(reader, position, segment.size_bytes, end_offset, table)
    segment.close()


def _walk(reader: SegmentReader, position: int, stop: int, end_offset: int, table: EpochTable) -> None:
    while position < stop:
        header = reader.head(position)
        table.note(header.leader_epoch, end_offset)
        position, end_offset = position + header.size_bytes, header.next_offset
