"""Batches of a segment: found by offset, read with every checksum verified; and the losses that damage causes.

A batch is found by the index and then by the heads from there on. Around damage of any width the next whole batch is
searched byte by byte, in steps: a read that has searched SEARCH_BYTES raises SearchUnfinished, and the next one
continues where it stopped. Changes nothing in the file. Called by `reading.py`.
"""

from contextlib import suppress

from ...transport.batch import HEADER_BYTES
from .errors import CorruptLog, Unreadable
from .index import INDEX_INTERVAL_BYTES
from .scan import Damaged, Search, SegmentReader, judge_head, whole_batches
from .segment import Segment

SEARCH_BYTES = 16 * 1024 * 1024
"""The number of bytes of a damaged stretch that one read searches; the next one continues."""
SEARCHES_LIMIT = 1000


def locate(segment: Segment, offset: int) -> int:
    """Return the position of the batch that holds `offset`, or the next one behind a gap.

    Raises CorruptLog when damage contains or hides it, and SearchUnfinished when the search takes longer.
    """
    try:
        return _walk_to(segment, offset)
    except Unreadable as error:
        raise unreadable(segment, segment.index().position_of(offset), offset, error) from error


def _bounded_reader(segment: Segment) -> SegmentReader:
    """Return a reader of an open log's segment: no batch at or after `next_offset` is taken for one of its own."""
    return segment.reader(segment.next_offset)


def _start_of_walk(segment: Segment, reader: SegmentReader, offset: int) -> int:
    """Return the position of the last indexed batch at or before `offset` whose head is intact."""
    for point in segment.index().points_before(offset):
        try:
            header = reader.head(point.position, HEADER_BYTES)
        except Damaged:
            continue
        if header.base_offset == point.offset:
            return point.position
        # An entry may verify and still be wrong for a segment that was swapped or cut.
        segment.forget_index()
        break
    return 0


def _walk_to(segment: Segment, offset: int) -> int:
    reader = _bounded_reader(segment)
    position = _start_of_walk(segment, reader, offset)
    found, found_end, previous_offset = -1, -1, -1
    damage: Damaged | None = None
    while position < reader.end:
        try:
            header = reader.head(position, INDEX_INTERVAL_BYTES)
        except Damaged as reached:
            damage = reached
            position = _next_whole(segment, reader, position, previous_offset)
            if position < reader.end and reader.head(position).base_offset <= offset:
                continue
            if found >= 0 and offset < _end_of(segment, reader, found):
                return found
            raise _lost(segment, damage, reader, position, offset) from reached
        if header.base_offset > offset:
            if found >= 0 or damage is None:
                is_inside = found >= 0 and (offset < found_end or offset < _end_of(segment, reader, found))
                return found if is_inside else position  # compaction left a gap, and the offset is in it
            break
        found, found_end, previous_offset = position, header.next_offset, header.base_offset
        damage = None
        position += header.size_bytes
    if found >= 0 and offset < _end_of(segment, reader, found):
        return found
    raise _lost(segment, damage, reader, position, offset)


def _next_whole(segment: Segment, reader: SegmentReader, position: int, previous_offset: int) -> int:
    """Return the position of the first whole batch behind the damage at `position`. Raises SearchUnfinished."""
    search = segment.searches.get(position)
    if search is None:
        if len(segment.searches) >= SEARCHES_LIMIT:
            segment.searches.clear()
        search = segment.searches[position] = Search(position, previous_offset)
    return reader.next_whole(search, SEARCH_BYTES)


def _end_of(segment: Segment, reader: SegmentReader, position: int) -> int:
    """Return the offset after a batch that damage follows. If its body is damaged too, reading it will raise."""
    try:
        return reader.batch(position).next_offset
    except (Damaged, Unreadable):
        return segment.next_offset


def _lost(
    segment: Segment, damage: Damaged | None, reader: SegmentReader, position: int, offset: int
) -> CorruptLog:
    next_offset = segment.next_offset
    if position < reader.end:
        next_offset = reader.head(position).base_offset
    if damage is None:
        damage = Damaged(reader.end, gap_reason(segment))
    return CorruptLog(segment.path.name, damage.position, offset, next_offset, damage.reason)


def read_batches(
    segment: Segment, position: int, offset: int, max_bytes: int, up_to_offset: int
) -> tuple[memoryview, int]:
    """Return whole batches from `position`, the location of `offset`, and the offset after them.

    At most `max_bytes`, but always one batch if one is visible below `up_to_offset`. Every checksum is verified.
    """
    available_bytes = segment.size_bytes - position
    if available_bytes <= 0:
        raise _lost(segment, None, _bounded_reader(segment), position, offset)
    size_bytes = min(max(max_bytes, HEADER_BYTES), available_bytes)
    try:
        chunk = segment.bytes_at(position, size_bytes)
    except Unreadable as error:
        chunk = _first_batch(segment, position, offset, error)
    try:
        first = judge_head(chunk, 0, position, segment.size_bytes)
        if first.size_bytes > len(chunk):
            chunk = segment.bytes_at(position, first.size_bytes)
            if len(chunk) < first.size_bytes:
                raise Damaged(position, "the file was cut short while in use")
        length, next_offset = whole_batches(chunk, up_to_offset)
    except Damaged as damage:
        raise _corrupt(segment, position, offset, damage) from damage
    return memoryview(chunk)[:length], next_offset


def _first_batch(segment: Segment, position: int, offset: int, error: Unreadable) -> bytes:
    """Return the batch at `position` alone, the bytes behind it being unreadable. Raises CorruptLog if it is too."""
    reader = segment.reader()
    resume: int | None = None
    try:
        header = reader.head(position, HEADER_BYTES)
        resume = position + header.size_bytes
        return segment.bytes_at(position, header.size_bytes)
    except Damaged as damage:
        raise _corrupt(segment, position, offset, damage) from damage
    except Unreadable as failure:
        raise unreadable(segment, position, offset, failure, resume) from error


def unreadable(
    segment: Segment, position: int, offset: int, error: Unreadable, resume: int | None = None
) -> CorruptLog:
    """Return the error for a stretch that the device cannot read.

    Reading continues behind it at `resume`, where a batch should begin, or else at the next indexed position.
    """
    indexed = segment.index().offset_after(offset)
    next_offset = segment.next_offset if indexed is None else indexed
    if resume is not None and resume < segment.size_bytes:
        with suppress(Unreadable, Damaged):
            next_offset = segment.reader().head(resume, HEADER_BYTES).base_offset
    return CorruptLog(segment.path.name, position, offset, next_offset, str(error))


def _corrupt(segment: Segment, position: int, offset: int, damage: Damaged) -> CorruptLog:
    reader = _bounded_reader(segment)
    # The batch holds `offset`, so later batches lie beyond it.
    following = _next_whole(segment, reader, position, offset)
    return _lost(segment, Damaged(position, damage.reason), reader, following, offset)


def gap_reason(segment: Segment) -> str:
    if segment.size_bytes == 0:
        return f"segment {segment.base_offset} is missing"
    end_offset = segment.known_end()
    if end_offset is None:
        return "the next segment is missing, or this one was cut short"
    return f"segment {end_offset} is missing, or this one was cut short"
