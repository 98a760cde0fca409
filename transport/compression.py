"""The codecs that compress the records of a batch.

Owns the codec numbers and the checks of a compressed body before it is decompressed. A body is one frame that states
the size of its contents: of zstd (RFC 8878, section 3.1.1.1.4) or LZ4 (its frame format 1.6.1, field `C.Size`). So a
partition, which never opens a batch, can refuse one that unpacks to more than its readers should hold, and a reader
allocates exactly the stated size: a frame whose contents differ from it is damaged.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

CODEC_MASK = 0b111
CODEC_NONE = 0
CODEC_ZSTD = 1
CODEC_LZ4 = 2
CODECS = {"none": CODEC_NONE, "zstd": CODEC_ZSTD, "lz4": CODEC_LZ4}
"""Codec numbers by value of the option `compression`."""

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Limit of bytes that a reader unpacks from one batch, whatever a topic's `max_unpacked_bytes` was."""


class CodecUnavailable(RuntimeError):
    """A batch is compressed with a codec whose library is missing in this process."""


class DamagedBody(ValueError):
    """The compressed bytes contradict their own header."""


class _Codec(NamedTuple):
    name: str
    module: str
    stated_size_bytes: Callable[[memoryview], int | None]
    compress: Callable[[Any, Buffer], bytes]
    decompress: Callable[[Any, Buffer, int], bytes]
    """Takes the library, a body and its stated size. Raises DamagedBody."""


def require(codec: int) -> None:
    """Raise CodecUnavailable if batches of this codec can be neither made nor opened here."""
    if codec != CODEC_NONE:
        _library(_codec(codec))


def compress(body: Buffer, codec: int) -> bytes:
    """Return one frame that states the size of its contents. Raises CodecUnavailable."""
    found = _codec(codec)
    return found.compress(_library(found), body)


def decompress(body: Buffer, codec: int) -> bytes:
    """Decompress a body. Raises DamagedBody if the contents differ from the stated size, and CodecUnavailable."""
    found = _codec(codec)
    library = _library(found)
    size_bytes = found.stated_size_bytes(memoryview(body))
    if size_bytes is None:
        raise DamagedBody(f"its {found.name} frame does not state the size of its contents")
    if size_bytes > MAX_UNPACKED_BYTES:
        raise DamagedBody(f"it unpacks to {size_bytes} bytes, and the limit is {MAX_UNPACKED_BYTES}")
    return found.decompress(library, body, size_bytes)


def stated_size_bytes(body: Buffer, codec: int) -> int | None:
    """Return the size of the contents that a frame's header states; None if it states none or is no header of such a
    frame."""
    found = _CODECS.get(codec)
    return None if found is None else found.stated_size_bytes(memoryview(body))


def _codec(codec: int) -> _Codec:
    found = _CODECS.get(codec)
    if found is None:
        raise DamagedBody(f"unknown batch codec {codec}")
    return found


def _library(codec: _Codec) -> Any:
    try:
        return import_module(codec.module)  # an optional dependency, loaded by the first compressed batch
    except ImportError as error:
        name = codec.name
        raise CodecUnavailable(f"{name} batches need the extra: pip install 'planaria[{name}]'") from error


# zstd.

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_RESERVED = 1 << 3
_ZSTD_SINGLE_SEGMENT = 1 << 5
_ZSTD_DICTIONARY = 0b11


def _zstd_size_bytes(body: memoryview) -> int | None:
    if len(body) < 6 or body[:4] != _ZSTD_MAGIC:
        return None
    descriptor = body[4]
    if descriptor & (_ZSTD_RESERVED | _ZSTD_DICTIONARY):
        return None
    is_single_segment = bool(descriptor & _ZSTD_SINGLE_SEGMENT)
    width = (1 if is_single_segment else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 if is_single_segment else 6
    field = body[start : start + width]
    if width == 0 or len(field) < width:
        return None
    size_bytes = int.from_bytes(field, "little")
    return size_bytes + 256 if width == 2 else size_bytes


def _zstd_compress(zstandard: Any, body: Buffer) -> bytes:
    return bytes(zstandard.ZstdCompressor(write_content_size=True).compress(body))


def _zstd_decompress(zstandard: Any, body: Buffer, _: int) -> bytes:
    try:
        # The library allocates the stated size and fails when the contents are longer or shorter.
        return bytes(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise DamagedBody(str(error)) from error


# LZ4.

_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_VERSION_MASK = 0b11 << 6
_LZ4_VERSION = 0b01 << 6
_LZ4_STATES_SIZE = 1 << 3
_LZ4_RESERVED = 1 << 1
_LZ4_DICTIONARY = 1


def _lz4_size_bytes(body: memoryview) -> int | None:
    if len(body) < 15 or body[:4] != _LZ4_MAGIC:
        return None
    flags = body[4]
    if flags & _LZ4_VERSION_MASK != _LZ4_VERSION or flags & (_LZ4_RESERVED | _LZ4_DICTIONARY):
        return None
    return int.from_bytes(body[6:14], "little") if flags & _LZ4_STATES_SIZE else None


def _lz4_compress(lz4_frame: Any, body: Buffer) -> bytes:
    return bytes(lz4_frame.compress(body, store_size=True))


def _lz4_decompress(lz4_frame: Any, body: Buffer, size_bytes: int) -> bytes:
    decompressor = lz4_frame.LZ4FrameDecompressor()
    try:
        # One byte more than stated: otherwise it would stop before the end of the frame, which it checks.
        data = decompressor.decompress(body, max_length=size_bytes + 1)
    except (RuntimeError, EOFError) as error:
        raise DamagedBody(str(error)) from error
    if len(data) != size_bytes or not decompressor.eof or decompressor.unused_data:
        raise DamagedBody(f"its contents are not the {size_bytes} bytes of one LZ4 frame")
    return bytes(data)


_CODECS = {
    CODEC_ZSTD: _Codec("zstd", "zstandard", _zstd_size_bytes, _zstd_compress, _zstd_decompress),
    CODEC_LZ4: _Codec("lz4", "lz4.frame", _lz4_size_bytes, _lz4_compress, _lz4_decompress),
}
