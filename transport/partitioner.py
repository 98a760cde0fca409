"""The partition of a key. Pure; the one rule shared by every client in every language."""

from zlib import crc32


def partition_for_key(key: bytes, partitions: int) -> int:
    """Return the partition in 0..partitions-1 for `key`: its zlib CRC-32 modulo the number of partitions."""
    return crc32(key) % partitions
