"""A fetch in the format `records`: batches as a partition sent them become records in the header. Pure.

For clients that have a JSON parser and no batch decoder. Bounded by `max_records` and by bytes; the first record is
returned even when it alone is larger. What is damaged or compressed beyond this process is an error, never left out.
"""

import msgspec

from ...transport.batch import (
    CONTROL,
    BatchHeader,
    Buffer,
    CodecUnavailable,
    InvalidBatch,
    Record,
    decode_records,
    split,
    verify,
)
from ...transport.machine import Payload
from ...transport.protocol.data import Fetch, FetchedRecord, FetchReply
from ...transport.protocol.errors import ErrorCode, ProtocolError

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Keys and values in one reply; base64 and text make about three times as much of it."""


def batches_request(request: Fetch) -> Fetch:
    """What the partition is asked in the client's stead."""
    return msgspec.structs.replace(
        request, id=None, format="batches", max_bytes=min(request.max_bytes, MAX_RECORD_BYTES)
    )


def inline_records(request: Fetch, reply: FetchReply, payload: Payload, *, with_text: bool) -> FetchReply:
    """The reply with its batches' records from `request.offset` on. Raises ProtocolError when one cannot be read."""
    records: list[FetchedRecord] = []
    limit_bytes = min(request.max_bytes, MAX_RECORD_BYTES)
    size = 0
    for frame in payload:
        for header, batch in _batches(frame):
            if header.next_offset <= request.offset or header.attributes & CONTROL:
                continue
            for offset, record in enumerate(_records(batch, header), header.base_offset):
                if offset < request.offset:
                    continue
                size += len(record[0] or b"") + len(record[1] or b"")
                if records and (len(records) >= request.max_records or size > limit_bytes):
                    return _with(reply, records, offset)
                records.append(_fetched(offset, header.first_timestamp_ms, record, with_text))
    return _with(reply, records, reply.next_offset)


def _batches(frame: Buffer) -> list[tuple[BatchHeader, memoryview]]:
    try:
        return split(frame)
    except InvalidBatch as error:
        raise ProtocolError(ErrorCode.CORRUPT_LOG, str(error)) from error


def _records(batch: memoryview, header: BatchHeader) -> list[Record]:
    try:
        verify(batch)
        return decode_records(batch, header)
    except InvalidBatch as error:
        message = f"the batch at offset {header.base_offset}: {error}"
        raise ProtocolError(ErrorCode.CORRUPT_LOG, message) from error
    except CodecUnavailable as error:
        message = f"the batch at offset {header.base_offset} can be fetched as a batch only: {error}"
        raise ProtocolError(ErrorCode.INVALID_BATCH, message) from error


def _fetched(offset: int, first_timestamp_ms: int, record: Record, with_text: bool) -> FetchedRecord:
    key, value, timestamp_delta_ms, headers = record
    return FetchedRecord(
        offset=offset,
        timestamp_ms=first_timestamp_ms + timestamp_delta_ms,
        key=key,
        key_text=_text(key) if with_text else None,
        value=value,
        value_text=_text(value) if with_text else None,
        headers=headers,
    )


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _with(reply: FetchReply, records: list[FetchedRecord], next_offset: int) -> FetchReply:
    return msgspec.structs.replace(reply, records=records, next_offset=next_offset)
