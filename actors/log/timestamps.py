"""The first record at or after a point in time, exactly, in one segment.

Batches are found by the time index and their headers; only the batch that may hold the record is decoded. Called by
`log.py` for `list_offsets` by timestamp: rare, so clarity wins over speed.
"""

from collections.abc import Iterator

from ...transport.batch import (
    LOG_APPEND_TIME,
    BatchHeader,
    CodecUnavailable,
    InvalidBatch,
    decode_records,
)
from .errors import CorruptLog
from .scan import Damaged
from .segment import Segment


def first_at_or_after(segment: Segment, timestamp_ms: int, from_offset: int) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record from `from_offset` on that is not older. Raises CorruptLog."""
    start = segment.index().position_before(timestamp_ms)
    reader = segment.reader()
    expected_offset = segment.base_offset
    try:
        for header, position in reader.walk(start):
            expected_offset = header.next_offset
            if header.max_timestamp_ms < timestamp_ms or header.next_offset <= from_offset:
                continue
            for offset, found_ms in _timestamps(reader.frame(position, header), header):
                if found_ms >= timestamp_ms and offset >= from_offset:
                    return offset, found_ms
    except Damaged as damage:
        raise CorruptLog(
            segment.path.name, damage.position, expected_offset, segment.next_offset, damage.reason
        ) from damage
    return None


def _timestamps(frame: bytes, header: BatchHeader) -> Iterator[tuple[int, int]]:
    if header.attributes & LOG_APPEND_TIME:
        yield header.base_offset, header.max_timestamp_ms
        return
    try:
        records = decode_records(frame, header)
    except (InvalidBatch, CodecUnavailable):
        # Its checksum holds, so this is what a producer sent. The broker never judged it and answers for the batch.
        yield header.base_offset, header.max_timestamp_ms
        return
    for index, (_, _, delta_ms, _) in enumerate(records):
        yield header.base_offset + index, header.first_timestamp_ms + delta_ms
