"""What a value and a key are as bytes, and back. Pure; used by producers and consumers."""

from collections.abc import Collection
from math import isfinite
from typing import Any

import msgspec

from ..batch import Headers
from ..deduplication import dedup_id_fault, identified_headers
from ..protocol.data import MAX_TIMESTAMP_MS
from .options import InvalidOption, check_text

CONTENT_TYPE = "content-type"
JSON = "application/json"

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
"""Types of values that hold no others."""
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def encode_value(value: Any, headers: Headers | None) -> tuple[bytes | None, Headers | None]:
    """Bytes (and None) as they are; anything else as JSON, which the headers then say. The headers are copied.

    Raises InvalidOption for what has no JSON: keys that are no text, NaN, infinity, a surrogate, a loop, other objects.
    """
    if value is None or type(value) is bytes:
        return value, headers and dict(headers)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), headers and dict(headers)
    try:
        data = _encode_json(value)
        if type(value) not in _PLAIN:
            _check_keys(value)
        if b"null" in data:
            _check_floats(value)
    except InvalidOption:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"value: has no JSON: {error}") from error
    return data, {**(headers or {}), CONTENT_TYPE: JSON}


def _check_keys(value: Any) -> None:
    """Raises InvalidOption for keys that are no text: as JSON, 1 and "1" would be one."""
    if isinstance(value, dict):
        try:
            "".join(value)
        except TypeError:
            wrong = next(key for key in value if not isinstance(key, str))
            raise InvalidOption(f"value: a key is text in JSON, not {wrong!r}") from None
        parts: Collection[Any] = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        parts = (msgspec.to_builtins(value),)
    if not _PLAIN.issuperset(map(type, parts)):
        for part in parts:
            if type(part) not in _PLAIN:
                _check_keys(part)


def _check_floats(value: Any) -> None:
    """Raises InvalidOption for what JSON has no number for, and would silently be null."""
    if isinstance(value, float):
        if not isfinite(value):
            raise InvalidOption(f"value: {value} has no JSON")
    elif isinstance(value, dict):
        for part in value.values():
            _check_floats(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _check_floats(part)
    elif type(value) not in _PLAIN:
        _check_floats(msgspec.to_builtins(value))


def encode_key(key: bytes | str | None) -> bytes | None:
    """Text as UTF-8. Raises InvalidOption for anything but text and bytes."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise InvalidOption(f"key: has no UTF-8: {error}") from error
    if isinstance(key, bytes | bytearray | memoryview):
        return bytes(key)
    raise InvalidOption(f"key: must be bytes or text, not {key!r}")


def check_details(headers: Headers | None, partition: int | None, timestamp_ms: int | None) -> None:
    """Raises InvalidOption for what no batch can hold: it is made in the network's thread, long after `publish`."""
    if headers is not None:
        if not isinstance(headers, dict):
            raise InvalidOption(f"headers: a dict of text to text, not {type(headers).__name__}")
        for name, text in headers.items():
            check_text("headers: a name", name)
            check_text(f"headers: {name!r}", text)
    if partition is not None and not _is_number(partition):
        raise InvalidOption(f"partition: must be a number, not {partition!r}")
    if timestamp_ms is not None and not (_is_number(timestamp_ms) and 0 <= timestamp_ms <= MAX_TIMESTAMP_MS):
        raise InvalidOption(f"timestamp_ms: must be milliseconds since 1970, not {timestamp_ms!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def identify(headers: Headers | None, dedup_id: str) -> Headers:
    """The headers of a record with an identity. Raises InvalidOption for one that is none."""
    check_text("dedup_id:", dedup_id)
    fault = dedup_id_fault(dedup_id)
    if fault is not None:
        raise InvalidOption(fault)
    return identified_headers(headers, dedup_id)


def content_size_bytes(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """What they take in a batch, as long as the headers are ASCII."""
    size_bytes = len(key or b"") + len(value or b"")
    if headers:
        size_bytes += sum(len(name) + len(text) + 6 for name, text in headers.items())
    return size_bytes


def decode_value(value: bytes | None, headers: Headers | None) -> Any:
    """What was published: JSON decoded where the headers say so, bytes otherwise.

    Raises msgspec.DecodeError when the headers say JSON and the value is not.
    """
    if value is None or not headers or headers.get(CONTENT_TYPE) != JSON:
        return value
    return _decode_json(value)
