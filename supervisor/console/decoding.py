"""Messages as a person reads them: JSON, text, MessagePack or bytes, recognised by the value. Pure."""

from typing import Any

import msgspec

from ...transport.client.messages import Message

MAX_SHOWN_BYTES = 64 << 10
MAX_HEX_BYTES = 4 << 10
_STRUCTURED = (b"{", b"[", b'"')


def shown_message(message: Message) -> dict[str, Any]:
    return {
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp,
        "key": shown_bytes(message.key),
        "value": shown_bytes(message.value),
        "headers": {name: str(value) for name, value in message.headers.items()},
    }


def shown_bytes(data: bytes | None) -> dict[str, Any] | None:
    """Return the format, the text, the bytes in hexadecimal and the size; None for no value."""
    if data is None:
        return None
    part = data[:MAX_SHOWN_BYTES]
    kind, text = _decoded(part)
    return {
        "format": kind,
        "text": text,
        "hex": data[:MAX_HEX_BYTES].hex(" "),
        "size": len(data),
        "is_cut": len(data) > MAX_SHOWN_BYTES,
    }


def _decoded(data: bytes) -> tuple[str, str]:
    if data.lstrip()[:1] in _STRUCTURED:
        try:
            return "json", msgspec.json.format(data, indent=2).decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if text and (text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable()):
        return "text", text
    if not data:
        return "text", ""
    try:
        found = msgspec.msgpack.decode(data)
        if isinstance(found, dict | list):
            return "msgpack", msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        pass
    return "bytes", data[:MAX_HEX_BYTES].hex(" ")
