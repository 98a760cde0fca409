"""Headers to structs and back, in MessagePack or JSON, and the frames around them. Pure.

A message is `envelope header payload*`. The envelope is what ZeroMQ's own conventions put in front: nothing, an empty
frame (a REQ socket), or one frame of the asker's and an empty one. It is echoed. The header is the first frame that
begins as a map does: with `{` in JSON, with a map byte in MessagePack.
"""

from collections.abc import Sequence
from typing import Any, Union

import msgspec

from .protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .protocol.message import MAX_FRAMES, MAX_HEADER_BYTES, Reply, Request, RequestId

MAX_ENVELOPE_FRAMES = 2

_to_msgpack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode


class _Probe(msgspec.Struct):
    """As much of any header as can be read when the whole cannot."""

    id: Any = None
    op: Any = None
    error: Any = None


class _ReplyProbe(msgspec.Struct):
    id: RequestId = None
    error: ErrorBody | None = None


_probe_msgpack = msgspec.msgpack.Decoder(_Probe).decode
_probe_json = msgspec.json.Decoder(_Probe).decode
_probe_reply_msgpack = msgspec.msgpack.Decoder(_ReplyProbe).decode
_probe_reply_json = msgspec.json.Decoder(_ReplyProbe).decode


def is_json(header: bytes) -> bool:
    return header[:1] == b"{"


def _is_map(frame: bytes) -> bool:
    first = frame[0] if frame else 0
    return first == 0x7B or 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


def split_envelope(frames: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes, Sequence[bytes]]:
    """(envelope, header, payload). Raises ProtocolError when no header is where one must be."""
    if len(frames) > MAX_FRAMES:
        raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, f"a message has at most {MAX_FRAMES} frames")
    for position, frame in enumerate(frames[: MAX_ENVELOPE_FRAMES + 1]):
        if _is_map(frame):
            return tuple(frames[:position]), frame, frames[position + 1 :]
    raise ProtocolError(
        ErrorCode.INVALID_REQUEST, "no header: a request begins with a MessagePack or JSON map"
    )


def envelope_of(frames: Sequence[bytes]) -> tuple[bytes, ...]:
    """What to echo to a sender whose message has no header: the frames up to an empty one among the first two."""
    for position, frame in enumerate(frames[:MAX_ENVELOPE_FRAMES]):
        if not frame:
            return tuple(frames[: position + 1])
    return ()


def encode_header(header: msgspec.Struct, as_json: bool = False) -> bytes:
    return _to_json(header) if as_json else _to_msgpack(header)


def probe(header: bytes) -> tuple[RequestId, str | None]:
    """(id, op) of a header that may be damaged otherwise; None for what cannot be read."""
    try:
        found = _probe_json(header) if is_json(header) else _probe_msgpack(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, None
    request_id = found.id if isinstance(found.id, int | str) and not isinstance(found.id, bool) else None
    return request_id, found.op if isinstance(found.op, str) else None


class RequestDecoder:
    """Decodes the headers of the requests that one endpoint serves."""

    def __init__(self, types: Sequence[type[Request]]) -> None:
        union: Any = Union[tuple(types)]  # noqa: UP007 - built from a sequence
        self._from_msgpack = msgspec.msgpack.Decoder(union).decode
        self._from_json = msgspec.json.Decoder(union).decode
        self._ops = {str(struct.__struct_config__.tag) for struct in types}

    def decode(self, header: bytes) -> Request:
        """The typed request. Raises ProtocolError that names the field at fault."""
        if len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, f"a header has at most {MAX_HEADER_BYTES} bytes")
        try:
            request: Request = self._from_json(header) if is_json(header) else self._from_msgpack(header)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(header, error) from error
        return request

    def _explain(self, header: bytes, error: Exception) -> ProtocolError:
        _, op = probe(header)
        if op is None:
            return ProtocolError(ErrorCode.INVALID_REQUEST, f"header without a readable `op`: {error}")
        if op not in self._ops:
            return ProtocolError(ErrorCode.UNKNOWN_OP, f"op {op[:64]!r} is not served here")
        return ProtocolError(ErrorCode.INVALID_REQUEST, f"{op}: {error}")


def decode_reply(header: bytes, reply_type: type[Reply]) -> Any:
    """The typed reply, or the ErrorBody of a refusal. Raises ProtocolError when it is neither."""
    as_json = is_json(header)
    try:
        found = _probe_reply_json(header) if as_json else _probe_reply_msgpack(header)
        if found.error is not None:
            return found.error
        if as_json:
            return msgspec.json.decode(header, type=reply_type)
        return msgspec.msgpack.decode(header, type=reply_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(ErrorCode.INVALID_REQUEST, f"unreadable reply: {error}") from error


def reply_id(header: bytes) -> RequestId:
    return probe(header)[0]
