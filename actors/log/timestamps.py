"""The first record at or after a point in time, exactly, in one segment.

Batches are found by the time index and their headers; only the batch that may hold the record is decoded. Markers are
not records: the index includes their times, which at most makes a search begin too early, and the search skips them.
Called by `log.py` for `list_offsets` by timestamp: rare, so clarity wins over speed.
"""

from collections.abc import Callable, Iterator

from ...transport.batch import LOG_APPEND_TIME, BatchHeader, InvalidBatch, decode_records
from ...transport.compression import CodecUnavailable
from .segment import Segment


def first_at_or_after(
    segment: Segment, timestamp_ms: int, from_offset: int, is_readable: Callable[[BatchHeader], bool]
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first readable record from `from_offset` on that is not older.

    Damaged batches are skipped: they cannot be read, whatever their time.
    """
    start = segment.index().position_before(timestamp_ms)
    reader = segment.reader()
    for header, position in reader.walk_intact(start):
        if header.max_timestamp_ms < timestamp_ms or header.next_offset <= from_offset:
            continue
        if not is_readable(header):
            continue
        is_as_new_as_stated = False
        for offset, found_ms in _timestamps(reader.frame(position, header), header):
            if found_ms >= timestamp_ms:
                if offset >= from_offset:
                    return offset, found_ms
                is_as_new_as_stated = True
        if not is_as_new_as_stated:
            # No record is as new as the header states. The header's time is returned: otherwise one request would
            # open every batch of a producer whose headers are wrong.
            return max(header.base_offset, from_offset), header.max_timestamp_ms
    return None


def _timestamps(frame: bytes, header: BatchHeader) -> Iterator[tuple[int, int]]:
    if header.attributes & LOG_APPEND_TIME:
        yield header.base_offset, header.max_timestamp_ms
        return
    try:
        records = decode_records(frame, header)
    except (InvalidBatch, CodecUnavailable):
        # Its checksum holds, so this is as the producer sent it. The broker never validated it; the header answers
        # for the batch.
        yield header.base_offset, header.max_timestamp_ms
        return
    for index, (_, _, delta_ms, _) in enumerate(records):
        yield header.base_offset + index, header.first_timestamp_ms + delta_ms
