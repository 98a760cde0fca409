"""What a value and a key are as bytes, and back. Pure; used by producers and consumers."""

from typing import Any

import msgspec

from ..batch import Headers

CONTENT_TYPE = "content-type"
JSON = "application/json"

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def encode_value(value: Any, headers: Headers | None) -> tuple[bytes | None, Headers | None]:
    """Bytes (and None) as they are; anything else as JSON, which the headers then say."""
    if value is None or type(value) is bytes:
        return value, headers
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), headers
    return _encode_json(value), {**(headers or {}), CONTENT_TYPE: JSON}


def encode_key(key: bytes | str | None) -> bytes | None:
    """Text as UTF-8."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes | bytearray | memoryview):
        return bytes(key)
    raise TypeError(f"a key is bytes or text, not {type(key).__name__}")


def decode_value(value: bytes | None, headers: Headers | None) -> Any:
    """What was published: JSON decoded where the headers say so, bytes otherwise.

    Raises msgspec.DecodeError when the headers say JSON and the value is not.
    """
    if value is None or not headers or headers.get(CONTENT_TYPE) != JSON:
        return value
    return _decode_json(value)
