"""The damage of a segment, found by reading all of it. Called by `PartitionLog.verify`, which blocks other requests."""

from collections.abc import Iterator

from .errors import CorruptLog, Unreadable
from .scan import Damaged
from .segment import Segment
from .segment_reading import unreadable


def damage_in(segment: Segment) -> Iterator[CorruptLog]:
    """Return each damaged stretch of a segment, or the first one that the device cannot read."""
    expected_offset = segment.base_offset
    reader = segment.reader()
    found: list[Damaged] = []
    try:
        for header, _ in reader.walk_intact(0, found.append):
            if found:
                yield _loss(segment, found.pop(0), expected_offset, header.base_offset)
                found.clear()
            expected_offset = header.next_offset
    except Unreadable as error:
        yield unreadable(segment, segment.index().position_of(expected_offset), expected_offset, error)
        return
    if expected_offset < (segment.end_offset if segment.is_compacted else segment.next_offset):
        damage = found[0] if found else Damaged(reader.end, "the file ends before the next segment begins")
        yield _loss(segment, damage, expected_offset, segment.next_offset)


def _loss(segment: Segment, damage: Damaged, offset: int, next_offset: int) -> CorruptLog:
    return CorruptLog(segment.path.name, damage.position, offset, next_offset, damage.reason)
