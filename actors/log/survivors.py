"""Compaction of one batch. Pure: bytes in, bytes out.

Decides which records survive, and builds batches from them. An offset never changes: the survivors are divided into
runs of records with consecutive offsets, each a batch of its own, so a reader only has to accept that offsets may be
missing between two batches. A run keeps its source's leader epoch, producer, codec and first timestamp, and each
record its sequence. A batch that loses no record stays unchanged, byte for byte.

    record                                                            is
    without a key                                                     kept
    with a newer one of its key in the map                            dropped
    newest, nil value, and its kind has been visible long enough      dropped
    anything else                                                     kept

Batches of aborted transactions are dropped before they come here. Control batches, and batches whose contents cannot
be decoded, are kept whole.
"""

from collections.abc import Callable, Iterator, Sequence

from ...transport.batch import (
    CONTROL,
    HEAD_BYTES,
    LOG_APPEND_TIME,
    NO_PRODUCER,
    SEQUENCE_LIMIT,
    BatchHeader,
    InvalidBatch,
    Record,
    build,
    decode_records,
    parse_header,
    stamped_head,
)
from .key_map import KeyMap, family_of

_EARLIEST_MS = -(2**63) + 1


def records_of(frame: bytes, header: BatchHeader) -> list[Record] | None:
    """Return a batch's records; None if compaction keeps the batch whole. Raises CodecUnavailable."""
    if header.attributes & CONTROL:
        return None
    try:
        return decode_records(frame, header)
    except InvalidBatch:
        return None


def survivors(
    header: BatchHeader, records: Sequence[Record], keys: KeyMap, is_expired: Callable[[int], bool]
) -> list[int]:
    """Return the positions of the surviving records. `is_expired` is called with the offset of each newest tombstone."""
    family = family_of(header)
    kept = []
    for position, record in enumerate(records):
        key = record[0]
        if key is not None:
            offset = header.base_offset + position
            if keys.is_replaced(key, offset, family) or (record[1] is None and is_expired(offset)):
                continue
        kept.append(position)
    return kept


def rewritten(header: BatchHeader, records: Sequence[Record], kept: Sequence[int]) -> list[bytes]:
    """Return stamped batches of the records at the positions `kept`, which rise."""
    return [_batch(header, records[start:end], start) for start, end in _runs(kept)]


def _runs(kept: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = end = -1
    for position in kept:
        if position != end:
            if end > start:
                yield start, end
            start = position
        end = position + 1
    if end > start:
        yield start, end


def _batch(source: BatchHeader, records: Sequence[Record], start: int) -> bytes:
    sequence = source.base_sequence
    if source.producer_id != NO_PRODUCER:
        sequence = (sequence + start) % SEQUENCE_LIMIT
    frame = build(
        records,
        first_timestamp_ms=source.first_timestamp_ms,
        max_timestamp_ms=_newest_ms(source, records),
        producer_id=source.producer_id,
        producer_epoch=source.producer_epoch,
        base_sequence=sequence,
        attributes=source.attributes,
    )
    head = stamped_head(parse_header(frame), source.base_offset + start, source.leader_epoch)
    return head + frame[HEAD_BYTES:]


def _newest_ms(source: BatchHeader, records: Sequence[Record]) -> int:
    """Return the run's newest timestamp, at most its source's: the records' own were never validated."""
    if source.attributes & LOG_APPEND_TIME:
        return source.max_timestamp_ms
    newest_ms = source.first_timestamp_ms + max(record[2] for record in records)
    return max(_EARLIEST_MS, min(newest_ms, source.max_timestamp_ms))
