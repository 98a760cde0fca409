"""A batch of the log by which a snapshot says where it was taken. Pure."""

from msgspec import Struct


class LogMark(Struct, frozen=True):
    """A batch of the log: where it begins, its checksum, and the offset after it."""

    base_offset: int
    crc32c: int
    next_offset: int
