"""The table of a log's leader epochs (`epochs.py`), read from its segments. Called by recovery without a checkpoint."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from ...transport.batch import HEADER_BYTES
from .epochs import EpochTable
from .errors import Unreadable
from .scan import Damaged, SegmentReader
from .segment import Segment


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
