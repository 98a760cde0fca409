"""The record batch: built batches are read back, and all damage is detected."""

import random
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from planaria.transport import batch, compression
from planaria.transport.batch import HEADER_BYTES, InvalidBatch, Record
from planaria.transport.compression import CODEC_LZ4, CODEC_ZSTD, CodecUnavailable

RECORDS: list[Record] = [(b"k", b"v", 0, {"h": "\u2713"}), (None, None, 5, None), (b"", b"", -1, {})]

records_strategy = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=300),
        st.integers(-(2**63), 2**64 - 1),
        st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    ),
    min_size=1,
    max_size=40,
)


def build(records: list[Record] = RECORDS, **fields: int) -> bytes:
    return batch.build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_005, **fields)


@given(records_strategy, st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1))
def test_what_is_built_is_read_back(
    records: list[Record], producer_id: int, epoch: int, sequence: int
) -> None:
    frame = build(records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
    header = batch.verify(frame)
    assert batch.decode_records(frame, header) == records
    assert header.size_bytes == len(frame)
    assert (header.record_count, header.first_timestamp_ms, header.max_timestamp_ms) == (
        len(records),
        1_000,
        1_005,
    )
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (producer_id, epoch, sequence)


PARTS = st.lists(st.integers(1, 40) | st.sampled_from([15, 16, 17]), min_size=1, max_size=6)


@given(PARTS, st.integers(0, 300))
def test_records_added_in_parts_are_one_array(parts: list[int], size_bytes: int) -> None:
    records = [(b"%d" % number, bytes(size_bytes), number, None) for number in range(sum(parts))]
    made, end, tail, first = batch.blank_batch(), batch.RECORDS_START, batch.BLANK_TAIL, 0
    for count in parts:
        batch.add_records(made, end, tail, records[first : first + count])
        end, tail, first = len(made), bytes(made[-batch.ARRAY_HEAD_BYTES :]), first + count
    fields = {"first_timestamp_ms": 7, "max_timestamp_ms": 9, "attributes": 0}
    numbers = {"producer_id": 5, "producer_epoch": 3, "base_sequence": 1}
    frame = batch.completed(made, len(records), **fields, **numbers)
    assert frame == assembled(records, 7, 9, 5, 3, 1)
    assert frame == batch.build(records, **fields, **numbers)


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_the_head_of_the_array_is_the_shortest(count: int) -> None:
    records: list[Record] = [(None, None, 0, None)] * count
    assert build(records) == assembled(records, 1_000, 1_005, -1, -1, -1)


def assembled(records: list[Record], first_ms: int, latest_ms: int, *numbers: int) -> bytes:
    """Return the batch as the ruler of `batch.py` describes it."""
    body = struct.pack(">BBIqqqhi", 1, 0, len(records), first_ms, latest_ms, *numbers) + msgpack.encode(
        records
    )
    head = struct.pack(">qiII", 0, -1, len(body), crc32c(body))
    return head + struct.pack(">I", crc32c(head)) + body


def crc32c(data: bytes) -> int:
    """The definition: the remainder by the Castagnoli polynomial, bits reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_OF_BYTE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def remainder(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC_OF_BYTE = [remainder(byte) for byte in range(256)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_checksum_is_that_of_the_rfc(kind: Callable[[bytes], Any]) -> None:
    assert batch.checksum(kind(b"123456789")) == 0xE3069283
    assert batch.checksum(kind(bytes(32))) == 0x8A9136AA


def test_every_single_flipped_bit_is_noticed() -> None:
    frame = batch.stamp(build(RECORDS[:2]), 12, 3)
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        assert is_refused(damaged), f"bit {bit} was flipped unseen"
    assert not is_refused(frame)


def is_refused(frame: bytearray) -> bool:
    """Return True if a reader of a stored batch refuses it."""
    try:
        batch.verify(frame)
    except InvalidBatch:
        return True
    return not batch.is_head_intact(frame)


def test_an_intact_batch_is_not_suspected() -> None:
    frame = batch.stamp(build(), 12, 3)
    assert batch.is_head_intact(frame)
    assert batch.is_head_intact(b"other bytes" + frame, 11)
    assert batch.is_head_intact(build())


@pytest.mark.parametrize("length", range(HEADER_BYTES + 10))
def test_a_batch_cut_short_is_refused(length: int) -> None:
    with pytest.raises(InvalidBatch):
        batch.verify(build()[:length])


def test_stamping_leaves_the_producers_part_alone() -> None:
    frame = build()
    stamped = batch.stamp(frame, 2**40, 7)
    header = batch.verify(stamped)
    assert (header.base_offset, header.leader_epoch) == (2**40, 7)
    assert header.next_offset == 2**40 + 3
    assert stamped[24:] == frame[24:]
    assert stamped[12:20] == frame[12:20]
    assert batch.stamped_head(batch.verify(frame), 2**40, 7) == stamped[:24]


def test_sequences_wrap() -> None:
    header = batch.verify(build(producer_id=1, producer_epoch=0, base_sequence=2**31 - 2))
    assert header.last_sequence == 0


def test_a_batch_of_nothing_and_one_of_another_version_are_refused() -> None:
    with pytest.raises(InvalidBatch, match="at least one"):
        batch.verify(build([]))
    newer = bytearray(build())
    newer[24] = 2
    with pytest.raises(InvalidBatch, match="magic is 2"):
        batch.verify(newer)


@pytest.mark.parametrize(
    "records",
    [
        ["a longer text"],
        [{"key": b"k"}],
        [(b"k", b"v", 0)],
        [("text", b"v", 0, None)],
        [(b"k", b"v", 0.5, None)],
        [(b"k", b"v", None, None)],
        [(b"k", b"v", 0, {"h": b"bytes"})],
    ],
    ids=str,
)
def test_records_of_another_shape_are_refused(records: list[Any]) -> None:
    frame = build(records)
    header = batch.verify(frame)
    with pytest.raises(InvalidBatch, match="cannot be decoded"):
        batch.decode_records(frame, header)


def reseal(frame: bytes, body: bytes, record_count: int, attributes: int = 0) -> bytes:
    """Return a batch with a valid checksum over any body."""
    forged = bytearray(frame[:HEADER_BYTES] + body)
    forged[25] = attributes
    struct.pack_into(">I", forged, 26, record_count)
    struct.pack_into(">I", forged, 12, len(forged) - 24)
    struct.pack_into(">I", forged, 16, batch.checksum(forged[24:]))
    return bytes(forged)


@pytest.mark.parametrize(
    ("body", "record_count"),
    [
        (build()[HEADER_BYTES:], 2),
        (b"", 1),
        (b"\x91" * 100_000, 1),
        (b"\xdd\xff\xff\xff\xff", 2**32 - 1),
        (b"\x91\x94\xc0\xc0\x00\x81\xa1\xff\xa1x", 1),
        (build()[HEADER_BYTES:] + b"\x00", 3),
    ],
    ids=[
        "another count",
        "nothing",
        "nested deeply",
        "announced and not there",
        "not UTF-8",
        "more than the records",
    ],
)
def test_contents_that_belie_the_header_are_refused(body: bytes, record_count: int) -> None:
    frame = reseal(build(), body, record_count)
    header = batch.verify(frame)
    with pytest.raises(InvalidBatch):
        batch.decode_records(frame, header)


def test_split_finds_whole_batches_and_leaves_a_cut_one_out() -> None:
    frames = [bytes(batch.stamp(build(RECORDS[:n]), n * 10, 0)) for n in (1, 2, 3)]
    run = b"".join(frames)
    whole = batch.split(run)
    assert [bytes(view) for _, view in whole] == frames
    assert [header.base_offset for header, _ in whole] == [10, 20, 30]
    for cut in range(1, len(frames[2])):
        assert [bytes(view) for _, view in batch.split(run[:-cut])] == frames[:2]
    assert batch.split(b"") == []


def test_split_does_not_stand_still() -> None:
    endless = bytearray(build())
    struct.pack_into(">I", endless, 12, 0)
    with pytest.raises(InvalidBatch, match="shorter than a header"):
        batch.split(endless)


def test_split_survives_any_bytes(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(2_000):
        data = random_.randbytes(random_.randrange(200))
        try:
            found = batch.split(data)
        except InvalidBatch:
            continue
        assert sum(len(view) for _, view in found) <= len(data)


# Compression.


@pytest.mark.parametrize(("codec", "library"), [(CODEC_ZSTD, "zstandard"), (CODEC_LZ4, "lz4")])
def test_compressed_records_are_read_back(codec: int, library: str) -> None:
    pytest.importorskip(library)
    records: list[Record] = [(b"key", b"value " * 100, 0, None)] * 50
    frame = build(records, attributes=codec)
    assert len(frame) < len(build(records)) / 10
    assert batch.decode_records(frame, batch.verify(frame)) == records


@pytest.mark.parametrize(
    ("codec", "library", "extra"), [(CODEC_ZSTD, "zstandard", "zstd"), (CODEC_LZ4, "lz4.frame", "lz4")]
)
def test_without_the_library_the_error_says_which_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, codec: int, library: str, extra: str
) -> None:
    frame = reseal(build(), b"compressed", 1, codec)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CodecUnavailable, match=rf"planaria\[{extra}\]"):
        build(attributes=codec)
    with pytest.raises(CodecUnavailable, match=rf"planaria\[{extra}\]"):
        batch.decode_records(frame, batch.verify(frame))


def test_an_unknown_codec_is_refused() -> None:
    frame = reseal(build(), b"whatever", 1, 5)
    with pytest.raises(InvalidBatch, match="unknown batch codec 5"):
        batch.decode_records(frame, batch.verify(frame))


def test_no_reader_unpacks_or_decodes_more_than_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the partition accepted: its topic may have had other limits."""
    pytest.importorskip("zstandard")
    frame = build([(None, b"value", 0, None)] * 200, attributes=CODEC_ZSTD)
    header = batch.verify(frame)
    assert len(batch.decode_records(frame, header)) == 200
    with monkeypatch.context() as patch:
        patch.setattr(batch, "MAX_RECORDS_PER_BATCH", 199)
        with pytest.raises(InvalidBatch, match="at most 199 are read"):
            batch.decode_records(frame, header)
    unpacked = batch.unpacked_bytes(frame, header)
    assert unpacked is not None
    monkeypatch.setattr(compression, "MAX_UNPACKED_BYTES", unpacked - 1)
    with pytest.raises(InvalidBatch, match=f"the limit is {unpacked - 1}"):
        batch.decode_records(frame, header)


@pytest.mark.parametrize("states_its_size", [True, False])
def test_a_little_that_becomes_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch, states_its_size: bool
) -> None:
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr(compression, "MAX_UNPACKED_BYTES", 10_000)
    body = zstandard.ZstdCompressor(write_content_size=states_its_size).compress(bytes(1_000_000))
    frame = reseal(build(), body, 1, CODEC_ZSTD)
    with pytest.raises(InvalidBatch):
        batch.decode_records(frame, batch.verify(frame))


def test_contents_with_other_records_than_the_header_says_are_refused_undecoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("zstandard")
    monkeypatch.setattr(batch, "_decode_tuples", None)
    monkeypatch.setattr(batch, "_decode_fields", None)
    many = build([(None, None, 0, None)] * 5_000, attributes=CODEC_ZSTD)[HEADER_BYTES:]
    for count in (1, 4_999, 5_001, batch.MAX_RECORDS_PER_BATCH + 1):
        frame = reseal(build(), many, count, CODEC_ZSTD)
        for decode in (batch.decode_records, batch.decode_fields):
            with pytest.raises(InvalidBatch, match=f"batch says {count} records"):
                decode(frame, batch.verify(frame))


def test_damaged_compression_is_refused(seed: int) -> None:
    pytest.importorskip("zstandard")
    random_ = random.Random(seed)
    good = build([(b"key", b"value " * 20, 0, None)] * 9, attributes=CODEC_ZSTD)[HEADER_BYTES:]
    for _ in range(500):
        body = bytearray(good)
        body[random_.randrange(len(body))] ^= 1 << random_.randrange(8)
        frame = reseal(build(), bytes(body[: random_.randrange(len(body) + 1)]), 9, CODEC_ZSTD)
        try:
            batch.decode_records(frame, batch.verify(frame))
        except InvalidBatch:
            continue


def test_checksum_is_castagnolis() -> None:
    # RFC 3720, appendix B.4, and the check value of every catalogue.
    assert batch.checksum(b"123456789") == 0xE3069283
    assert batch.checksum(bytes(32)) == 0x8A9136AA
    assert batch.checksum(memoryview(b"\xff" * 32)) == 0x62A8AB43


def test_a_judged_batch_states_its_size_and_backs_its_record_count() -> None:
    records = [(None, b"value " * 20, 0, None)] * 9
    plain = build(records)
    assert batch.judge(plain) == batch.Judged(batch.verify(plain), len(plain) - HEADER_BYTES)
    for count in (8, 10):
        with pytest.raises(InvalidBatch, match="its contents do not"):
            batch.judge(reseal(plain, plain[HEADER_BYTES:], count, 0))
    with pytest.raises(InvalidBatch, match="unknown batch codec 7"):
        batch.judge(reseal(plain, plain[HEADER_BYTES:], 9, 7))


def test_a_judged_batch_is_not_decompressed() -> None:
    pytest.importorskip("zstandard")
    records = [(None, b"value " * 20, 0, None)] * 9
    packed = build(records, attributes=CODEC_ZSTD)
    assert batch.judge(packed) == batch.Judged(batch.verify(packed), len(build(records)) - HEADER_BYTES)
    body = packed[HEADER_BYTES:]
    with pytest.raises(InvalidBatch, match="states the size"):
        batch.judge(reseal(packed, b"\0" + body[1:], 9, CODEC_ZSTD))
    with pytest.raises(InvalidBatch, match="do not fit"):
        batch.judge(reseal(packed, body, 1_000, CODEC_ZSTD))
    damaged = reseal(packed, body[:-1] + b"\0", 9, CODEC_ZSTD)
    assert batch.judge(damaged).unpacked_bytes == len(build(records)) - HEADER_BYTES
