"""A fetch in the format `records`: the partition is asked for batches, and the gateway opens them. Pure.

For clients that have a JSON parser and no batch decoder. Opening costs the gateway's time and not the partition's, which
serves everybody else meanwhile. Bounded by the request's `max_records` and by MAX_RECORD_BYTES.
"""

import msgspec

from ...transport.batch import InvalidBatch
from ...transport.fetched_records import decode_for_json
from ...transport.machine import Payload
from ...transport.protocol.data import Fetch, FetchReply
from ...transport.protocol.errors import ErrorCode, ProtocolError

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Keys and values in one reply; base64 and text make about three times as much of it."""


def batches_request(request: Fetch) -> Fetch:
    """What the partition is asked in the client's stead."""
    max_bytes = min(request.max_bytes, MAX_RECORD_BYTES)
    min_bytes = min(request.min_bytes, max_bytes)
    return msgspec.structs.replace(
        request, id=None, format="batches", max_bytes=max_bytes, min_bytes=min_bytes
    )


def inline_records(request: Fetch, reply: FetchReply, payload: Payload) -> FetchReply:
    """The reply with its batches' records from `request.offset` on. Raises ProtocolError when one cannot be read."""
    if not payload:
        return msgspec.structs.replace(reply, records=[])
    batches = payload[0] if len(payload) == 1 else b"".join(payload)
    max_bytes = min(request.max_bytes, MAX_RECORD_BYTES)
    try:
        records, next_offset = decode_for_json(batches, request.offset, request.max_records, max_bytes)
    except InvalidBatch as error:
        raise ProtocolError(ErrorCode.CORRUPT_LOG, f"the batches at {request.offset}: {error}") from error
    return msgspec.structs.replace(reply, records=records, next_offset=next_offset)
