"""Sizes stated by a compressed body, read without the codec's library."""

import pytest

from planaria.transport.compression import CODEC_ZSTD, DamagedBody, compress, decompress, stated_size_bytes

MAGIC = bytes.fromhex("28b52ffd")


@pytest.mark.parametrize("size_bytes", [0, 1, 255, 256, 257, 65_791, 65_792, 1_000_000, 70_000_000])
def test_the_stated_size_is_the_librarys(size_bytes: int) -> None:
    zstandard = pytest.importorskip("zstandard")
    body = compress(bytes(size_bytes), CODEC_ZSTD)
    assert stated_size_bytes(body) == zstandard.frame_content_size(body) == size_bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        MAGIC,
        MAGIC + b"\x20",  # one byte of size announced, none there
        MAGIC + bytes([0b00_0_00000, 0]) + bytes(20),  # no size at all
        MAGIC + bytes([0b00_1_01000, 9]) + bytes(20),  # the reserved bit
        MAGIC + bytes([0b00_1_00001, 9, 9]) + bytes(20),  # a dictionary
        b"\x50\x2a\x4d\x18" + bytes(20),  # a skippable frame
    ],
    ids=["empty", "magic", "cut", "unstated", "reserved", "dictionary", "skippable"],
)
def test_a_frame_that_states_no_size(body: bytes) -> None:
    assert stated_size_bytes(body) is None


def test_the_largest_size_field() -> None:
    assert stated_size_bytes(MAGIC + bytes([0b11_0_00000, 0]) + b"\xff" * 8) == 2**64 - 1


@pytest.mark.parametrize("stated", [999, 1_001], ids=["less", "more"])
def test_contents_that_differ_from_the_stated_size(stated: int) -> None:
    pytest.importorskip("zstandard")
    body = bytearray(compress(bytes(1_000), CODEC_ZSTD))
    assert body[4] >> 6 == 1  # a size field of two bytes, from 256 up
    body[5:7] = (stated - 256).to_bytes(2, "little")
    with pytest.raises(DamagedBody):
        decompress(bytes(body), CODEC_ZSTD)


def test_a_second_frame_is_refused() -> None:
    pytest.importorskip("zstandard")
    with pytest.raises(DamagedBody):
        decompress(compress(b"one", CODEC_ZSTD) + compress(b"two", CODEC_ZSTD), CODEC_ZSTD)
