"""A fetch in the format `records`: the partition is asked for batches, and the gateway opens them. Pure.

For clients that have a JSON parser and no batch decoder. Opening costs the gateway's time and not the partition's, which
serves everybody else meanwhile. Bounded by the request's `max_records` and by MAX_INLINE_BYTES.
"""

import msgspec

from ...transport.fetched_records import MAX_INLINE_BYTES, decode_for_json
from ...transport.machine import Payload
from ...transport.protocol.data import Fetch, FetchReply


def batches_request(request: Fetch) -> Fetch:
    """What the partition is asked in the client's stead."""
    max_bytes = min(request.max_bytes, MAX_INLINE_BYTES)
    min_bytes = min(request.min_bytes, max_bytes)
    return msgspec.structs.replace(
        request, id=None, format="batches", max_bytes=max_bytes, min_bytes=min_bytes
    )


def inline_records(request: Fetch, reply: FetchReply, payload: Payload) -> FetchReply:
    """The reply with its batches' records from `request.offset` on. Raises ProtocolError when one cannot be read."""
    aborted = [] if reply.aborted is msgspec.UNSET else reply.aborted
    reply = msgspec.structs.replace(reply, aborted=msgspec.UNSET)
    if not payload:
        return msgspec.structs.replace(reply, records=[])
    batches = payload[0] if len(payload) == 1 else b"".join(payload)
    records, next_offset = decode_for_json(
        batches, request.offset, request.max_records, request.max_bytes, reply.next_offset, aborted
    )
    return msgspec.structs.replace(reply, records=records, next_offset=next_offset)
