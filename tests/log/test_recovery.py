"""State of a log after its owner died, its tail was torn, or its caches were corrupted."""

import logging
import shutil
import time
from pathlib import Path

import pytest

from log_batches import (
    BIG,
    NOW_MS,
    UNCLEAN,
    abandon,
    append,
    batch,
    contents,
    flip,
    last_batch_position,
    open_log,
    segment,
    unlimited,
)
from planaria.actors.log.checkpoint import decode_checkpoint
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import ProducerStates
from planaria.actors.log.segment import Segment
from planaria.transport.batch import split

RECOVERY_LOGGER = "planaria.actors.log.recovery"


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


SMALL = unlimited(segment_bytes=400)


def test_a_killed_log_is_whole(unclean: Path) -> None:
    log = open_log(unclean)
    assert not log.was_clean
    assert contents(log) == UNCLEAN
    log.close()


def test_the_clean_marker_is_written_last_and_deleted_first(unclean: Path) -> None:
    open_log(unclean).close()
    assert (unclean / "clean").exists()
    log = open_log(unclean)
    assert log.was_clean
    assert not (unclean / "clean").exists()
    abandon(log)
    assert not (unclean / "clean").exists()


def test_recovering_a_recovered_log_changes_nothing(unclean: Path) -> None:
    path = segment(unclean)
    path.write_bytes(path.read_bytes()[:-3])
    abandon(open_log(unclean))
    once = files_of(unclean)
    del once["checkpoint"]  # counts the openings
    abandon(open_log(unclean))
    twice = files_of(unclean)
    del twice["checkpoint"]
    assert twice == once


def test_a_tail_cut_at_any_byte_recovers_to_the_batch_before(unclean: Path, tmp_path: Path) -> None:
    whole = segment(unclean).read_bytes()
    last = last_batch_position(whole)
    for size in range(last, len(whole)):
        path = tmp_path / f"cut-{size}"
        shutil.copytree(unclean, path)
        segment(path).write_bytes(whole[:size])
        log = open_log(path)
        assert contents(log) == UNCLEAN[:4], size
        producer = log.producers.get(7)
        assert producer is not None
        assert producer.next_sequence == 4
        append(log, [b"again"], producer_id=7, producer_epoch=0, base_sequence=4)
        assert contents(log)[-1] == (4, b"again")
        abandon(log)


def test_a_bit_flipped_anywhere_above_the_recovery_point_cuts_there(unclean: Path, tmp_path: Path) -> None:
    whole = segment(unclean).read_bytes()
    last = last_batch_position(whole)
    for position in range(last, len(whole)):
        path = tmp_path / f"flip-{position}"
        shutil.copytree(unclean, path)
        flip(segment(path), position, 1 << position % 8)
        log = open_log(path)
        assert contents(log) == UNCLEAN[:4], position
        assert log.size_bytes == last
        abandon(log)


def test_good_batches_behind_the_cut_are_kept_aside(unclean: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = segment(unclean).read_bytes()
    second = split(whole)[0][0].size_bytes
    flip(segment(unclean), second + 70)
    damaged = segment(unclean).read_bytes()
    with caplog.at_level(logging.WARNING, RECOVERY_LOGGER):
        log = open_log(unclean)
    assert contents(log) == UNCLEAN[:2]
    assert segment(unclean).with_suffix(".torn").read_bytes() == damaged[second:]
    assert "intact batches follow the damage" in caplog.text
    log.close()


def test_a_torn_tail_alone_is_not_kept_aside(unclean: Path) -> None:
    path = segment(unclean)
    path.write_bytes(path.read_bytes()[:-1])
    abandon(open_log(unclean))
    assert not list(unclean.glob("*.torn"))


def test_zeros_behind_the_last_batch_are_cut(unclean: Path) -> None:
    """A file system may leave zeros when the size reached the medium and the data did not."""
    size = segment(unclean).stat().st_size
    with segment(unclean).open("ab") as file:
        file.write(bytes(5000))
    log = open_log(unclean)
    assert contents(log) == UNCLEAN
    assert log.size_bytes == size
    log.close()


# -- caches and leftovers


@pytest.mark.parametrize("damage", ["missing", "garbage", "short", "longer", "swapped"])
@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_spoilt_indexes_are_rebuilt(tmp_path: Path, damage: str, suffix: str) -> None:
    log = open_log(tmp_path, segment_bytes=200_000)
    for number in range(300):
        append(log, [b"%d" % number * 500], timestamps_ms=[NOW_MS + number])
    expected = contents(log)
    log.close()
    good = {path: path.read_bytes() for path in tmp_path.glob("*index")}
    paths = sorted(tmp_path.glob("*" + suffix))
    assert len(paths) > 2
    for path, successor in zip(paths, [*paths[1:], paths[0]], strict=True):
        data = good[path]
        if damage == "missing":
            path.unlink()
        elif damage == "garbage":
            path.write_bytes(bytes(range(1, 201)))
        elif damage == "short":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "longer":
            path.write_bytes(data + data[-20:] + b"tail")
        else:
            path.write_bytes(good[successor])
    log = open_log(tmp_path, segment_bytes=200_000)
    assert contents(log) == expected
    for number in (0, 150, 299):
        assert log.read(number, 1, BIG)[0]
        assert log.offset_for_timestamp(NOW_MS + number) == (number, NOW_MS + number)
    log.close()
    for path in sorted(tmp_path.glob("*index"))[:-2]:
        assert path.read_bytes() == good[path]


def test_an_index_that_lies_is_noticed(tmp_path: Path) -> None:
    """Valid entries for other bytes: for example, of a segment restored from an older copy."""
    log = open_log(tmp_path / "a")
    for number in range(200):
        append(log, [b"%d" % number * 300])
    log.close()
    other = open_log(tmp_path / "b")
    for number in range(300):
        append(other, [b"%d" % number * 200])
    expected = contents(other)
    other.close()
    for suffix in (".index", ".timeindex"):
        shutil.copy(segment(tmp_path / "a").with_suffix(suffix), segment(tmp_path / "b").with_suffix(suffix))
    other = open_log(tmp_path / "b")
    assert [other.read(offset, 1, BIG)[0] for offset in (299, 150, 0)]
    assert contents(other) == expected
    other.close()


@pytest.mark.parametrize("content", [None, b"", b"garbage that is long enough"])
def test_without_a_checkpoint_the_last_segment_is_read_whole(tmp_path: Path, content: bytes | None) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for number in range(20):
        append(log, [b"%d" % number], epoch=number // 10)
    log.close()
    (tmp_path / "checkpoint").unlink()
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    log = open_log(tmp_path, segment_bytes=300)
    assert len(contents(log)) == 20
    assert (log.log_end_offset, log.last_leader_epoch) == (20, 1)
    log.close()


def test_an_empty_last_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"], epoch=4)
    log.close()
    segment(tmp_path, 1).touch()
    (tmp_path / "checkpoint").unlink()
    log = open_log(tmp_path)
    assert (log.log_end_offset, log.last_leader_epoch) == (1, 4)
    append(log, [b"b"], epoch=4)
    assert contents(log) == [(0, b"a"), (1, b"b")]
    log.close()


def test_leftovers_are_deleted(unclean: Path) -> None:
    orphans = ["checkpoint.tmp", f"{99:020d}.index", f"{99:020d}.timeindex", f"{0:020d}.snapshot.tmp"]
    for name in orphans:
        (unclean / name).write_bytes(b"left")
    (unclean / "partition.lock").write_bytes(b"1")
    log = open_log(unclean)
    assert not set(orphans) & {path.name for path in unclean.iterdir()}
    assert (unclean / "partition.lock").exists()
    log.close()


def test_a_deletion_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=100)
    for number in range(5):
        append(log, [b"%d" % number])
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.log")}
    log.delete_before(3)
    abandon(log)
    for path, data in kept.items():
        path.write_bytes(data)
    log = open_log(tmp_path, segment_bytes=100)
    assert log.log_start_offset == 3
    assert segment(tmp_path, 2) not in set(tmp_path.glob("*.log"))
    assert contents(log) == [(3, b"3"), (4, b"4")]
    log.close()


# -- producers


def test_producers_come_back_from_the_snapshot_and_the_batches_after_it(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=500)
    for number in range(20):
        append(log, [b"v"], producer_id=number % 3, producer_epoch=1, base_sequence=number // 3)
    expected = {number: log.producers.get(number) for number in range(3)}
    abandon(log)
    assert len(list(tmp_path.glob("*.snapshot"))) == 2
    for damaged in range(3):
        for path in sorted(tmp_path.glob("*.snapshot"), reverse=True)[:damaged]:
            flip(path, 20)
        log = open_log(tmp_path, segment_bytes=500)
        assert {number: log.producers.get(number) for number in range(3)} == expected
        abandon(log)


# -- size


def test_a_log_of_ten_gigabytes_opens_at_once(tmp_path: Path) -> None:
    """160 sealed segments of 64 MiB, sparse: reading them would find them rotten."""
    sealed_bytes, sealed_count, end = 64 << 20, 160, 16_000_000
    for base_offset in range(0, end, end // sealed_count):
        with segment(tmp_path, base_offset).open("wb") as sparse:
            sparse.truncate(sealed_bytes)
    tail = b"".join(batch(end + number, [b"x" * 1000])[0] for number in range(5000))
    segment(tmp_path, end).write_bytes(tail[:-5])
    (tmp_path / f"{end:020d}.snapshot").write_bytes(ProducerStates().encode(end))
    started_s = time.process_time()
    log = open_log(tmp_path)
    assert time.process_time() - started_s < 0.8, "of work; reading ten gigabytes takes more"
    assert log.size_bytes > 10 << 30
    assert (log.log_end_offset, log.segment_count) == (end + 4999, sealed_count + 1)
    assert log.read(end + 4998, 1, BIG)[0]
    log.close()


def test_an_index_is_not_believed_beyond_the_recovery_point(tmp_path: Path) -> None:
    """Its entries were written for bytes lost in a power cut; other bytes are now in their place."""
    log = open_log(tmp_path)
    append(log, [b"kept"])
    log.close()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if "index" not in path.name}
    log = open_log(tmp_path)
    for _ in range(100):
        append(log, [b"x" * 3000], timestamps_ms=[NOW_MS + 10**9])
    log.close()
    for path in tmp_path.glob("*.snapshot"):
        path.unlink()
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    log = open_log(tmp_path)
    assert log._active.max_timestamp_ms == NOW_MS
    for number in range(1, 300):
        append(log, [b"%d" % number * 300])
    assert [value for _, value in contents(log)][1:] == [b"%d" % number * 300 for number in range(1, 300)]
    assert all(log.read(offset, 1, BIG)[0] for offset in (50, 100, 200))
    assert log.offset_for_timestamp(NOW_MS + 1) is None
    log.close()


def test_offsets_that_do_not_follow_are_cut(unclean: Path) -> None:
    """Complete batches of another life of this file, left by a reordering disk."""
    with segment(unclean).open("ab") as file:
        file.write(batch(2, [b"stale"])[0])
    with segment(unclean).open("ab") as file:
        file.write(batch(9, [b"stale"])[0])
    log = open_log(unclean)
    assert contents(log) == UNCLEAN
    log.close()


# -- how much is read


def test_a_sync_makes_a_checkpoint_when_enough_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planaria.actors.log.checkpointing.CHECKPOINT_BYTES", 5000)
    log = open_log(tmp_path)
    recovery_positions = []
    for _ in range(20):
        append(log, [b"x" * 1000])
        log.sync()
        checkpoint = decode_checkpoint((tmp_path / "checkpoint").read_bytes())
        assert checkpoint is not None
        recovery_positions.append(checkpoint.recovery_position)
    assert all(0 <= (number + 1) * 1068 - at < 6200 for number, at in enumerate(recovery_positions))
    assert len(set(recovery_positions)) == 5
    abandon(log)


def test_a_checkpoint_repeats_a_big_snapshot_only_when_it_pays(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for producer_id in range(100):
        append(log, [b"x"], producer_id=producer_id, producer_epoch=0, base_sequence=0)
    log.checkpoint()
    snapshots = set(tmp_path.glob("*.snapshot"))
    for number in range(30):
        append(log, [b"x"], producer_id=0, producer_epoch=0, base_sequence=number + 1)
        log.checkpoint()
        assert (set(tmp_path.glob("*.snapshot")) == snapshots) == (number < 24)
        if number == 24:
            break
    abandon(log)
    log = open_log(tmp_path)
    assert [len(log.producers), log.producers.get(0).next_sequence] == [100, 26]  # type: ignore[union-attr]
    log.close()


def test_progress_is_reported_while_a_long_tail_is_checked(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for _ in range(40):
        append(log, [b"x" * 100_000])
    abandon(log)
    heard: list[int] = []
    log = PartitionLog.open(tmp_path, SMALL, NOW_MS, on_progress=heard.append)
    assert len(heard) >= 3
    assert heard == sorted(set(heard))
    log.close()


def test_only_the_latest_torn_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planaria.actors.log.tail.TORN_COPY_BYTES", 100)
    (tmp_path / f"{7:020d}.torn").write_bytes(b"older")
    log = open_log(tmp_path)
    for _ in range(5):
        append(log, [b"x" * 100])
    abandon(log)
    flip(segment(tmp_path), 100)
    abandon(open_log(tmp_path))
    assert [(path.name, path.stat().st_size) for path in tmp_path.glob("*.torn")] == [(f"{0:020d}.torn", 100)]


def test_the_age_of_a_segment_that_no_checkpoint_knows_counts_from_the_opening(tmp_path: Path) -> None:
    """The last checkpoint is that of the roll, and has the start time of the previous segment."""
    log = open_log(tmp_path, segment_bytes=330, segment_ms=1_000)
    append(log, [b"a" * 100], now_ms=NOW_MS)
    append(log, [b"b" * 120], now_ms=NOW_MS + 900)
    assert log.segment_count == 2
    log.sync()
    abandon(log)
    log = open_log(tmp_path, now_ms=NOW_MS + 950, segment_bytes=330, segment_ms=1_000)
    append(log, [b"c"], now_ms=NOW_MS + 1_200)
    assert log.segment_count == 2
    append(log, [b"d"], now_ms=NOW_MS + 1_950)
    assert log.segment_count == 3
    log.close()


def test_what_an_interrupted_write_or_deletion_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for _ in range(3):
        append(log, [b"a" * 200])
    log.close()
    before = sorted(path.name for path in tmp_path.iterdir() if path.name != "clean")
    leftovers = (f"{7:020d}.index", f"{7:020d}.timeindex", "checkpoint.tmp", f"{0:020d}.snapshot.tmp")
    for name in (*leftovers, "notes of an operator"):
        (tmp_path / name).write_bytes(b"x")
    log = open_log(tmp_path, segment_bytes=300)
    abandon(log)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & set(leftovers)
    assert left >= {*before, "notes of an operator"}


def test_an_index_of_another_size_does_not_tell_where_a_segment_ends(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for _ in range(3):
        append(log, [b"a" * 200])
    log.close()
    path = segment(tmp_path)
    whole = Segment(tmp_path, 0, path.stat().st_size, Files())
    assert whole.known_end() == 1
    assert Segment(tmp_path, 0, path.stat().st_size - 1, Files()).known_end() is None
