"""Records that compaction keeps of batches, against a dictionary."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.journal.identity import identity_of
from planaria.actors.log.key_map import KeyMap
from planaria.actors.log.survivors import records_of, rewritten, survivors
from planaria.transport.batch import (
    CONTROL,
    LOG_APPEND_TIME,
    SEQUENCE_LIMIT,
    BatchHeader,
    build,
    decode_records,
    is_head_intact,
    parse_header,
    stamp,
    verify,
)
from planaria.transport.compression import CODEC_ZSTD

KEYS = st.none() | st.sampled_from([b"a", b"b", b"c", b"x" * 31, b"x" * 32, b"y" * 500])
RECORDS = st.lists(
    st.tuples(KEYS, st.none() | st.binary(max_size=3), st.integers(-5, 5)), min_size=1, max_size=12
)


def a_batch(
    base_offset: int, records: list[tuple[Any, Any, int]], **fields: Any
) -> tuple[BatchHeader, bytes]:
    rows = [(key, value, delta, {"n": "1"} if delta > 3 else None) for key, value, delta in records]
    fields = {"first_timestamp_ms": 1_000, "max_timestamp_ms": 1_004, **fields}
    frame = bytes(stamp(build(rows, **fields), base_offset, 7))
    return parse_header(frame), frame


def never(_: int) -> bool:
    return False


@given(st.lists(RECORDS, min_size=1, max_size=6), st.integers(0, 3), st.booleans())
def test_the_newest_of_each_key_and_nothing_else(
    batches: list[list[tuple[Any, Any, int]]], gap: int, is_expired: bool
) -> None:
    keys, stamped, flat, offset = KeyMap(), [], {}, 0
    for records in batches:
        header, frame = a_batch(offset, records, producer_id=4, producer_epoch=2, base_sequence=offset)
        keys.add(header, decode_records(frame, header))
        stamped.append((header, frame))
        flat.update(enumerate(records, offset))
        offset = header.next_offset + gap
    last = {record[0]: at for at, record in flat.items()}
    expected = {
        at: record
        for at, record in flat.items()
        if record[0] is None or (last[record[0]] == at and not (is_expired and record[1] is None))
    }
    found = {}
    for header, frame in stamped:
        records = decode_records(frame, header)
        kept = survivors(header, records, keys, lambda _: is_expired)
        runs = rewritten(header, records, kept)
        for run in runs:
            again = verify(run)
            assert is_head_intact(run)
            assert (again.leader_epoch, again.producer_id, again.producer_epoch) == (7, 4, 2)
            assert again.base_sequence == again.base_offset, "each record keeps its sequence"
            assert again.first_timestamp_ms == 1_000
            rows = decode_records(run, again)
            assert again.max_timestamp_ms == min(1_004, 1_000 + max(row[2] for row in rows))
            for at, row in enumerate(rows, again.base_offset):
                found[at] = row[:3]
                assert row[3] == ({"n": "1"} if row[2] > 3 else None)
        ends = [verify(run) for run in runs]
        assert all(left.next_offset < right.base_offset for left, right in pairwise(ends))
    assert found == expected


def test_a_map_that_is_full_says_so_and_what_it_does_not_know_stays() -> None:
    keys = KeyMap(limit=2)
    header, frame = a_batch(0, [(b"a", b"", 0), (b"b", b"", 0), (b"c", b"", 0)])
    keys.add(header, decode_records(frame, header))
    assert keys.is_full
    assert len(keys) == 3
    header, frame = a_batch(5, [(b"a", b"", 0), (b"z", b"", 0)])
    assert survivors(header, decode_records(frame, header), keys, never) == [0, 1]


def test_sequences_wrap_and_batches_without_a_producer_have_none() -> None:
    records = [(b"a", b"1", 0), (b"a", b"2", 0), (b"b", b"", 0)]
    header, frame = a_batch(10, records, producer_id=1, producer_epoch=0, base_sequence=SEQUENCE_LIMIT - 1)
    (run,) = rewritten(header, decode_records(frame, header), [1, 2])
    assert verify(run).base_sequence == 0
    header, frame = a_batch(10, records)
    (run,) = rewritten(header, decode_records(frame, header), [1, 2])
    assert verify(run).base_sequence == -1


def test_a_coordinators_record_is_replaced_by_its_own_group_alone() -> None:
    own, other = identity_of("coordinator/billing", 0), identity_of("coordinator/audit", 0)
    first, frame = a_batch(
        0, [(b"k", b"1", 0)], producer_id=own.producer_id, producer_epoch=0, base_sequence=0
    )
    keys = KeyMap()
    for offset, producer_id in ((1, -1), (2, other.producer_id), (3, 5)):
        header, later = a_batch(offset, [(b"k", b"2", 0)], producer_id=producer_id)
        keys.add(header, decode_records(later, header))
    assert survivors(first, decode_records(frame, first), keys, never) == [0]
    header, later = a_batch(
        4, [(b"k", b"3", 0)], producer_id=identity_of("coordinator/billing", 40_000).producer_id
    )
    keys.add(header, decode_records(later, header))
    assert survivors(first, decode_records(frame, first), keys, never) == []


def test_what_is_not_compactions_business() -> None:
    header, frame = a_batch(0, [(b"a", b"", 0)], attributes=CONTROL)
    assert records_of(frame, header) is None
    nonsense = bytearray(a_batch(0, [(b"a", b"", 0)])[1])
    nonsense[60] = 0xC1
    assert records_of(bytes(nonsense), parse_header(nonsense)) is None


@pytest.mark.parametrize("delta", [2**62, -(2**62)])
def test_times_that_no_clock_shows_break_nothing(delta: int) -> None:
    records = [(b"a", b"", delta), (b"b", b"", delta), (b"a", b"", delta)]
    header, frame = a_batch(0, records, first_timestamp_ms=delta * 2 if delta < 0 else delta)
    (run,) = rewritten(header, decode_records(frame, header), [1, 2])
    assert verify(run).max_timestamp_ms <= 1_004


def test_the_leaders_time_and_the_codec_stay() -> None:
    pytest.importorskip("zstandard")
    records = [(b"a", b"1" * 100, 0), (b"a", b"2" * 100, 0)]
    header, frame = a_batch(0, records, attributes=CODEC_ZSTD | LOG_APPEND_TIME)
    (run,) = rewritten(header, decode_records(frame, header), [1])
    again = verify(run)
    assert (again.attributes, again.max_timestamp_ms) == (CODEC_ZSTD | LOG_APPEND_TIME, 1_004)
    assert [row[1] for row in decode_records(run, again)] == [b"2" * 100]
