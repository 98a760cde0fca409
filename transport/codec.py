"""Decode and encode headers, in MessagePack or JSON, and the frames around them. Pure.

A message is `envelope header payload*`. The envelope follows ZeroMQ's conventions: nothing, an empty frame (a REQ
socket), or one frame of the sender's and an empty one (ZMQ_REQ_CORRELATE). It is echoed. It ends with an empty frame
that is followed by the header, a map. Without such a frame the first map is the header. A map begins with `{` in
JSON, after white space or a byte-order mark, and with a map byte in MessagePack.
"""

import codecs
import re
from collections.abc import Sequence
from typing import Any, Union

import msgspec

from . import coercion, patterns
from .addresses import as_text, from_text
from .coercion import Coercion
from .compression import Buffer
from .protocol.errors import ErrorBody, ErrorCode, ProtocolError
from .protocol.message import MAX_FRAME_BYTES, MAX_FRAMES, MAX_HEADER_BYTES, Reply, Request, RequestId

MAX_ENVELOPE_FRAMES = 2
MAX_EXPLANATION_CHARACTERS = 500
"""Limit of an error's text: it may quote the request, which is not echoed at length."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_BEFORE_JSON = frozenset({b" ", b"\t", b"\r", b"\n", codecs.BOM_UTF8[:1]})
"""First bytes of a JSON header. No map in MessagePack begins with them."""

_MAP_STARTS = frozenset(bytes([first]) for first in (0x7B, *range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of a map, in JSON and in MessagePack."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
"""Matches every JSON header with a number beyond 64 bits, which MessagePack cannot represent."""

_to_msgpack = msgspec.msgpack.Encoder(enc_hook=as_text).encode
_to_json = msgspec.json.Encoder(enc_hook=as_text).encode


class _IdProbe(msgspec.Struct):
    """The id of a header that may be malformed otherwise. Typed, so that untrusted data is not decoded into
    objects."""

    id: RequestId = None


class _OpProbe(msgspec.Struct):
    op: str | None = None


class _ReplyProbe(msgspec.Struct):
    id: RequestId = None
    error: ErrorBody | None = None


# Not strict: a float without a fraction is a number, as it is in a header that can be read.
_id_from_msgpack = msgspec.msgpack.Decoder(_IdProbe, strict=False).decode
_id_from_json = msgspec.json.Decoder(_IdProbe, strict=False).decode
_op_from_msgpack = msgspec.msgpack.Decoder(_OpProbe).decode
_op_from_json = msgspec.json.Decoder(_OpProbe).decode
_probe_reply_msgpack = msgspec.msgpack.Decoder(_ReplyProbe).decode
_reply_decoders: dict[type[Reply], Any] = {}
"""Made at the first reply of a type."""
_probe_reply_json = msgspec.json.Decoder(_ReplyProbe).decode
_has_error = re.compile(rb"error[^\xc0]").search
"""Finds an error that is not null, which every refusal has. MessagePack has no escapes."""


def is_json(header: bytes) -> bool:
    return header[:1] == b"{"


def split_envelope(frames: Sequence[bytes]) -> tuple[tuple[bytes, ...], bytes, Sequence[bytes]]:
    """Return (envelope, header, payload). Raises ProtocolError when there is no header at its place."""
    # Nearly all messages have one of these three forms.
    if len(frames) > MAX_ENVELOPE_FRAMES and not frames[1]:
        if frames[2][:1] in _MAP_STARTS:
            return (frames[0], frames[1]), frames[2], frames[3:]
    elif frames and frames[0][:1] in _MAP_STARTS:
        return (), frames[0], frames[1:]
    elif len(frames) > 1 and not frames[0] and frames[1][:1] in _MAP_STARTS:
        return (b"",), frames[1], frames[2:]
    position = _header_at(frames)
    if position is not None:
        return tuple(frames[:position]), _trimmed(frames[position]), frames[position + 1 :]
    raise ProtocolError(
        ErrorCode.INVALID_REQUEST, "no header: a request begins with a MessagePack or JSON map"
    )


def _trimmed(frame: bytes) -> bytes:
    return frame.removeprefix(codecs.BOM_UTF8).lstrip() if frame[:1] in _BEFORE_JSON else frame


def _header_at(frames: Sequence[bytes]) -> int | None:
    """Return the index of the header: after the delimiter if a map follows (an earlier frame may resemble one),
    else the first map."""
    if len(frames) > MAX_ENVELOPE_FRAMES and not frames[1] and _trimmed(frames[2])[:1] in _MAP_STARTS:
        return MAX_ENVELOPE_FRAMES
    for position, frame in enumerate(frames[: MAX_ENVELOPE_FRAMES + 1]):
        first = frame[:1]
        if first in _MAP_STARTS or (first in _BEFORE_JSON and _trimmed(frame)[:1] in _MAP_STARTS):
            return position
    return None


def envelope_of(frames: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the frames to echo for a message without a header: those up to an empty one among the first two."""
    for position, frame in enumerate(frames[:MAX_ENVELOPE_FRAMES]):
        if not frame:
            return tuple(frames[: position + 1])
    return ()


def encode_header(header: msgspec.Struct, as_json: bool = False) -> bytes:
    return _to_json(header) if as_json else _to_msgpack(header)


def sendable(text: str) -> str:
    """Return the text with characters escaped that have no UTF-8, as in undecodable file names: a message could
    not hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def id_of(header: bytes) -> RequestId:
    """Return the id of a header that may be malformed otherwise; None when it cannot be read."""
    try:
        return _id_from_json(header).id if is_json(header) else _id_from_msgpack(header).id
    except _UNREADABLE:
        return _coerced_id(header)


def _coerced_id(header: bytes) -> RequestId:
    try:
        return msgspec.convert(coercion.fields_of(header, is_json(header)), _IdProbe, strict=False).id
    except _UNREADABLE:
        return None


def _op_of(header: bytes) -> str | None:
    try:
        return _op_from_json(header).op if is_json(header) else _op_from_msgpack(header).op
    except _UNREADABLE:
        return None


def excess_of(payload: Sequence[Buffer]) -> ErrorBody | None:
    """Return the refusal of a payload with a frame that no receiver takes: it would cut the connection at each attempt,
    with everything else on its way."""
    most = max(map(len, payload))
    if most <= MAX_FRAME_BYTES:
        return None
    message = f"a message of {most} bytes cannot be sent, the limit is {MAX_FRAME_BYTES}"
    return ErrorBody(ErrorCode.MESSAGE_TOO_LARGE, message)


class RequestDecoder:
    """Decodes the headers of the requests that one endpoint serves."""

    def __init__(self, types: Sequence[type[Request]]) -> None:
        union: Any = Union[tuple(types)]  # noqa: UP007 - built from a sequence
        self._from_msgpack = msgspec.msgpack.Decoder(union, dec_hook=from_text).decode
        self._from_json = msgspec.json.Decoder(union, dec_hook=from_text).decode
        self._kinds = {str(struct.__struct_config__.tag): struct for struct in types}
        self._coercion = Coercion(self._kinds)

    def decode(self, header: bytes, payload_frames: int = 0) -> Request:
        """Return the typed request. Raises ProtocolError that names the field at fault.

        The envelope does not count towards MAX_FRAMES: a forwarded message gets another one.
        """
        if payload_frames >= MAX_FRAMES:
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, f"a message has at most {MAX_FRAMES} frames")
        if len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(ErrorCode.MESSAGE_TOO_LARGE, f"a header has at most {MAX_HEADER_BYTES} bytes")
        as_json = is_json(header)
        try:
            request: Request = self._from_json(header) if as_json else self._from_msgpack(header)
        except _UNREADABLE as error:
            request = self._coerced(header, error)
        if as_json and _LONG_NUMBER.search(header):
            check_numbers(request)
        return request

    def _coerced(self, header: bytes, error: Exception) -> Request:
        """Return the request if its only faults are types that cannot be misunderstood. Otherwise raises the
        original fault."""
        try:
            request = self._coercion.read(header, is_json(header))
        except _UNREADABLE:
            request = None
        if request is None:
            raise self._explain(header, error) from error
        return request

    def _explain(self, header: bytes, error: Exception) -> ProtocolError:
        op = _op_of(header)
        why = patterns.in_words(str(error))[:MAX_EXPLANATION_CHARACTERS]
        if op is None:
            return ProtocolError(ErrorCode.INVALID_REQUEST, f"header without a readable `op`: {why}")
        if op not in self._kinds:
            return ProtocolError(ErrorCode.UNKNOWN_OP, f"op {op[:64]!r} does not exist here")
        return ProtocolError(ErrorCode.INVALID_REQUEST, f"{op}: {why}")


def check_numbers(request: Request) -> None:
    """Raise ProtocolError for numbers that MessagePack cannot forward. The id alone is exempt: it is echoed unchanged."""
    try:
        _to_msgpack(msgspec.structs.replace(request, id=None))
    except OverflowError as error:
        op = request.__struct_config__.tag
        raise ProtocolError(ErrorCode.INVALID_REQUEST, f"{op}: a number has more than 64 bits") from error


def error_of(header: bytes) -> ErrorBody | None:
    """Return the error in a reply that this broker has encoded; None if it is no refusal."""
    return (_probe_reply_json if is_json(header) else _probe_reply_msgpack)(header).error


def decode_reply(header: bytes, reply_type: type[Reply]) -> Any:
    """Return the typed reply, or the ErrorBody of a refusal. Raises ProtocolError when it is neither."""
    as_json = is_json(header)
    try:
        if as_json or _has_error(header):
            found = _probe_reply_json(header) if as_json else _probe_reply_msgpack(header)
            if found.error is not None:
                return found.error
        if as_json:
            return msgspec.json.decode(header, type=reply_type, dec_hook=from_text)
        decode = _reply_decoders.get(reply_type)
        if decode is None:
            decode = msgspec.msgpack.Decoder(reply_type, dec_hook=from_text).decode
            _reply_decoders[reply_type] = decode
        return decode(header)
    except _UNREADABLE as error:
        raise ProtocolError(
            ErrorCode.INVALID_REQUEST, f"unreadable reply: {str(error)[:MAX_EXPLANATION_CHARACTERS]}"
        ) from error
