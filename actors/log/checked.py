"""Small files that are read whole or not at all: a kind, a checksum, a MessagePack body.

      0          4            8
    +----------+------------+------------------------------+
    | kind 4 B | crc32c u32 | body: MessagePack, to the end |
    +----------+------------+------------------------------+

`crc32c` covers the kind and the body. A file that does not verify is treated as missing: every reader can fall back
on an older or slower source. Pure functions; checkpoints and producer snapshots use them.
"""

import struct
from typing import Any, TypeVar

import msgspec

from ...transport.batch import checksum

_CRC = struct.Struct(">I")
_BODY_START = 8

T = TypeVar("T")


def encode_checked(kind: bytes, body: Any) -> bytes:
    encoded = msgspec.msgpack.encode(body)
    return kind + _CRC.pack(checksum(kind + encoded)) + encoded


def decode_checked(kind: bytes, data: bytes | None, body_type: type[T]) -> T | None:
    """Return the body, or None when there is no data or it is not exactly the output of `encode_checked`."""
    if data is None or len(data) < _BODY_START or data[:4] != kind:
        return None
    body = data[_BODY_START:]
    if checksum(kind + body) != _CRC.unpack_from(data, 4)[0]:
        return None
    try:
        return msgspec.msgpack.decode(body, type=body_type)
    except msgspec.ValidationError:
        return None  # intact, but written by a version with other fields
