"""Decode batches for clients that cannot: the records of a fetch, inline in its reply. Pure.

For requesters that use JSON. Called by the actors that answer a fetch of the format `records`.
"""

from collections.abc import Collection, Sequence

from .batch import (
    CONTROL,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    BatchHeader,
    InvalidBatch,
    decode_records,
    split,
    unpacked_bytes,
    verify,
)
from .compression import Buffer, CodecUnavailable
from .protocol.data import AbortedTransaction, FetchedRecord
from .protocol.errors import ErrorCode, ProtocolError

MAX_INLINE_BYTES = 1024 * 1024
"""Limit of keys and values in one reply of any actor: base64 and text take about three times that, within one
turn."""
MAX_UNPACKED_INLINE_BYTES = 16 * 1024 * 1024
"""Limit of bytes unpacked for one reply: a little compressed data may take long to decompress and scan in one
turn."""
MAX_TIMESTAMP_MS = 2**62
"""Limit of a record's time, from 1970: a larger number could not be encoded in the reply."""


def decode_for_json(
    batches: Buffer,
    offset: int,
    max_records: int,
    max_bytes: int,
    end_offset: int = 0,
    aborted: Sequence[AbortedTransaction] = (),
) -> tuple[list[FetchedRecord], int]:
    """Return the records from `offset` on, without those of `aborted` transactions, and the next offset to fetch.

    The next offset is at least `end_offset` when all records are taken: compaction may have left a gap after the last
    batch. At most `max_records`, and at most `max_bytes` and MAX_INLINE_BYTES of keys and values unless the first
    record alone has more. Ends after the batch with which MAX_UNPACKED_INLINE_BYTES have been unpacked, and before a
    batch that cannot be opened. If that is the first, raises ProtocolError: CORRUPT_LOG when its checksum does not
    match or its length is impossible, INVALID_BATCH when a producer sent data that cannot be decoded.
    """
    found: list[FetchedRecord] = []
    next_offset = offset
    size_bytes = unpacked = 0
    max_bytes = min(max_bytes, MAX_INLINE_BYTES)
    left_out = {(each.producer_id, each.producer_epoch) for each in aborted}
    for header, frame in _split(batches, offset):
        if header.next_offset <= offset:
            continue
        if not is_for_readers(header, left_out):
            next_offset = header.next_offset
            continue
        try:
            records = open_batch(header, frame, max(offset, header.base_offset), max_records - len(found))
        except ProtocolError:
            if found:  # earlier records are good; the next fetch will meet the fault at its first batch
                return found, next_offset
            raise
        for record in records:
            size_bytes += len(record.key or b"") + len(record.value or b"")
            if found and size_bytes > max_bytes:
                return found, next_offset
            found.append(record)
            next_offset = record.offset + 1
        unpacked += unpacked_bytes(frame, header) or 0
        if (
            next_offset < header.next_offset
            or len(found) >= max_records
            or unpacked >= MAX_UNPACKED_INLINE_BYTES
        ):
            return found, next_offset
    return found, max(next_offset, end_offset)


def end_of_batch_at(batches: Buffer, offset: int) -> int | None:
    """Return the end of the batch that has the offset and cannot be decoded; None if its head may be wrong as
    well."""
    try:
        for header, frame in split(batches):
            if header.next_offset > offset:
                verify(frame)
                return header.next_offset
    except InvalidBatch:
        return None
    return None


def is_for_readers(header: BatchHeader, aborted: Collection[tuple[int, int]]) -> bool:
    """Return True if a batch is neither a marker nor of an aborted transaction, named by producer id and epoch."""
    if not header.attributes & (CONTROL | TRANSACTIONAL):
        return True
    return not header.is_control and (header.producer_id, header.producer_epoch) not in aborted


def _split(batches: Buffer, offset: int) -> list[tuple[BatchHeader, memoryview]]:
    try:
        return split(batches)
    except InvalidBatch as error:
        raise ProtocolError(ErrorCode.CORRUPT_LOG, f"the batches from offset {offset} on: {error}") from error


def open_batch(header: BatchHeader, frame: Buffer, from_offset: int, max_records: int) -> list[FetchedRecord]:
    """Return at most this many of a batch's records, from an offset within it on, each with its offset and time."""
    where = f"batch at offset {header.base_offset} (the next one is at {header.next_offset})"
    try:
        verify(frame)
    except InvalidBatch as error:
        raise ProtocolError(ErrorCode.CORRUPT_LOG, f"{where}: {error}") from error
    try:
        records = decode_records(frame, header)
    except (InvalidBatch, CodecUnavailable) as error:
        raise ProtocolError(ErrorCode.INVALID_BATCH, f"{where}: {error}") from error
    skipped = from_offset - header.base_offset
    records = records[skipped : skipped + max_records]
    is_log_time = bool(header.attributes & LOG_APPEND_TIME)
    if any(abs(header.first_timestamp_ms + record[2]) > MAX_TIMESTAMP_MS for record in records):
        raise ProtocolError(ErrorCode.INVALID_BATCH, f"{where}: a record's time is out of range")
    return [
        FetchedRecord(
            offset=offset,
            timestamp_ms=header.max_timestamp_ms if is_log_time else header.first_timestamp_ms + delta_ms,
            key=key,
            key_text=as_text(key),
            value=value,
            value_text=as_text(value),
            headers=headers,
        )
        for offset, (key, value, delta_ms, headers) in enumerate(records, from_offset)
    ]


def as_text(data: bytes | None) -> str | None:
    """Return the bytes as UTF-8, or None when they are not."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
