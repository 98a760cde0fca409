"""Which partition a key belongs to. Pure; the one rule every client in every language shares."""

from zlib import crc32


def partition_for_key(key: bytes, partitions: int) -> int:
    """The partition in 0..partitions-1 for `key`: its zlib CRC-32 modulo the number of partitions."""
    return crc32(key) % partitions
