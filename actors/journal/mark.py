"""A batch of the log that marks the position of a snapshot. Pure."""

from msgspec import Struct


class LogMark(Struct, frozen=True):
    """A batch of the log: its base offset, its checksum, and the offset after it."""

    base_offset: int
    crc32c: int
    next_offset: int
