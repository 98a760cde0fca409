"""Compaction of real logs: its result, reads of it, and the effects of crashes, damage and deletion meanwhile."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from faulty_files import FaultyFiles
from keyed_logs import (
    DAY_MS,
    Written,
    append_keyed,
    compact,
    config,
    expected,
    filled,
    held,
    in_batches,
    newest,
    opened,
    seal,
    sealed_end,
)
from log_batches import NOW_MS, abandon, flip
from planaria.actors.log import compaction_pass, survivors
from planaria.actors.log.cleaned import CLEANED_SUFFIX, Cleaned, CleanMark
from planaria.actors.log.log import PartitionLog
from planaria.transport.compression import CODEC_ZSTD, CodecUnavailable


def test_of_each_key_the_newest_is_left_where_it_was(tmp_path: Path) -> None:
    log = opened(tmp_path)
    written = filled(log)
    size_bytes, segments = log.size_bytes, log.segment_count
    assert compact(log) > 0
    assert held(log) == expected(log, written)
    assert sealed_end(log) >= 200
    assert len(held(log)) == 4 + 2, "a square leaves four remainders"
    assert log.size_bytes < size_bytes / 5
    assert log.log_end_offset == 202
    for _ in range(4):  # segments that became small are merged by the next pass
        written |= filled(log)
        compact(log)
        assert held(log) == expected(log, written)
    assert log.segment_count < 2 * segments, "five times as much was written"
    assert not log.verify()
    log.close()
    again = opened(tmp_path)
    assert held(again) == expected(again, written)
    assert not again.verify()
    abandon(again)


@pytest.mark.parametrize("max_bytes", [1, 300, 1 << 20])
def test_every_offset_can_be_read_from(tmp_path: Path, max_bytes: int) -> None:
    log = opened(tmp_path)
    written = filled(log)
    compact(log)
    left = expected(log, written)
    for is_again in (False, True):
        for offset in range(log.log_end_offset):
            wanted = {at: record for at, record in left.items() if at >= offset}
            assert held(log, offset, max_bytes) == wanted, (offset, is_again)
        abandon(log)
        log = opened(tmp_path)
    abandon(log)


def test_a_log_of_which_nothing_is_left_but_its_end_is_read_to_its_end(tmp_path: Path) -> None:
    log = opened(tmp_path, delete_retention_ms=0)
    for batch in in_batches(((b"k", None) for _ in range(300)), 10):
        append_keyed(log, batch)
    written = seal(log)
    compact(log)
    compact(log, NOW_MS + 1)
    left = {at: record for at, record in written.items() if at >= 300}
    for offset in (0, 1, 150, 299, 300):
        assert held(log, offset) == left
    assert log.offset_for_timestamp(0) == (300, NOW_MS)
    assert not log.verify()
    abandon(log)
    again = opened(tmp_path)
    assert held(again) == left
    assert again.last_leader_epoch == 0
    abandon(again)


@examples(25)
@given(
    st.randoms(use_true_random=False), st.sampled_from([3, 10, 1000]), st.sampled_from([300, 1_000, 10_000])
)
def test_random_histories(draw: random.Random, map_limit: int, segment_bytes: int) -> None:
    """Against a dictionary: appends, slices of compaction, kills and restarts in any order."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction_pass, "KEYS_LIMIT", map_limit)
        log = opened(Path(directory), segment_bytes=segment_bytes)
        written: Written = {}
        for _ in range(draw.randint(5, 40)):
            step = draw.random()
            if step < 0.6:
                keys = [
                    draw.choice([None, b"a", b"b", b"c", b"d", b"e" * 40]) for _ in range(draw.randint(1, 20))
                ]
                written |= append_keyed(log, [(key, draw.choice([None, b"v" * 20])) for key in keys])
            elif step < 0.75:
                written |= seal(log)
            elif step < 0.9:
                for _ in range(draw.randint(1, 30)):
                    log.compact(NOW_MS, 1)
            else:
                if draw.random() < 0.5:
                    log.close()
                else:
                    abandon(log)
                log = opened(Path(directory), segment_bytes=segment_bytes)
            check(log, written)
        written |= seal(log)
        compact(log)
        assert held(log) == expected(log, written)
        check(log, written)
        abandon(log)


def check(log: PartitionLog, written: Written) -> None:
    found = held(log)
    assert found.items() <= written.items()
    must = newest(written)
    assert must.keys() <= found.keys(), "the newest of each key always survives"
    assert not log.verify()


def test_more_keys_than_a_map_takes_are_more_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_pass, "KEYS_LIMIT", 10)
    log = opened(tmp_path)
    written = filled(log, count=400, keys=97)
    compact(log)
    assert len(log._compactor.cleaned.marks) > 3
    assert held(log) == expected(log, written)
    abandon(log)


def test_records_without_a_key_stay(tmp_path: Path) -> None:
    log = opened(tmp_path)
    written = append_keyed(log, [(None, b"1"), (b"a", b"2"), (None, b"3"), (b"a", b"4")]) | seal(log)
    compact(log)
    assert held(log) == {offset: written[offset] for offset in (0, 2, 3, 4, 5)}
    abandon(log)


# -- tombstones


def test_a_tombstone_stays_for_its_time_and_takes_what_it_deletes_at_once(tmp_path: Path) -> None:
    log = opened(tmp_path, delete_retention_ms=DAY_MS)
    written = append_keyed(log, [(b"a", b"1"), (b"b", b"2")])
    written |= append_keyed(log, [(b"a", None)]) | seal(log)
    compact(log)
    assert held(log) == {offset: written[offset] for offset in (1, 2, 3, 4)}
    compact(log, NOW_MS + DAY_MS - 1)
    assert 2 in held(log)
    abandon(log)
    log = opened(tmp_path, delete_retention_ms=DAY_MS)
    compact(log, NOW_MS + DAY_MS)
    assert sorted(held(log)) == [1, 3, 4]
    assert not log.compact(NOW_MS + 10 * DAY_MS, 1)
    abandon(log)


def test_passes_that_come_often_do_not_keep_a_tombstone_for_ever(tmp_path: Path) -> None:
    log = opened(tmp_path, delete_retention_ms=1_000)
    append_keyed(log, [(b"a", None)])
    for number in range(12):
        now_ms = NOW_MS + number * 100
        append_keyed(log, [(b"b", b"x" * 300)] * 3, now_ms)
        seal(log, now_ms)
        compact(log, now_ms)
        assert (0 in held(log)) == (number < 10), number
    abandon(log)


def test_a_tombstone_stays_above_what_could_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path, delete_retention_ms=0)
    written = append_keyed(log, [(b"a", b"old")])
    log.sync()
    log._roll()
    written |= append_keyed(log, [(b"a", None), (b"b", b"1"), (b"b", b"2")]) | seal(log)
    true_records_of = survivors.records_of

    def unavailable(frame: bytes, header: Any) -> Any:
        if header.base_offset == 0:
            raise CodecUnavailable("no zstd here")
        return true_records_of(frame, header)

    monkeypatch.setattr(compaction_pass, "records_of", unavailable)
    compact(log)
    assert sorted(held(log)) == [0, 1, 3, 4, 5]
    abandon(log)
    monkeypatch.undo()
    log = opened(tmp_path, delete_retention_ms=0)
    filled(log)
    compact(log, NOW_MS + DAY_MS)
    assert held(log)[0] == (b"a", b"old")
    assert held(log)[1] == (b"a", None), "what it deletes is still there"
    abandon(log)


def test_marks_are_few_and_never_speak_too_early() -> None:
    cleaned = Cleaned()
    for number in range(1, 1_000):
        cleaned = cleaned.with_mark(CleanMark(number * 10, number), number - 500)
        assert len(cleaned.marks) <= 101
        for offset in range(0, number * 10, 97):
            since = cleaned.clean_since(offset)
            assert since is not None
            assert since >= offset // 10 + 1
        assert cleaned.clean_since(number * 10) is None
    assert cleaned.with_mark(CleanMark(9_990, 5_000), 2_000).marks == (CleanMark(9_990, 999),)


# -- when it is due


def test_it_waits_for_enough_that_is_new(tmp_path: Path) -> None:
    log = opened(tmp_path, min_cleanable_ratio=0.5)
    for batch in in_batches(((b"%d" % number, b"v" * 50) for number in range(100)), 5):
        append_keyed(log, batch)
    seal(log)
    assert compact(log) > 0
    append_keyed(log, [(b"1", b"v" * 50)] * 10)
    seal(log)
    assert compact(log) == 0
    log.reconfigure(config(min_cleanable_ratio=0.01))
    assert compact(log) > 0
    abandon(log)


def test_it_leaves_the_active_segment_the_young_and_what_only_one_snapshot_covers(tmp_path: Path) -> None:
    log = opened(tmp_path, min_compaction_lag_ms=1_000)
    written = append_keyed(log, [(b"a", b"1"), (b"a", b"2")])
    assert compact(log, NOW_MS + DAY_MS) == 0
    log.sync()
    log._roll()
    assert compact(log, NOW_MS + DAY_MS) == 0, (
        "if that snapshot is lost, the producers are replayed from here"
    )
    written |= seal(log)
    assert compact(log, NOW_MS + 999) == 0
    assert compact(log, NOW_MS + 1_000) > 0
    assert held(log) == expected(log, written)
    abandon(log)


def test_a_topic_that_is_not_compacted_is_left_alone(tmp_path: Path) -> None:
    log = opened(tmp_path, is_compacting=False)
    written = filled(log)
    assert compact(log) == 0
    assert held(log) == written
    log.reconfigure(config())
    assert log.compact(NOW_MS, 1)
    log.reconfigure(config(is_compacting=False))
    assert not list(tmp_path.glob(f"*{CLEANED_SUFFIX}"))
    assert held(log) == written
    abandon(log)


# -- producers


def test_what_producers_wrote_is_known_though_compaction_dropped_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for sequence in range(40):
        append_keyed(log, [(b"a", b"x" * 50)], producer_id=5, producer_epoch=0, base_sequence=sequence)
    seal(log)
    compact(log)
    assert 39 not in {at for at in held(log) if at < 39}
    snapshots = sorted(tmp_path.glob("*.snapshot"))
    assert len(snapshots) == 2
    abandon(log)
    flip(snapshots[-1], 12)
    log = opened(tmp_path)
    producer = log.producers.get(5)
    assert producer is not None
    assert producer.next_sequence == 40
    abandon(log)


# -- codecs


def test_compressed_batches_are_compacted(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    log = opened(tmp_path)
    written: Written = {}
    for number in range(50):
        records: list[tuple[bytes | None, bytes | None]] = [(b"a", b"%d" % number), (b"b%d" % number, b"x")]
        written |= append_keyed(log, records, attributes=CODEC_ZSTD)
    written |= seal(log)
    compact(log)
    assert held(log) == expected(log, written)
    abandon(log)


def test_a_slice_is_bounded_in_unpacked_bytes(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    log = opened(tmp_path)
    for number in range(20):
        append_keyed(log, [(b"a%d" % number, bytes(1 << 20))], attributes=CODEC_ZSTD)
    assert log.size_bytes < 20_000
    seal(log)
    # Each batch is opened twice, and a slice ends with the batch that uses its budget up.
    assert compact(log, budget_bytes=1 << 20) >= 40
    abandon(log)


# -- others at the same time


def test_deletion_and_appends_go_on_during_a_pass(tmp_path: Path) -> None:
    for delete_at in range(0, 120, 3):
        directory = tmp_path / str(delete_at)
        log = opened(directory, delete_retention_ms=DAY_MS)
        written = filled(log)
        for count in range(10_000):
            if count == delete_at:
                log.delete_before(90)
            if count % 7 == 0:
                written |= append_keyed(log, [(b"k0", b"late%d" % count)])
                log.sync()
            if not log.compact(NOW_MS, 1):
                break
        log.delete_before(90)
        written |= seal(log)
        compact(log)
        assert held(log) == expected(log, written)
        abandon(log)


def test_both_policies_together(tmp_path: Path) -> None:
    log = opened(tmp_path, is_deleting=True, retention_ms=1_000)
    filled(log)
    compact(log)
    assert log.apply_retention(NOW_MS + 500) == 0
    assert log.apply_retention(NOW_MS + 1_001) == 202
    assert held(log) == {}
    log.reconfigure(config(retention_ms=1))
    append_keyed(log, [(b"a", b"")])
    assert log.apply_retention(NOW_MS + DAY_MS) == 202, "compacted alone, a topic keeps what is old"
    abandon(log)


def test_a_full_disk_ends_the_pass_and_nothing_else(tmp_path: Path) -> None:
    for space_bytes in range(0, 1_600, 80):
        files = FaultyFiles()
        log = opened(tmp_path / str(space_bytes), files)
        written = filled(log)
        files.space_bytes = space_bytes
        compact(log)
        assert held(log).keys() >= newest(written).keys()
        files.space_bytes = None
        compact(log)
        assert held(log) == expected(log, written)
        assert not list(log.directory.glob(f"*{CLEANED_SUFFIX}"))
        abandon(log)


# -- much


def _much(path: Path, count: int, keys: int, segment_bytes: int) -> None:
    log = opened(path, segment_bytes=segment_bytes)
    draw = random.Random(count)
    last: dict[bytes, int] = {}
    offset = 0
    while offset < count:
        batch: list[tuple[bytes | None, bytes | None]] = []
        for _ in range(1_000):
            key = b"key-%d" % draw.randrange(keys)
            last[key] = offset + len(batch)
            batch.append((key, b"%d" % (offset + len(batch))))
        append_keyed(log, batch)
        offset += len(batch)
    seal(log)
    compact(log, budget_bytes=128 * 1024)
    found = {at: record for at, record in held(log).items() if at < count}
    assert {key: at for at, (key, _) in found.items()} == last
    assert len(found) == len(last)
    assert all(value == b"%d" % at for at, (_, value) in found.items())
    assert not log.verify()
    abandon(log)


def test_twenty_thousand_records_of_a_thousand_keys(tmp_path: Path) -> None:
    _much(tmp_path, 20_000, 1_000, 100_000)


@pytest.mark.chaos
def test_a_million_records_of_ten_thousand_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_pass, "KEYS_LIMIT", 4_000)
    _much(tmp_path / "several maps", 1_000_000, 10_000, 4 << 20)
    monkeypatch.undo()
    _much(tmp_path / "one map", 1_000_000, 10_000, 4 << 20)
