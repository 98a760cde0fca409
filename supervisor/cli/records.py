"""Messages as text: lines and JSON in, values, JSON and full lines out. Pure.

    in   lines    value, or key SEPARATOR value          out  value   the value as it is
         json     one JSON value a line, the key in            json    one object a line
                  one of its fields                           full    where, when, key, headers, value

Called by produce and consume.
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from .failures import CommandFailed

if TYPE_CHECKING:
    from ...transport.client.messages import Message

Parsed: TypeAlias = tuple[bytes | None, bytes]
"""Key and value."""
Parser: TypeAlias = Callable[[bytes], Parsed | None]
"""Takes a line without its end; returns None if the line holds no message. Raises CommandFailed."""

JSON_HEADERS = {"content-type": "application/json"}


def line_parser(key_separator: str | None) -> Parser:
    if key_separator is None:
        return lambda line: (None, line)
    separator = key_separator.encode()

    def parse(line: bytes) -> Parsed:
        key, found, value = line.partition(separator)
        if not found:
            raise CommandFailed(f"no {key_separator!r} between key and value")
        return key, value

    return parse


def json_parser(key_field: str | None) -> Parser:
    """Return a parser of JSON lines.

    A value keeps its bytes, so numbers keep every digit. Blank lines hold no message.
    """

    def parse(line: bytes) -> Parsed | None:
        value = line.strip()
        if not value:
            return None
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise CommandFailed(f"not JSON: {error}") from error
        return (_key_of(decoded, key_field) if key_field is not None else None), value

    return parse


def _key_of(decoded: Any, key_field: str) -> bytes:
    key = decoded.get(key_field) if isinstance(decoded, dict) else None
    if key is None:
        raise CommandFailed(f"no field {key_field!r} to take the key from")
    return key.encode() if isinstance(key, str) else msgspec.json.encode(key)


def value_line(message: "Message") -> bytes:
    return message.value or b""


def json_line(message: "Message") -> bytes:
    """Return a message as one JSON line: UTF-8 as text, other bytes as base64, JSON where the headers declare it."""
    headers = message.headers or {}
    shown: dict[str, Any] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp_ms": message.timestamp,
        **_text_or_base64("key", message.key),
        **_shown_value(message.value, headers),
        "headers": headers,
    }
    return msgspec.json.encode(shown)


def full_line(message: "Message") -> bytes:
    at = datetime.fromtimestamp(message.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    parts = [f"{message.topic}/{message.partition}@{message.offset}", at.replace("+00:00", "Z")]
    if message.key is not None:
        parts.append(f"key={message.key.decode(errors='backslashreplace')}")
    parts += [f"{name}={text}" for name, text in (message.headers or {}).items()]
    return " ".join(parts).encode() + b"  " + (message.value or b"")


FORMATS: dict[str, Callable[["Message"], bytes]] = {"value": value_line, "json": json_line, "full": full_line}


def _shown_value(value: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
    if value is not None and headers.get("content-type") == JSON_HEADERS["content-type"]:
        try:
            # On one line, with the digits unchanged.
            return {"value": msgspec.Raw(msgspec.json.format(value, indent=-1))}
        except msgspec.DecodeError:
            return _text_or_base64("value", value)
    return _text_or_base64("value", value)


def _text_or_base64(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
