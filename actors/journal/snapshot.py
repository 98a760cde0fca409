"""The snapshot of a journal: a cache of the state, so that a restart need not read all records. Pure.

Owns the frame of the file, bytes in and bytes out; each actor owns its body. A snapshot is verified or discarded, never
repaired; the replay also discards it when the log does not have the batch it was taken after. Big-endian:

     0 magic, 4 bytes | 4 version u16 | 6 reserved u16 | 8 length u32 (of the body) | 12 crc32c u32 (of the body)
    16 body
"""

import struct
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from ...transport.batch import checksum

_HEAD = struct.Struct(">4sHHII")

StateT = TypeVar("StateT")


class LogMark(Struct, frozen=True):
    """A batch of the log: its base offset, its checksum, and the offset after it."""

    base_offset: int
    crc32c: int
    next_offset: int


class Snapshot(Struct, Generic[StateT], frozen=True):
    state: StateT
    mark: LogMark
    """The last batch that the state contains."""
    taken_at_ms: int = 0


class SnapshotFormat(NamedTuple):
    """One actor's kind of file."""

    magic: bytes
    version: int

    def seal(self, body: bytes) -> bytes:
        return _HEAD.pack(self.magic, self.version, 0, len(body), checksum(body)) + body

    def open(self, data: bytes) -> bytes | None:
        """Return the body; None unless `data` is a whole and undamaged file of this kind."""
        if len(data) < _HEAD.size:
            return None
        magic, version, _, length, crc32c = _HEAD.unpack_from(data)
        body = data[_HEAD.size :]
        is_whole = (magic, version, length) == (self.magic, self.version, len(body))
        return body if is_whole and checksum(body) == crc32c else None
