"""The codecs that compress the records of a batch.

Owns the codec numbers and the checks of a compressed body before it is decompressed. A zstd body is one frame that
states the size of its contents (RFC 8878, section 3.1.1.1.4). So a partition, which never opens a batch, can refuse
one that unpacks to more than its readers should hold, and a reader allocates exactly the stated size: a frame whose
contents differ from it is damaged.
"""

from typing import Any, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

CODEC_MASK = 0b111
CODEC_NONE = 0
CODEC_ZSTD = 1
CODECS = {"none": CODEC_NONE, "zstd": CODEC_ZSTD}
"""Codec numbers by value of the option `compression`."""

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Limit of bytes that a reader unpacks from one batch, whatever a topic's `max_unpacked_bytes` was."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_RESERVED_BIT = 1 << 3
_SINGLE_SEGMENT = 1 << 5
_DICTIONARY_ID_MASK = 0b11


class CodecUnavailable(RuntimeError):
    """A batch is compressed with a codec whose library is missing in this process."""


class DamagedBody(ValueError):
    """The compressed bytes contradict their own header."""


def require(codec: int) -> None:
    """Raise CodecUnavailable if batches of this codec can be neither made nor opened here."""
    if codec != CODEC_NONE:
        _zstandard(codec)


def compress(body: Buffer, codec: int) -> bytes:
    """Return one frame that states the size of its contents. Raises CodecUnavailable."""
    return bytes(_zstandard(codec).ZstdCompressor(write_content_size=True).compress(body))


def decompress(body: Buffer, codec: int) -> bytes:
    """Decompress a body. Raises DamagedBody if the contents differ from the stated size, and CodecUnavailable."""
    zstandard = _zstandard(codec)
    size_bytes = stated_size_bytes(body)
    if size_bytes is None:
        raise DamagedBody("its zstd frame does not state the size of its contents")
    if size_bytes > MAX_UNPACKED_BYTES:
        raise DamagedBody(f"it unpacks to {size_bytes} bytes, and at most {MAX_UNPACKED_BYTES} are unpacked")
    try:
        # The library allocates the stated size and fails when the contents are longer or shorter.
        return bytes(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise DamagedBody(str(error)) from error


def stated_size_bytes(body: Buffer) -> int | None:
    """Return the size of the contents that a zstd frame's header states; None if it states none or is no such
    header."""
    view = memoryview(body)
    if len(view) < 6 or view[:4] != _ZSTD_MAGIC:
        return None
    descriptor = view[4]
    if descriptor & (_RESERVED_BIT | _DICTIONARY_ID_MASK):
        return None
    is_single_segment = bool(descriptor & _SINGLE_SEGMENT)
    width = (1 if is_single_segment else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 if is_single_segment else 6
    field = view[start : start + width]
    if width == 0 or len(field) < width:
        return None
    size_bytes = int.from_bytes(field, "little")
    return size_bytes + 256 if width == 2 else size_bytes


def _zstandard(codec: int) -> Any:
    if codec != CODEC_ZSTD:
        raise DamagedBody(f"unknown batch codec {codec}")
    try:
        import zstandard  # noqa: PLC0415 - an optional dependency, loaded by the first compressed batch
    except ImportError as error:
        raise CodecUnavailable("zstd batches need the extra: pip install 'planaria[zstd]'") from error
    return zstandard
