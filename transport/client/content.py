"""Encode values and keys as bytes, and decode them. Pure; used by producers and consumers."""

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

# Tuples: a union of types is built again wherever it is written, which takes longer than the check.
_BUFFERS = (bytes, bytearray, memoryview)
_SEQUENCES = (list, tuple, set, frozenset)
_PLAIN = frozenset({str, int, bool, type(None), bytes})
"""Types of values that JSON always holds unchanged."""
_JSON_ONLY: Headers = {CONTENT_TYPE: JSON}
"""Shared by all records that have no other header."""
_JSON_ONLY_BYTES = len(CONTENT_TYPE) + len(JSON) + 6
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def encode_value(value: Any, headers: Headers | None) -> tuple[bytes | None, Headers | None]:
    """Return bytes and None unchanged, and any other value as JSON, declared in the headers. The headers are copied.

    Raises InvalidOption for values without JSON: keys that are not text, NaN, infinity, a surrogate, a cycle, other
    objects.
    """
    if value is None or type(value) is bytes:
        return value, headers and dict(headers)
    if isinstance(value, _BUFFERS):
        return bytes(value), headers and dict(headers)
    try:
        data = _encode_json(value)
        if type(value) not in _PLAIN:
            _check(value)
    except InvalidOption:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"value: has no JSON: {error}") from error
    return data, {**headers, CONTENT_TYPE: JSON} if headers else _JSON_ONLY


def _check(value: Any) -> None:
    """Raise InvalidOption for values that JSON would change silently.

    A key that is not text: 1 and "1" would be the same. A float that is not finite: it would become null.
    """
    if type(value) is dict or isinstance(value, dict):
        try:
            "".join(value)
        except TypeError:
            wrong = next(key for key in value if not isinstance(key, str))
            raise InvalidOption(f"value: a key is text in JSON, not {wrong!r}") from None
        parts: Collection[Any] = value.values()
    elif isinstance(value, _SEQUENCES):
        parts = value
    elif isinstance(value, float):
        if not isfinite(value):
            raise InvalidOption(f"value: {value} has no JSON")
        return
    else:
        parts = (msgspec.to_builtins(value),)
    for part in parts:
        kind = type(part)
        if not (kind in _PLAIN or (kind is float and isfinite(part))):
            _check(part)


def encode_key(key: bytes | str | None) -> bytes | None:
    """Encode text as UTF-8. Raises InvalidOption for anything but text and bytes."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise InvalidOption(f"key: has no UTF-8: {error}") from error
    if isinstance(key, _BUFFERS):
        return bytes(key)
    raise InvalidOption(f"key: must be bytes or text, not {key!r}")


def check_details(headers: Headers | None, partition: int | None, timestamp_ms: int | None) -> None:
    """Raise InvalidOption for values that a batch cannot hold. The batch is made in the network thread,
    after `publish`."""
    if headers is not None:
        if not isinstance(headers, dict):
            raise InvalidOption(f"headers: a dict of text to text, not {type(headers).__name__}")
        for name, text in headers.items():
            if type(name) is str and type(text) is str and name.isascii() and text.isascii():
                continue
            check_text("headers: a name", name)
            check_text(f"headers: {name!r}", text)
    if partition is not None and not _is_number(partition):
        raise InvalidOption(f"partition: must be a number, not {partition!r}")
    if timestamp_ms is not None and not (_is_number(timestamp_ms) and 0 <= timestamp_ms <= MAX_TIMESTAMP_MS):
        raise InvalidOption(
            f"timestamp_ms: must be a datetime or milliseconds since 1970, not {timestamp_ms!r}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def identify(headers: Headers | None, dedup_id: str) -> Headers:
    """Return the headers of a record with a dedup id. Raises InvalidOption for an invalid id."""
    check_text("dedup_id:", dedup_id)
    fault = dedup_id_fault(dedup_id)
    if fault is not None:
        raise InvalidOption(fault)
    return identified_headers(headers, dedup_id)


def content_size_bytes(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Return their size in a batch, as long as the headers are ASCII."""
    size_bytes = len(key or b"") + len(value or b"")
    if headers is _JSON_ONLY:
        return size_bytes + _JSON_ONLY_BYTES
    if headers:
        for name, text in headers.items():
            size_bytes += len(name) + len(text) + 6
    return size_bytes


def decode_value(value: bytes | None, headers: Headers | None) -> Any:
    """Return the published value: JSON is decoded if the headers declare it, other values are bytes.

    Raises msgspec.DecodeError when the headers declare JSON and the value is not JSON.
    """
    if value is None or not headers or headers.get(CONTENT_TYPE) != JSON:
        return value
    return _decode_json(value)
