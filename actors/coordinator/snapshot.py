"""The snapshot of a group: a cache of its state, so that a restart need not read all of `__offsets`. Pure.

Owns the file's layout, bytes in and bytes out. A snapshot is verified or discarded, never repaired: its checksum must
hold, and the replay also discards it when the log does not have the batch it was taken after. Big-endian:

     0 magic "PLGS" | 4 version u16 = 1 | 6 reserved u16 | 8 length u32 (of the body) | 12 crc32c u32 (of the body)
    16 body: MessagePack map {group, mark: {base_offset, crc32c}, records: [[key, value], ...], taken_at_ms}, records
    as in `__offsets`
"""

import struct

import msgspec
from msgspec import Struct

from ...transport.batch import checksum
from ..journal.mark import LogMark
from .records import InvalidRecord, decode, encode
from .state import GroupState

MAGIC = b"PLGS"
VERSION = 1

_HEAD = struct.Struct(">4sHHII")


class Snapshot(Struct, frozen=True):
    state: GroupState
    mark: LogMark
    """The last batch the state contains."""
    taken_at_ms: int = 0


class _Body(Struct):
    group: str
    mark: LogMark
    records: list[tuple[bytes, bytes]]
    taken_at_ms: int = 0
    """A snapshot without a time is too old."""


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode


def encode_snapshot(state: GroupState, mark: LogMark, now: int) -> bytes:
    records = []
    for change in state.changes():
        key, value, _, _ = encode(change)
        assert key is not None
        assert value is not None
        records.append((key, value))
    body = _encode_body(_Body(state.group, mark, records, now))
    return _HEAD.pack(MAGIC, VERSION, 0, len(body), checksum(body)) + body


def decode_snapshot(data: bytes, group: str) -> Snapshot | None:
    """Return the snapshot; None unless `data` is a whole and undamaged snapshot of this group."""
    if len(data) < _HEAD.size:
        return None
    magic, version, _, length, crc32c = _HEAD.unpack_from(data)
    body_bytes = data[_HEAD.size :]
    is_whole = (magic, version, length) == (MAGIC, VERSION, len(body_bytes)) and checksum(
        body_bytes
    ) == crc32c
    if not is_whole:
        return None
    try:
        body = _decode_body(body_bytes)
        changes = [decode(key, value, group) for key, value in body.records]
    except (msgspec.MsgspecError, InvalidRecord):
        return None  # undamaged, but written by a version with other records
    state = GroupState(group)
    for change in changes:
        if change is None:
            return None
        state.apply(change)
    return Snapshot(state, body.mark, body.taken_at_ms) if body.group == group else None
