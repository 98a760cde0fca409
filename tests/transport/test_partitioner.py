"""Keys to partitions: the one rule that every client shares; keys.json of the vectors has more of it."""

import pytest

from planaria.transport.partitioner import partition_for_key


@pytest.mark.parametrize(
    ("key", "partitions", "expected"),
    # crc32 of "123456789" is 0xCBF43926, the check value of every catalogue.
    [
        (b"123456789", 2**32, 0xCBF43926),
        (b"123456789", 10, 0xCBF43926 % 10),
        (b"", 7, 0),
        (b"order_id_1", 2, 1),
    ],
)
def test_known_keys(key: bytes, partitions: int, expected: int) -> None:
    assert partition_for_key(key, partitions) == expected


def test_keys_are_spread() -> None:
    counts = [0] * 8
    for number in range(8_000):
        counts[partition_for_key(f"order_id_{number}".encode(), 8)] += 1
    assert min(counts) > 800
