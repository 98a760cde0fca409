"""What a log is after its owner died, its tail was torn, its caches were spoilt, or its bytes rotted."""

import logging
import random
import shutil
import time
from pathlib import Path

import pytest

from faulty_files import Died, FaultyFiles
from log_batches import BIG, NOW_MS, abandon, append, batch, contents, open_log
from planaria.actors.log.errors import CorruptLog
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import ProducerStates
from planaria.actors.log.retention import LogConfig
from planaria.transport.batch import split

RECOVERY_LOGGER = "planaria.actors.log.recovery"


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def segment(directory: Path, base_offset: int = 0) -> Path:
    return directory / f"{base_offset:020d}.log"


def flip(path: Path, position: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(bytes(data))


@pytest.fixture
def unclean(tmp_path: Path) -> Path:
    """Three batches above the recovery point; whoever wrote them was killed."""
    log = open_log(tmp_path / "log")
    for value in (b"first", b"second", b"third"):
        append(log, [value, value], producer_id=7, producer_epoch=0, base_sequence=log.log_end_offset)
    log.sync()
    abandon(log)
    return tmp_path / "log"


SMALL = LogConfig(segment_bytes=400)
ALL = [(0, b"first"), (1, b"first"), (2, b"second"), (3, b"second"), (4, b"third"), (5, b"third")]


def test_a_killed_log_is_whole(unclean: Path) -> None:
    log = open_log(unclean)
    assert not log.was_clean
    assert contents(log) == ALL
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
    abandon(open_log(unclean))
    assert files_of(unclean) == once


def test_a_tail_cut_at_any_byte_recovers_to_the_batch_before(unclean: Path, tmp_path: Path) -> None:
    whole = segment(unclean).read_bytes()
    last = _position_of_last_batch(whole)
    for size in range(last, len(whole)):
        path = tmp_path / f"cut-{size}"
        shutil.copytree(unclean, path)
        segment(path).write_bytes(whole[:size])
        log = open_log(path)
        assert contents(log) == ALL[:4], size
        producer = log.producers.get(7)
        assert producer is not None
        assert producer.next_sequence == 4
        append(log, [b"again"], producer_id=7, producer_epoch=0, base_sequence=4)
        assert contents(log)[-1] == (4, b"again")
        abandon(log)


def _position_of_last_batch(data: bytes) -> int:
    return len(data) - split(data)[-1][0].size_bytes


def test_a_bit_flipped_anywhere_above_the_recovery_point_cuts_there(unclean: Path, tmp_path: Path) -> None:
    whole = segment(unclean).read_bytes()
    last = _position_of_last_batch(whole)
    for position in range(last, len(whole)):
        path = tmp_path / f"flip-{position}"
        shutil.copytree(unclean, path)
        flip(segment(path), position, 1 << position % 8)
        log = open_log(path)
        assert contents(log) == ALL[:4], position
        assert log.size_bytes == last
        abandon(log)


def test_good_batches_behind_the_cut_are_kept_aside(unclean: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = segment(unclean).read_bytes()
    second = split(whole)[0][0].size_bytes
    flip(segment(unclean), second + 70)
    damaged = segment(unclean).read_bytes()
    with caplog.at_level(logging.WARNING, RECOVERY_LOGGER):
        log = open_log(unclean)
    assert contents(log) == ALL[:2]
    assert segment(unclean).with_suffix(".torn").read_bytes() == damaged[second:]
    assert "good batches lie behind the damage" in caplog.text
    log.close()


def test_a_torn_tail_alone_is_not_kept_aside(unclean: Path) -> None:
    path = segment(unclean)
    path.write_bytes(path.read_bytes()[:-1])
    abandon(open_log(unclean))
    assert not list(unclean.glob("*.torn"))


def test_zeros_behind_the_last_batch_are_cut(unclean: Path) -> None:
    """What a file system may leave when the size reached the medium and the data did not."""
    size = segment(unclean).stat().st_size
    with segment(unclean).open("ab") as file:
        file.write(bytes(5000))
    log = open_log(unclean)
    assert contents(log) == ALL
    assert log.size_bytes == size
    log.close()


# -- below the recovery point


def test_a_bit_flipped_anywhere_below_the_recovery_point_is_reported(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    log = open_log(origin)
    for value in (b"first", b"second", b"third"):
        append(log, [value, value])
    log.close()
    whole = segment(origin).read_bytes()
    start = split(whole)[0][0].size_bytes
    end = _position_of_last_batch(whole)
    for position in range(start, end):
        flip(segment(origin), position, 1 << position % 8)
        log = open_log(origin)
        assert log.log_end_offset == 6
        with pytest.raises(CorruptLog) as caught:
            log.read(3, 1 << 20, BIG)
        assert caught.value.segment == segment(origin).name
        assert (caught.value.position, caught.value.next_offset) == (start, 4), position
        (run,) = log.read(0, 1 << 20, BIG)
        assert len(run) == start
        (run,) = log.read(4, 1 << 20, BIG)
        assert run == whole[end:]
        assert [(rot.position, rot.offset, rot.next_offset) for rot in log.verify()] == [(start, 2, 4)]
        log.close()
        flip(segment(origin), position, 1 << position % 8)


@pytest.mark.parametrize("batch_index", [0, 2])
@pytest.mark.parametrize("at", [3, 70], ids=["head", "body"])
def test_rot_in_the_first_and_the_last_batch(tmp_path: Path, batch_index: int, at: int) -> None:
    log = open_log(tmp_path)
    for value in (b"first", b"second", b"third"):
        append(log, [value, value])
    log.close()
    data = segment(tmp_path).read_bytes()
    position = sum(header.size_bytes for header, _ in split(data)[:batch_index])
    flip(segment(tmp_path), position + at)
    log = open_log(tmp_path)
    with pytest.raises(CorruptLog) as caught:
        log.read(batch_index * 2 + 1, 1 << 20, BIG)
    assert (caught.value.position, caught.value.next_offset) == (position, batch_index * 2 + 2)
    assert contents(log) == ALL[: batch_index * 2] + ALL[batch_index * 2 + 2 :]
    append(log, [b"more"])
    assert contents(log)[-1] == (6, b"more")
    log.close()


def test_rot_in_a_sealed_segment_leaves_the_rest(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for number in range(20):
        append(log, [b"%d" % number])
    abandon(log)
    paths = sorted(tmp_path.glob("*.log"))
    flip(paths[1], 80)
    flip(paths[3], 10)
    log = open_log(tmp_path, segment_bytes=300)
    lost = [offset for damage in log.verify() for offset in range(damage.offset, damage.next_offset)]
    assert len(lost) == 2
    assert [offset for offset, _ in contents(log)] == [offset for offset in range(20) if offset not in lost]
    log.close()


def test_a_missing_middle_segment_is_a_gap(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for number in range(20):
        append(log, [b"%d" % number])
    log.close()
    names = sorted(path.name for path in tmp_path.glob("*.log"))
    lost, following = int(names[2][:20]), int(names[3][:20])
    segment(tmp_path, lost).unlink()
    log = open_log(tmp_path, segment_bytes=300)
    with pytest.raises(CorruptLog) as caught:
        log.read(lost + 1, 100, BIG)
    assert caught.value.next_offset == following
    assert [(gap.offset, gap.next_offset) for gap in log.verify()] == [(lost, following)]
    assert [offset for offset, _ in contents(log)] == [*range(lost), *range(following, 20)]
    log.close()


@pytest.mark.parametrize("left_bytes", [0, 150, None])
def test_a_log_shorter_than_its_recovery_point_never_gives_an_offset_twice(
    tmp_path: Path, left_bytes: int | None
) -> None:
    log = open_log(tmp_path)
    for number in range(10):
        append(log, [b"%d" % number])
    log.close()
    if left_bytes is None:
        segment(tmp_path).unlink()
    else:
        segment(tmp_path).write_bytes(segment(tmp_path).read_bytes()[:left_bytes])
    for _ in range(2):
        log = open_log(tmp_path)
        assert log.log_end_offset == 10
        abandon(log)
    log = open_log(tmp_path)
    append(log, [b"new"])
    assert contents(log)[-1] == (10, b"new")
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
    """Entries that verify but speak of other bytes: say, of a segment restored from an older copy."""
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


def test_a_snapshot_of_batches_that_were_lost_is_not_believed(unclean: Path) -> None:
    log = open_log(unclean)
    append(log, [b"later"], producer_id=7, producer_epoch=0, base_sequence=6)
    log.close()
    newest = max(unclean.glob("*.snapshot"))
    data = segment(unclean).read_bytes()
    segment(unclean).write_bytes(data[: _position_of_last_batch(data)])
    (unclean / "checkpoint").unlink()
    log = open_log(unclean)
    assert log.log_end_offset == 6
    assert not newest.exists() or newest.name == f"{6:020d}.snapshot"
    producer = log.producers.get(7)
    assert producer is not None
    assert producer.next_sequence == 6
    log.close()


# -- size


def test_a_log_of_ten_gigabytes_opens_at_once(tmp_path: Path) -> None:
    """160 sealed segments of 64 MiB, sparse: were they read at all, they would be found rotten."""
    sealed_bytes, sealed_count, end = 64 << 20, 160, 16_000_000
    for base_offset in range(0, end, end // sealed_count):
        with segment(tmp_path, base_offset).open("wb") as sparse:
            sparse.truncate(sealed_bytes)
    tail = b"".join(batch(end + number, [b"x" * 1000])[0] for number in range(5000))
    segment(tmp_path, end).write_bytes(tail[:-5])
    (tmp_path / f"{end:020d}.snapshot").write_bytes(ProducerStates().encode(end))
    started_s = time.perf_counter()
    log = open_log(tmp_path)
    assert time.perf_counter() - started_s < 0.8
    assert log.size_bytes > 10 << 30
    assert (log.log_end_offset, log.segment_count) == (end + 4999, sealed_count + 1)
    assert log.read(end + 4998, 1, BIG)
    log.close()


# -- dying anywhere


def _live(directory: Path, files: FaultyFiles, acknowledged: list[bytes]) -> None:
    log = PartitionLog.open(directory, SMALL, NOW_MS, files)
    try:
        for number in range(12):
            value = b"%d" % number * 10
            append(log, [value], producer_id=5, producer_epoch=0, base_sequence=log.log_end_offset)
            log.sync()
            acknowledged.append(value)
            if number == 7:
                log.checkpoint()
        append(log, [b"not synced"], producer_id=5, producer_epoch=0, base_sequence=log.log_end_offset)
        log.delete_before(4)
        acknowledged.append(b"not synced")
        log.close()
    finally:
        files.die_before = -1
        abandon(log)


@pytest.mark.parametrize("power", ["on", "cut"])
def test_dying_before_any_call_to_the_system_loses_nothing_acknowledged(tmp_path: Path, power: str) -> None:
    counting = FaultyFiles()
    _live(tmp_path / "all", counting, [])
    calls = len(counting.calls)
    assert calls > 100
    for die_before in range(calls):
        directory = tmp_path / str(die_before)
        acknowledged: list[bytes] = []
        files = FaultyFiles(die_before)
        with pytest.raises(Died):
            _live(directory, files, acknowledged)
        if power == "cut":
            files.lose_unsynced(random.Random(die_before))
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        found = contents(log, offset=log.log_start_offset)
        values = dict(found)
        assert [values[offset] for offset in range(log.log_start_offset, len(acknowledged))] == acknowledged[
            log.log_start_offset :
        ]
        assert log.log_end_offset in (len(acknowledged), len(acknowledged) + 1)
        assert log.log_start_offset in (0, 4)
        assert not log.verify()
        producer = log.producers.get(5)
        assert (producer.next_sequence if producer else 0) == log.log_end_offset
        abandon(log)


def test_dying_during_recovery_is_recovered_from(unclean: Path, tmp_path: Path) -> None:
    path = segment(unclean)
    flip(path, split(path.read_bytes())[0][0].size_bytes + 70)
    counting = FaultyFiles()
    shutil.copytree(unclean, tmp_path / "all")
    abandon(PartitionLog.open(tmp_path / "all", SMALL, NOW_MS, counting))
    for die_before in range(len(counting.calls)):
        directory = tmp_path / str(die_before)
        shutil.copytree(unclean, directory)
        files = FaultyFiles(die_before)
        try:
            abandon(PartitionLog.open(directory, SMALL, NOW_MS, files))
        except Died:
            pass
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        assert contents(log) == ALL[:2]
        assert (directory / path.name).with_suffix(".torn").exists()
        abandon(log)


# -- the order of calls


def test_every_new_name_is_durable_before_anything_relies_on_it(tmp_path: Path) -> None:
    """A rename or a new segment is followed by a sync of the directory before the next append to a segment."""
    files = FaultyFiles()
    _live(tmp_path / "log", files, [])
    assert files.calls.count("rename") > 5
    unsynced_names = 0
    for call in files.calls:
        if call == "rename":
            unsynced_names += 1
        elif call == "sync_directory":
            unsynced_names = 0
        assert unsynced_names <= 2, "a snapshot and its checkpoint share one"
    assert unsynced_names == 0


def test_an_index_is_not_believed_beyond_the_recovery_point(tmp_path: Path) -> None:
    """Its entries were written for bytes that a power cut took, and others now stand in their place."""
    log = open_log(tmp_path)
    append(log, [b"kept"])
    log.close()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if "index" not in path.name}
    log = open_log(tmp_path)
    for _ in range(100):
        append(log, [b"x" * 3000], timestamps_ms=[NOW_MS + 10**9])
    log.close()
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    log = open_log(tmp_path)
    assert log._active.max_timestamp_ms == NOW_MS
    for number in range(1, 300):
        append(log, [b"%d" % number * 300])
    assert [value for _, value in contents(log)][1:] == [b"%d" % number * 300 for number in range(1, 300)]
    assert all(log.read(offset, 1, BIG) for offset in (50, 100, 200))
    assert log.offset_for_timestamp(NOW_MS + 1) is None
    log.close()


def test_offsets_that_do_not_follow_are_cut(unclean: Path) -> None:
    """Whole batches of another life of this file, left by a reordering disk."""
    with segment(unclean).open("ab") as file:
        file.write(batch(2, [b"stale"])[0])
    with segment(unclean).open("ab") as file:
        file.write(batch(9, [b"stale"])[0])
    log = open_log(unclean)
    assert contents(log) == ALL
    log.close()
