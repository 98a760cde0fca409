"""Sizes stated by a compressed body, read without the codec's library; contents that differ from them."""

import random
from typing import Any

import pytest

from planaria.transport import compression
from planaria.transport.compression import (
    CODEC_LZ4,
    CODEC_ZSTD,
    DamagedBody,
    compress,
    decompress,
    stated_size_bytes,
)

ZSTD = bytes.fromhex("28b52ffd")
LZ4 = bytes.fromhex("04224d18")
CODECS = [pytest.param(CODEC_ZSTD, "zstandard", id="zstd"), pytest.param(CODEC_LZ4, "lz4.frame", id="lz4")]


def size_of(library: Any, body: bytes) -> int:
    """Return the size of the contents as the library reads it from the frame."""
    if hasattr(library, "frame_content_size"):
        return int(library.frame_content_size(body))
    return int(library.get_frame_info(body)["content_size"])


@pytest.mark.parametrize("size_bytes", [1, 255, 256, 257, 65_791, 65_792, 1_000_000, 70_000_000])
@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_the_stated_size_is_the_librarys(codec: int, library: str, size_bytes: int) -> None:
    found = pytest.importorskip(library)
    body = compress(bytes(size_bytes), codec)
    assert stated_size_bytes(body, codec) == size_of(found, body) == size_bytes


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        (CODEC_ZSTD, b""),
        (CODEC_ZSTD, ZSTD),
        (CODEC_ZSTD, ZSTD + b"\x20"),  # one byte of size announced, none there
        (CODEC_ZSTD, ZSTD + bytes([0b00_0_00000, 0]) + bytes(20)),  # no size at all
        (CODEC_ZSTD, ZSTD + bytes([0b00_1_01000, 9]) + bytes(20)),  # the reserved bit
        (CODEC_ZSTD, ZSTD + bytes([0b00_1_00001, 9, 9]) + bytes(20)),  # a dictionary
        (CODEC_ZSTD, b"\x50\x2a\x4d\x18" + bytes(20)),  # a skippable frame
        (CODEC_ZSTD, LZ4 + bytes([0b01_1_01000]) + bytes(20)),  # the other codec's
        (CODEC_LZ4, b""),
        (CODEC_LZ4, LZ4),
        (CODEC_LZ4, LZ4 + bytes([0b01_1_01000, 0x40]) + bytes(7)),  # cut within the size
        (CODEC_LZ4, LZ4 + bytes([0b01_1_00000]) + bytes(20)),  # no size at all
        (CODEC_LZ4, LZ4 + bytes([0b01_1_01010]) + bytes(20)),  # the reserved bit
        (CODEC_LZ4, LZ4 + bytes([0b01_1_01001]) + bytes(20)),  # a dictionary
        (CODEC_LZ4, LZ4 + bytes([0b10_1_01000]) + bytes(20)),  # another version
        (CODEC_LZ4, b"\x02\x21\x4c\x18" + bytes(20)),  # the legacy frame
        (CODEC_LZ4, b"\x50\x2a\x4d\x18" + bytes(20)),
        (CODEC_LZ4, ZSTD + bytes([0b11_0_00000]) + bytes(20)),
        (7, LZ4 + bytes([0b01_1_01000]) + bytes(20)),  # no codec at all
    ],
)
def test_a_frame_that_states_no_size(codec: int, body: bytes) -> None:
    assert stated_size_bytes(body, codec) is None


def test_the_largest_size_field() -> None:
    largest = b"\xff" * 8
    assert stated_size_bytes(ZSTD + bytes([0b11_0_00000, 0]) + largest, CODEC_ZSTD) == 2**64 - 1
    assert stated_size_bytes(LZ4 + bytes([0b01_1_01000, 0x40]) + largest + b"\0", CODEC_LZ4) == 2**64 - 1


def stating(body: bytes, codec: int, size_bytes: int) -> bytes:
    """Return a frame of 1,000 bytes with another stated size."""
    changed = bytearray(body)
    if codec == CODEC_ZSTD:
        assert body[4] >> 6 == 1  # a size field of two bytes, from 256 up
        changed[5:7] = (size_bytes - 256).to_bytes(2, "little")
    else:
        xxh32 = pytest.importorskip("batch_vectors").xxh32
        changed[6:14] = size_bytes.to_bytes(8, "little")
        changed[14] = xxh32(bytes(changed[4:14])) >> 8 & 0xFF
    return bytes(changed)


@pytest.mark.parametrize("stated", [300, 999, 1_001, 60_000], ids=str)
@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_contents_that_differ_from_the_stated_size(codec: int, library: str, stated: int) -> None:
    pytest.importorskip(library)
    body = compress(random.Random(1).randbytes(1_000), codec)
    assert decompress(stating(body, codec, 1_000), codec) == decompress(body, codec)
    with pytest.raises(DamagedBody):
        decompress(stating(body, codec, stated), codec)


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_frame_that_unpacks_to_more_than_it_states_is_not_unpacked(codec: int, library: str) -> None:
    pytest.importorskip(library)
    body = compress(bytes(1_000), codec)
    large = compress(bytes(50_000_000), codec)
    with pytest.raises(DamagedBody):
        decompress(body[: 15 if codec == CODEC_LZ4 else 7] + large[15 if codec == CODEC_LZ4 else 9 :], codec)


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_size_beyond_the_limit_of_readers(
    codec: int, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    monkeypatch.setattr(compression, "MAX_UNPACKED_BYTES", 999)
    with pytest.raises(DamagedBody, match="the limit is 999"):
        decompress(compress(bytes(1_000), codec), codec)


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_second_frame_is_refused(codec: int, library: str) -> None:
    pytest.importorskip(library)
    with pytest.raises(DamagedBody):
        decompress(compress(b"one", codec) + compress(b"two", codec), codec)


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_frame_that_is_cut_is_refused(codec: int, library: str) -> None:
    pytest.importorskip(library)
    body = compress(b"value " * 200, codec)
    for length in range(len(body)):
        with pytest.raises(DamagedBody):
            decompress(body[:length], codec)
