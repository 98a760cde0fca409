"""The log as its owner sees it: append, read, roll, retain, delete, find by time."""

import os
from pathlib import Path

import pytest

from log_batches import BIG, NOW_MS, abandon, append, batch, contents, open_log, segment, unlimited
from planaria.actors.log.errors import OffsetOutOfRange, StorageFailed
from planaria.actors.log.log import PartitionLog
from planaria.transport.batch import LOG_APPEND_TIME, BatchHeader, checksum, parse_header, split, stamp


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a", b"b"])
    append(log, [b"c"])
    log.sync()
    assert contents(log) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert (log.log_start_offset, log.log_end_offset) == (0, 3)
    log.close()


def test_one_append_of_many_frames_in_pieces(tmp_path: Path) -> None:
    """More buffers than one writev takes, and heads apart from bodies."""
    log = open_log(tmp_path)
    frames, headers = zip(*(batch(offset, [b"x" * offset]) for offset in range(1500)), strict=True)
    pieces = [piece for frame in frames for piece in (frame[:24], memoryview(frame)[24:])]
    log.append(pieces, headers, NOW_MS)
    assert len(contents(log)) == 1500
    log.close()


def test_a_read_begins_with_the_batch_that_holds_the_offset(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a", b"b", b"c"])
    append(log, [b"d"])
    run, _ = log.read(1, 1 << 20, BIG)
    assert [header.base_offset for header, _ in split(run)] == [0, 3]
    run, _ = log.read(3, 1 << 20, BIG)
    assert [header.base_offset for header, _ in split(run)] == [3]
    log.close()


def test_a_batch_bigger_than_the_bound_is_read_alone(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"x" * 10_000])
    append(log, [b"y"])
    run, _ = log.read(0, 1, BIG)
    assert [header.base_offset for header, _ in split(run)] == [0]
    run, _ = log.read(1, 1, BIG)
    assert [header.base_offset for header, _ in split(run)] == [1]
    log.close()


def test_nothing_at_or_above_the_high_watermark_is_read(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"])
    append(log, [b"b", b"c"])
    assert log.read(1, 1 << 20, 1) == (b"", 1)
    assert log.read(1, 1 << 20, 2) == (b"", 1), "half a batch is not visible"
    assert log.read(3, 1 << 20, BIG) == (b"", 3)
    run, _ = log.read(0, 1 << 20, 2)
    assert [header.base_offset for header, _ in split(run)] == [0]
    log.close()


@pytest.mark.parametrize("offset", [-1, 4])
def test_an_offset_outside_the_log(tmp_path: Path, offset: int) -> None:
    log = open_log(tmp_path)
    append(log, [b"a", b"b", b"c"])
    with pytest.raises(OffsetOutOfRange):
        log.read(offset, 100, BIG)
    log.close()


def test_an_append_must_go_on_where_the_log_ends(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"], epoch=3)
    for frame, header in (batch(0, [b"c"], epoch=3), batch(1, [b"b"], epoch=2)):
        with pytest.raises(AssertionError):
            log.append([frame], [header], NOW_MS)
    assert contents(log) == [(0, b"a")]
    log.close()


def test_segments_roll_by_size_and_are_read_across(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=1000)
    for number in range(50):
        append(log, [b"%d" % number * 20])
    log.sync()
    assert log.segment_count > 3
    expected = [(number, b"%d" % number * 20) for number in range(50)]
    assert contents(log) == contents(log, max_bytes=1) == expected
    log.close()
    log = open_log(tmp_path, segment_bytes=1000)
    assert log.was_clean
    assert contents(log) == expected
    log.close()


def test_segments_roll_by_age_even_over_a_restart(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_ms=1000)
    append(log, [b"a"], now_ms=NOW_MS)
    append(log, [b"b"], now_ms=NOW_MS + 999)
    assert log.segment_count == 1
    log.close()
    log = open_log(tmp_path, segment_ms=1000, now_ms=NOW_MS + 999)
    append(log, [b"c"], now_ms=NOW_MS + 1000)
    assert log.segment_count == 2
    log.close()


def test_a_segment_that_began_in_the_future_rolls_by_age_in_time(tmp_path: Path) -> None:
    """The machine has since booted with a slow clock."""
    log = open_log(tmp_path, segment_ms=1000)
    append(log, [b"a"], now_ms=NOW_MS + 500_000)
    log.close()
    log = open_log(tmp_path, segment_ms=1000, now_ms=NOW_MS)
    append(log, [b"b"], now_ms=NOW_MS + 999)
    assert log.segment_count == 1
    append(log, [b"c"], now_ms=NOW_MS + 1000)
    assert log.segment_count == 2
    log.close()


def test_reads_in_a_long_segment_use_the_index(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(400):
        append(log, [b"%d" % number * 300, b"second"])
    positions = log._active.index()._offsets.values
    assert len(positions) > 3
    for offset in range(0, 800, 37):
        run, _ = log.read(offset, 1, BIG)
        assert split(run)[0][0].base_offset == offset // 2 * 2
    log.close()


def test_more_sealed_segments_than_open_files(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100)
    for number in range(80):
        append(log, [b"%d" % number])
    assert log.segment_count == 80
    assert len(contents(log)) == 80
    assert sum(segment.is_open for segment in log._segments.all) <= 33
    log.close()


# -- retention


def test_retention_by_time_deletes_whole_segments(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100, retention_ms=1000)
    for number in range(5):
        append(log, [b"%d" % number], timestamps_ms=[NOW_MS + number * 1000])
    assert log.apply_retention(NOW_MS + 1000) == 0, "exactly at the bound is kept"
    assert log.apply_retention(NOW_MS + 3500) == 3
    assert contents(log) == [(3, b"3"), (4, b"4")]
    with pytest.raises(OffsetOutOfRange):
        log.read(2, 100, BIG)
    assert len(list(tmp_path.glob("*.log"))) == len(list(tmp_path.glob("*.timeindex"))) == 2
    log.close()


def test_a_record_dated_far_ahead_does_not_stop_retention(tmp_path: Path) -> None:
    """Retention counts from the last append then, or, if the clock was set back, from the time of its detection."""
    log = open_log(tmp_path, segment_bytes=100, retention_ms=1000)
    append(log, [b"far"], timestamps_ms=[NOW_MS * 1000])
    for number in range(3):
        append(log, [b"%d" % number], timestamps_ms=[NOW_MS])
    far = segment(tmp_path, 0)
    os.utime(far, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
    assert log.apply_retention(NOW_MS + 900) == 0
    os.utime(far, ns=((NOW_MS + 9_999_000) * 1_000_000,) * 2)
    assert log.apply_retention(NOW_MS + 1500) == 0, "noticed"
    assert log.apply_retention(NOW_MS + 2400) == 0
    os.utime(far, ns=(NOW_MS * 1_000_000, NOW_MS * 1_000_000))
    assert log.apply_retention(NOW_MS + 2400) == 4
    append(log, [b"far"], timestamps_ms=[NOW_MS * 1000])
    append(log, [b"y" * 100], timestamps_ms=[NOW_MS + 2400])
    assert log.apply_retention(NOW_MS + 2500) == 4, "noticed"
    assert log.apply_retention(NOW_MS + 3600) == 6
    log.close()


def test_retention_of_everything_rolls_the_active_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path, retention_ms=1000)
    append(log, [b"old"])
    assert log.apply_retention(NOW_MS + 5000) == 1
    assert (log.size_bytes, log.log_start_offset, log.log_end_offset) == (0, 1, 1)
    append(log, [b"new"], timestamps_ms=[NOW_MS + 5000])
    abandon(log)
    log = open_log(tmp_path)
    assert contents(log) == [(1, b"new")]
    log.close()


def test_retention_by_bytes_keeps_at_least_that_much(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=200)
    for _ in range(20):
        append(log, [b"x" * 100])
    one = log.size_bytes // 20
    log.reconfigure(unlimited(segment_bytes=200, retention_bytes=one * 4 + 1))
    assert log.apply_retention(NOW_MS) == 15
    assert log.size_bytes == one * 5
    log.close()


def test_records_are_deleted_up_to_an_offset_and_stay_deleted(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for number in range(10):
        append(log, [b"%d" % number * 50] * 2)
    with pytest.raises(OffsetOutOfRange):
        log.delete_before(21)
    log.delete_before(7)
    log.delete_before(3)
    assert log.log_start_offset == 7
    assert [offset for offset, _ in contents(log)] == list(range(7, 20))
    abandon(log)
    log = open_log(tmp_path, segment_bytes=300)
    assert [offset for offset, _ in contents(log)] == list(range(7, 20))
    log.delete_before(20)
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (20, 20, 0)
    log.close()


# -- time


def test_the_first_record_at_or_after_a_time_is_exact(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=400)
    times = [1000, 1005, 1003, 1010, 1010, 1020, 1018, 1030, 1040, 1050]
    for start in range(0, 10, 2):
        append(log, [b"x" * 50, b"y" * 50], timestamps_ms=times[start : start + 2])
    for wanted in range(995, 1055):
        expected = next(((offset, time) for offset, time in enumerate(times) if time >= wanted), None)
        assert log.offset_for_timestamp(wanted) == expected, wanted
    log.delete_before(3)
    assert log.offset_for_timestamp(0) == (3, 1010)
    log.close()


def test_time_lookup_through_the_index_of_a_long_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(300):
        append(log, [b"x" * 1000], timestamps_ms=[NOW_MS + number * 10])
    for number in (0, 1, 64, 65, 66, 150, 299):
        assert log.offset_for_timestamp(NOW_MS + number * 10 - 5) == (number, NOW_MS + number * 10)
    assert log.offset_for_timestamp(NOW_MS + 3000) is None
    log.close()


def test_the_leaders_append_time_is_the_time_of_every_record(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a", b"b"], timestamps_ms=[1000, 2000], attributes=LOG_APPEND_TIME)
    assert log.offset_for_timestamp(1500) == (0, 2000)
    log.close()


def test_an_undecodable_batch_is_found_by_its_header(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"], timestamps_ms=[1000])
    log.append(*_not_records(log.log_end_offset), NOW_MS)
    assert log.offset_for_timestamp(1001) == (1, 2000)
    log.close()


def _not_records(base_offset: int) -> tuple[list[bytes], list[BatchHeader]]:
    frame = bytearray(batch(base_offset, [b"b"], timestamps_ms=[2000])[0])
    frame[60:] = b"\xc1" * len(frame[60:])
    frame[16:20] = checksum(bytes(frame[24:])).to_bytes(4, "big")
    stamped = bytes(stamp(frame, base_offset, 0))
    return [stamped], [parse_header(stamped)]


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"])
    log.close()
    with pytest.raises(StorageFailed, match="closed"):
        log.read(0, 100, BIG)
    with pytest.raises(StorageFailed):
        append(log, [b"b"])


def test_bytes_from_an_offset_on(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", segment_bytes=5_000)
    sizes = [append(log, [b"v" * 500, b"v" * 500]).size_bytes for _ in range(20)]
    assert log.segment_count > 3
    assert log.bytes_from(0) == log.size_bytes == sum(sizes)
    assert log.bytes_from(40) == log.bytes_from(50) == 0
    for offset in range(40):
        behind = sum(sizes[offset // 2 :])
        assert behind <= log.bytes_from(offset) <= behind + 5_000
    log.delete_before(20)
    assert log.bytes_from(3) == log.bytes_from(20) <= log.size_bytes


def fill_by_the_second(log: PartitionLog, count: int) -> None:
    """Append each record to a segment of its own."""
    for number in range(count):
        append(log, [b"%d" % number], timestamps_ms=[NOW_MS + number * 1000])


def test_retention_leaves_what_some_group_has_not_consumed(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100, retention_ms=1000)
    fill_by_the_second(log, 10)
    late_ms = NOW_MS + 8500  # by age 7 may go
    assert log.apply_retention(late_ms, consumed_offset=0) == 0
    assert log.apply_retention(late_ms, consumed_offset=3) == 3
    assert log.apply_retention(late_ms, consumed_offset=10) == 8, (
        "what is consumed goes when it is old enough"
    )
    assert log.apply_retention(NOW_MS + 99_000, consumed_offset=9) == 9
    assert log.apply_retention(NOW_MS + 99_000, consumed_offset=10) == 10
    log.close()


def test_retention_by_size_leaves_what_some_group_has_not_consumed(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100, retention_bytes=0)
    fill_by_the_second(log, 10)
    assert log.apply_retention(NOW_MS, consumed_offset=4) == 4
    assert log.apply_retention(NOW_MS) == 9
    log.close()


def test_past_the_hard_bounds_it_goes_all_the_same(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100, retention_ms=0, retain_max_ms=5_000)
    fill_by_the_second(log, 10)
    assert log.apply_retention(NOW_MS + 7_500, consumed_offset=0) == 3
    one = log.size_bytes // 7
    log.reconfigure(unlimited(segment_bytes=100, retention_ms=0, retain_max_bytes=4 * one))
    assert log.apply_retention(NOW_MS + 10_000, consumed_offset=0) == 6
    log.reconfigure(unlimited(segment_bytes=100, retention_ms=0, retain_max_bytes=3 * one - 1))
    assert log.apply_retention(NOW_MS + 10_000, consumed_offset=0) == 8, "a cap is not exceeded by a segment"
    log.reconfigure(unlimited(segment_bytes=100, retain_max_bytes=0))
    assert log.apply_retention(NOW_MS + 10_000, consumed_offset=0) == 8, (
        "they bound no more than retention asks"
    )
    log.close()
