"""A life of the log, ended before every single call to the system, by a kill or by a power cut."""

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from faulty_files import Died, FaultyFiles
from keyed_logs import Written, append_keyed, compact, held, newest, seal
from log_batches import NOW_MS, UNCLEAN, abandon, append, contents, flip, make_room_early, segment, unlimited
from planaria.actors.log.companions import COMPACTION_NAME
from planaria.actors.log.log import PartitionLog
from planaria.transport.batch import split

SMALL = unlimited(segment_bytes=400)


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


@pytest.mark.parametrize("room_bytes", [0, pytest.param(90, marks=pytest.mark.chaos), 600])
@pytest.mark.parametrize("power", ["on", "cut"])
def test_dying_before_any_call_to_the_system_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: str, room_bytes: int
) -> None:
    if room_bytes:
        make_room_early(monkeypatch, room_bytes)
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
        files.release()
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
            files.release()
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        assert contents(log) == UNCLEAN[:2]
        assert (directory / path.name).with_suffix(".torn").exists()
        abandon(log)


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


@pytest.mark.parametrize("has_lock", [False, True], ids=["by the log", "by the lock"])
def test_the_folders_of_a_new_partition_survive_a_power_cut(tmp_path: Path, has_lock: bool) -> None:
    """Whichever code creates them, all of them are durable before anything in them is acknowledged."""
    for seed in range(10):
        files = FaultyFiles()
        directory = tmp_path / str(seed) / "topics" / "T" / "0"
        directory.parents[2].mkdir()
        if has_lock:
            files.make_directory(directory)
        log = PartitionLog.open(directory, SMALL, NOW_MS, files)
        append(log, [b"acknowledged"])
        log.sync()
        abandon(log)
        files.lose_unsynced(random.Random(seed))
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        assert contents(log) == [(0, b"acknowledged")]
        abandon(log)


def test_a_successor_makes_durable_what_it_found_before_it_relies_on_it(tmp_path: Path) -> None:
    """Its predecessor was killed between write and sync; the power fails after the successor has returned the record."""
    for seed in range(20):
        files = FaultyFiles()
        directory = tmp_path / str(seed)
        log = PartitionLog.open(directory, SMALL, NOW_MS, files)
        for number in range(6):
            append(log, [b"%d" % number * 60], producer_id=5, producer_epoch=0, base_sequence=number)
        abandon(log)
        log = PartitionLog.open(directory, SMALL, NOW_MS, files)
        shown = contents(log)
        abandon(log)
        files.lose_unsynced(random.Random(seed))
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        assert contents(log) == shown
        assert len(shown) == 6
        abandon(log)


@pytest.mark.parametrize("end", ["roll", "close"])
def test_a_segment_whose_room_was_cut_off_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Zeros that reappear after its last batch would read as damage once it has a successor."""
    make_room_early(monkeypatch, 600)
    for seed in range(20):
        files = FaultyFiles()
        directory = tmp_path / str(seed)
        directory.mkdir()
        log = PartitionLog.open(directory, SMALL, NOW_MS, files)
        append(log, [b"a" * 100])
        log.sync()
        assert segment(directory).stat().st_size > log.size_bytes
        if end == "roll":
            append(log, [b"b" * 300])
            log.sync()
            abandon(log)
        else:
            log.close()
        files.lose_unsynced(random.Random(seed))
        assert split(segment(directory).read_bytes()), "nothing behind the last batch"
        log = PartitionLog.open(directory, SMALL, NOW_MS)
        assert not log.verify()
        abandon(log)


COMPACTED = unlimited(
    segment_bytes=150, is_compacting=True, is_deleting=False, delete_retention_ms=0, min_cleanable_ratio=0.0
)


class _SwapFiles(FaultyFiles):
    def __init__(self, die_before: int = -1) -> None:
        super().__init__(die_before)
        self.commits: list[int] = []
        """Numbers of the calls that follow a rename of the file `compaction`."""

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.name == COMPACTION_NAME:
            self.commits.append(len(self.calls))


def test_a_power_cut_while_a_successor_finishes_a_swap_loses_no_record(tmp_path: Path) -> None:
    """Its predecessor was killed between the rename that commits a swap and the sync of the directory. The successor
    makes the rename durable before it deletes anything because of it: deletions may reach the medium first.
    """
    log = PartitionLog.open(tmp_path / "before", COMPACTED, NOW_MS)
    written: Written = {}
    for number in range(6):
        written |= append_keyed(log, [(b"k%d" % (number % 2), b"%d" % number)])
    written |= seal(log)
    abandon(log)

    def begun(name: str, die_before: int = -1) -> _SwapFiles:
        shutil.copytree(tmp_path / "before", tmp_path / name)
        files = _SwapFiles(die_before)
        try:
            log = PartitionLog.open(tmp_path / name, COMPACTED, NOW_MS, files)
            compact(log)
        except Died:
            files.release()
        else:
            abandon(log)
        files.die_before = -1
        return files

    all_files = begun("all")
    assert all_files.commits
    for die_before in all_files.commits:
        assert all_files.calls[die_before] == "sync_directory"
        for cut_before in range(3, 9):
            for draw in range(5):
                name = f"{die_before}-{cut_before}-{draw}"
                files = begun(name, die_before)
                files.die_before = len(files.calls) + cut_before
                with suppress(Died):
                    PartitionLog.open(tmp_path / name, COMPACTED, NOW_MS, files)
                files.die_before = -1
                files.release()
                files.lose_unsynced(random.Random(draw))
                log = PartitionLog.open(tmp_path / name, COMPACTED, NOW_MS)
                assert not log.losses
                assert held(log).items() >= newest(written).items()
                abandon(log)
