"""Inline records: their range, and the handling of an undecodable batch."""

import pytest

from planaria.transport.batch import HEADER_BYTES, LOG_APPEND_TIME, build, checksum, stamp
from planaria.transport.compression import CODEC_ZSTD
from planaria.transport.fetched_records import MAX_INLINE_BYTES, decode_for_json
from planaria.transport.protocol.errors import ProtocolError


def a_run(*batches: list[bytes]) -> bytes:
    run, offset = b"", 0
    for values in batches:
        records = [(None, value, index, {"n": "1"}) for index, value in enumerate(values)]
        frame = build(records, first_timestamp_ms=1_000, max_timestamp_ms=1_009)
        run += stamp(frame, offset, 0)
        offset += len(values)
    return run


def with_body(body: bytes, offset: int, count: int = 1, attributes: int = 0) -> bytes:
    """Return a valid batch around invalid records."""
    frame = build([(None, b"", 0, None)] * count, first_timestamp_ms=0, max_timestamp_ms=0)
    described = frame[24:25] + bytes([attributes]) + frame[26:HEADER_BYTES] + body
    head = frame[:12] + len(described).to_bytes(4, "big") + checksum(described).to_bytes(4, "big")
    return bytes(stamp(head + frame[20:24] + described, offset, 0))


RUN = a_run([b"a", b"b"], [b"c"], [b"d", b"e"])


@pytest.mark.parametrize(
    ("offset", "max_records", "max_bytes", "values", "next_offset"),
    [
        (0, 100, 100, b"abcde", 5),
        (1, 100, 100, b"bcde", 5),
        (2, 1, 100, b"c", 3),
        (0, 3, 100, b"abc", 3),
        (3, 100, 100, b"de", 5),
        (0, 100, 2, b"ab", 2),
        (1, 100, 0, b"b", 2),
        (5, 100, 100, b"", 5),
    ],
)
def test_bounds(offset: int, max_records: int, max_bytes: int, values: bytes, next_offset: int) -> None:
    records, found_next = decode_for_json(RUN, offset, max_records, max_bytes)
    assert b"".join(record.value or b"" for record in records) == values
    assert [record.offset for record in records] == list(range(offset, offset + len(values)))
    assert found_next == next_offset


def test_record_fields() -> None:
    records, _ = decode_for_json(a_run([b"\xff", "é".encode()]), 0, 10, 1_000)
    assert [(each.value, each.value_text, each.timestamp_ms) for each in records] == [
        (b"\xff", None, 1_000),
        ("é".encode(), "é", 1_001),
    ]
    assert (records[0].key, records[0].key_text, records[0].headers) == (None, None, {"n": "1"})


def test_log_append_time_is_the_time_of_all() -> None:
    frame = build(
        [(None, b"a", 5, None)], first_timestamp_ms=1, max_timestamp_ms=77, attributes=LOG_APPEND_TIME
    )
    assert decode_for_json(stamp(frame, 0, 0), 0, 10, 10)[0][0].timestamp_ms == 77


def test_impossible_times_are_a_damaged_batch() -> None:
    frame = build([(None, b"", 2**64 - 1, None)], first_timestamp_ms=2**63 - 1, max_timestamp_ms=0)
    with pytest.raises(ProtocolError, match="INVALID_BATCH"):
        decode_for_json(stamp(frame, 0, 0), 0, 10, 10)


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        (b"", 0),
        (b"\x92\xc0\xc0", 0),
        (b"\x91\x94\xc0\xc4\x01a\x00\x81\xa1\xff\xa1a", 0),  # a header's name that is not UTF-8
        (b"\x91\x94\xc0\xc4\x01a\xcf" + b"\xff" * 8 + b"\xc0", 0),  # a time beyond all calendars
        (b"\x91" * 100_000, 0),
        (b"no zstd frame", 1),
        (
            b"\x28\xb5\x2f\xfd\xe0" + (2**50).to_bytes(8, "little") + b"\x01\x00\x00",
            1,
        ),  # claims a petabyte
        (b"", 7),
    ],
)
def test_contents_that_cannot_be_opened_hide_nothing_before_them(body: bytes, attributes: int) -> None:
    run = RUN + with_body(body, 5, attributes=attributes) + bytes(stamp(a_run([b"z"]), 6, 0))
    assert decode_for_json(run, 3, 100, 100)[1] == 5
    with pytest.raises(ProtocolError, match=r"at offset 5 .the next one is at 6.") as raised:
        decode_for_json(run, 5, 100, 100)
    assert raised.value.code == "INVALID_BATCH"
    assert decode_for_json(run, 6, 100, 100)[1] == 7


def test_damage_is_not_the_producers_fault() -> None:
    with pytest.raises(ProtocolError) as raised:
        decode_for_json(RUN[:-1] + b"?", 3, 100, 100)
    assert raised.value.code == "CORRUPT_LOG"


def test_a_length_that_cannot_be_is_damage_too() -> None:
    rotten = RUN[:12] + (7).to_bytes(4, "big") + RUN[16:]
    with pytest.raises(ProtocolError, match="batches from offset 1 on: batch length 7") as raised:
        decode_for_json(rotten, 1, 100, 100)
    assert raised.value.code == "CORRUPT_LOG"


def test_nobody_gets_more_inline_than_the_one_limit() -> None:
    run = a_run(*[[bytes(MAX_INLINE_BYTES // 2)]] * 3)
    records, next_offset = decode_for_json(run, 0, 100, 2**40)
    assert (len(records), next_offset) == (2, 2)


def test_all_taken_is_to_go_on_behind_the_gap_that_compaction_left() -> None:
    run = a_run([b"a", b"b"])
    assert decode_for_json(run, 0, 100, 100, end_offset=9)[1] == 9
    assert decode_for_json(run, 0, 1, 100, end_offset=9)[1] == 1
    assert decode_for_json(b"", 4, 100, 100, end_offset=9) == ([], 9)


def test_what_is_opened_for_one_reply_is_bounded_in_unpacked_bytes() -> None:
    zstandard = pytest.importorskip("zstandard")
    assert zstandard
    # Headers count neither as keys nor as values, and 64 KiB of them take a hundred bytes on the wire.
    headers = {"h": "x" * (1024 * 1024)}
    one = build(
        [(None, b"", 0, headers)] * 8, first_timestamp_ms=0, max_timestamp_ms=0, attributes=CODEC_ZSTD
    )
    run = b"".join(bytes(stamp(one, 8 * index, 0)) for index in range(100))
    records, next_offset = decode_for_json(run, 0, 10_000, 1_000_000)
    assert (len(records), next_offset) == (16, 16)


def test_only_the_records_asked_for_are_made() -> None:
    run = a_run([b"x"] * 50_000)
    records, next_offset = decode_for_json(run, 49_990, 3, 1_000)
    assert [record.offset for record in records] == [49_990, 49_991, 49_992]
    assert next_offset == 49_993
