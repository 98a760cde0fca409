"""A batch's cost to readers is bounded on entry: records and unpacked bytes, not only bytes on the wire."""

import pytest

from planaria.actors.partition.validation import validated
from planaria.transport.batch import BatchHeader, Record, build, checksum
from planaria.transport.compression import CODEC_LZ4, CODEC_ZSTD
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.topics import TopicConfig

CONFIG = TopicConfig(max_records_per_batch=20_000, max_unpacked_bytes=1024 * 1024)


def a_batch(records: list[Record], attributes: int = 0) -> bytes:
    return build(records, first_timestamp_ms=1, max_timestamp_ms=1, attributes=attributes)


def with_count(frame: bytes, count: int) -> bytes:
    """Return the batch with another record count in its header, sealed again."""
    described = frame[24:26] + count.to_bytes(4, "big") + frame[30:]
    return frame[:16] + checksum(described).to_bytes(4, "big") + frame[20:24] + described


def refusal(frame: bytes) -> ErrorBody | None:
    judged = validated(frame, CONFIG)
    return judged if isinstance(judged, ErrorBody) else None


CODECS = [pytest.param(CODEC_ZSTD, "zstandard", id="zstd"), pytest.param(CODEC_LZ4, "lz4", id="lz4")]


@pytest.mark.parametrize("attributes", [0, CODEC_ZSTD], ids=["plain", "zstd"])
def test_records_are_counted(attributes: int) -> None:
    if attributes:
        pytest.importorskip("zstandard")
    tiny: Record = (None, None, 0, None)
    assert isinstance(validated(a_batch([tiny] * 20_000, attributes), CONFIG), BatchHeader)
    refused = refusal(a_batch([tiny] * 20_001, attributes))
    assert refused is not None
    assert refused.code == ErrorCode.MESSAGE_TOO_LARGE
    assert refused.message == "the batch has 20001 records, the topic accepts 20000"


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_unpacked_bytes_are_counted(codec: int, library: str) -> None:
    pytest.importorskip(library)
    at_most = 1024 * 1024
    overhead = len(a_batch([(None, bytes(at_most // 2), 0, None)])) - 60 - at_most // 2
    fits = a_batch([(None, bytes(at_most - overhead), 0, None)], codec)
    assert isinstance(validated(fits, CONFIG), BatchHeader)
    refused = refusal(a_batch([(None, bytes(at_most - overhead + 1), 0, None)], codec))
    assert refused is not None
    assert refused.code == ErrorCode.MESSAGE_TOO_LARGE
    assert "unpacks to 1048577 bytes" in refused.message


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_count_that_the_contents_cannot_back_is_refused(codec: int, library: str) -> None:
    pytest.importorskip(library)
    good = a_batch([(None, b"value", 0, None)] * 10, codec)
    refused = refusal(with_count(good, 10_000))
    assert refused is not None
    assert refused.code == ErrorCode.INVALID_BATCH


def without_size(library: str, data: bytes) -> bytes:
    """Return a frame that does not state the size of its contents."""
    if library == "lz4":
        return bytes(pytest.importorskip("lz4.frame").compress(data, store_size=False))
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor(write_content_size=False).compress(data))


@pytest.mark.parametrize(("codec", "library"), CODECS)
def test_a_compressed_batch_states_its_size(codec: int, library: str) -> None:
    plain = a_batch([(None, b"value", 0, None)])
    body = without_size(library, plain[60:])
    described = plain[24:25] + bytes([codec]) + plain[26:60] + body
    head = plain[:12] + len(described).to_bytes(4, "big") + checksum(described).to_bytes(4, "big")
    refused = refusal(head + plain[20:24] + described)
    assert refused is not None
    assert refused.code == ErrorCode.INVALID_BATCH
    assert "states the size" in refused.message
