"""A log cut below its checkpoint, or begun again: with its epochs, its producers, and a death at every step."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faulty_files import Died, FaultyFiles
from keyed_logs import append_keyed, compact, held, newest, seal
from log_batches import NOW_MS, abandon, append, contents, unlimited
from planaria.actors.log.epochs import EpochTable
from planaria.actors.log.errors import StaleLeaderEpoch, StorageFull
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.truncation import TRUNCATION_NAME
from planaria.transport.batch import TRANSACTIONAL

SMALL = unlimited(segment_bytes=300)
EPOCHS = [(1, 0), (2, 7), (5, 12)]
END = 20


def opened(path: Path, files: Files | None = None) -> PartitionLog:
    return PartitionLog.open(path, SMALL, NOW_MS, files)


def filled(path: Path, files: Files | None = None) -> PartitionLog:
    """Twenty records of one producer in three epochs and several segments, the last part not synced."""
    log = opened(path, files)
    for number in range(END):
        epoch = max(epoch for epoch, start in EPOCHS if start <= number)
        fields: dict[str, Any] = {"producer_id": 5, "producer_epoch": 0, "base_sequence": number}
        append(log, [b"%d" % number * 10], epoch=epoch, **fields)
        if number == 15:
            log.checkpoint()
    return log


def check(log: PartitionLog, end: int) -> None:
    expected = [(number, b"%d" % number * 10) for number in range(end)]
    assert (log.log_end_offset, contents(log)) == (end, expected)
    assert log.verify() == []
    assert log.losses == []
    assert log.epochs.entries == tuple(entry for entry in EPOCHS if entry[1] < end)
    assert log.last_leader_epoch == log.epochs.last
    producer = log.producers.get(5)
    assert (producer.next_sequence if producer else 0) == end


@pytest.mark.parametrize("offset", range(END + 1))
@pytest.mark.parametrize("is_opened_again", [False, True])
def test_a_log_is_cut_at_any_offset(tmp_path: Path, offset: int, is_opened_again: bool) -> None:
    log = filled(tmp_path)
    producers = log.producers
    log.truncate_to(offset, NOW_MS)
    if is_opened_again:
        abandon(log)
        log = opened(tmp_path)
    else:
        assert log.producers is producers, "the machine holds on to it"
    check(log, offset)
    assert log.highest_leader_epoch == 5, "no leader of this log takes it again"
    append(log, [b"new"], epoch=7, producer_id=5, producer_epoch=0, base_sequence=offset)
    log.sync()
    abandon(log)
    log = opened(tmp_path)
    assert contents(log)[-1] == (offset, b"new")
    assert log.epochs.entries[-1] == (7, offset)
    abandon(log)


def _deaths(
    tmp_path: Path, power: str, change: Callable[[PartitionLog], None]
) -> list[tuple[int, PartitionLog]]:
    """Carry out a change that dies before every system call in turn; return each log that is then recovered."""
    found = []
    counting = FaultyFiles()
    log = filled(tmp_path / "all", counting)
    before = len(counting.calls)
    change(log)
    after = len(counting.calls)
    abandon(log)
    for die_before in range(before, after):
        files = FaultyFiles(die_before)
        directory = tmp_path / str(die_before)
        log = filled(directory, files)
        with pytest.raises(Died):
            change(log)
        files.die_before = -1
        files.release()
        if power == "cut":
            files.lose_unsynced(random.Random(die_before))
        found.append((die_before, opened(directory)))
    assert len(found) > 10
    return found


ORDINARY = [("on", 3), ("cut", 13)]
LONG = [
    pytest.param(power, offset, marks=pytest.mark.chaos)
    for power in ("on", "cut")
    for offset in (0, 3, 7, 13, 19)
    if (power, offset) not in ORDINARY
]


@pytest.mark.parametrize(("power", "offset"), [*ORDINARY, *LONG])
def test_dying_at_any_step_of_a_cut_leaves_the_old_end_or_the_new(
    tmp_path: Path, power: str, offset: int
) -> None:
    ends = []
    for _, log in _deaths(tmp_path, power, lambda log: log.truncate_to(offset, NOW_MS)):
        ends.append(log.log_end_offset)
        assert not (log.directory / TRUNCATION_NAME).exists()
        if log.log_end_offset != offset:  # a power cut may take the part that was not synced
            assert log.log_end_offset >= (16 if power == "cut" else END)
        check(log, log.log_end_offset)
        assert log.highest_leader_epoch == 5
        abandon(log)
    assert ends[-1] == offset
    are_cut = [end == offset for end in ends]
    assert are_cut == sorted(are_cut), "once marked it is carried out"


@pytest.mark.parametrize("power", ["on", "cut"])
def test_dying_at_any_step_of_a_new_beginning(tmp_path: Path, power: str) -> None:
    for _, log in _deaths(tmp_path, power, lambda log: log.reset_to(100, NOW_MS)):
        if log.log_end_offset != 100:
            check(log, log.log_end_offset)
        else:
            assert (log.log_start_offset, contents(log), log.epochs.entries, len(log.producers)) == (
                100,
                [],
                (),
                0,
            )
            assert log.losses == []
        assert log.highest_leader_epoch == 5
        abandon(log)


@pytest.mark.parametrize("offset", [4, 100])
def test_dying_during_the_recovery_that_finishes_a_cut(tmp_path: Path, offset: int) -> None:
    """The mark is on disk and nothing is cut; recovery dies before each of its calls, and another one follows."""
    files = FaultyFiles()
    log = filled(tmp_path / "log", files)
    files.die_before = len(files.calls) + files_until_marked(tmp_path)
    with pytest.raises(Died):
        log.reset_to(offset, NOW_MS) if offset > END else log.truncate_to(offset, NOW_MS)
    files.die_before = -1
    files.release()
    assert (tmp_path / "log" / TRUNCATION_NAME).exists()
    counting = FaultyFiles()
    shutil.copytree(tmp_path / "log", tmp_path / "all")
    abandon(opened(tmp_path / "all", counting))
    for die_before in range(len(counting.calls)):
        directory = tmp_path / str(die_before)
        shutil.copytree(tmp_path / "log", directory)
        faulty = FaultyFiles(die_before)
        with pytest.raises(Died):
            abandon(opened(directory, faulty))
        faulty.die_before = -1
        faulty.release()
        faulty.lose_unsynced(random.Random(die_before))
        log = opened(directory)
        assert (log.log_end_offset, log.losses, log.verify()) == (offset, [], [])
        abandon(log)


def files_until_marked(tmp_path: Path) -> int:
    """Return the number of system calls of a truncation up to its durable mark."""
    files = FaultyFiles()
    log = filled(tmp_path / "counted", files)
    before = len(files.calls)
    log.truncate_to(4, NOW_MS)
    abandon(log)
    return files.calls.index("sync_directory", before) + 1 - before


def test_begin_anew_below_the_old_start_and_above_the_old_end(tmp_path: Path) -> None:
    log = filled(tmp_path)
    log.delete_before(10)
    for offset in (100, 3, 50):
        log.reset_to(offset, NOW_MS)
        for _ in range(2):
            assert (log.log_start_offset, log.log_end_offset, contents(log)) == (offset, offset, [])
            abandon(log)
            log = opened(tmp_path)
    append(log, [b"new"], epoch=6)
    abandon(log)
    log = opened(tmp_path)
    assert contents(log) == [(50, b"new")]
    assert log.epochs.entries == ((6, 50),)
    abandon(log)


def test_transactions_and_dedup_ids_beyond_the_cut_are_forgotten(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.producers.dedup_ids.note("kept", 0, NOW_MS)
    append(log, [b"a"], producer_id=1, producer_epoch=0, base_sequence=0, attributes=TRANSACTIONAL)
    log.checkpoint()
    log.producers.dedup_ids.note("cut", 1, NOW_MS)
    append(log, [b"b"], producer_id=2, producer_epoch=0, base_sequence=0, attributes=TRANSACTIONAL)
    log.checkpoint()
    log.truncate_to(1, NOW_MS)
    assert log.producers.transactions.open() == {(1, 0): 0}
    assert log.producers.dedup_ids.find("cut", NOW_MS) is None
    abandon(log)


def test_a_full_disk_prevents_a_cut_and_changes_nothing(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = filled(tmp_path, files)
    log.sync()
    files.space_bytes = 0
    with pytest.raises(StorageFull):
        log.truncate_to(4, NOW_MS)
    files.space_bytes = None
    check(log, END)
    log.truncate_to(4, NOW_MS)
    check(log, 4)
    abandon(log)


def test_compaction_begins_again_at_a_cut(tmp_path: Path) -> None:
    """The record of compaction names no segment and no clean offset beyond the end."""
    config = unlimited(segment_bytes=150, is_compacting=True, is_deleting=False)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    written = {}
    for number in range(20):
        written |= append_keyed(log, [(b"k%d" % (number % 3), b"%d" % number)])
    written |= seal(log)
    compact(log)
    end = log.log_end_offset
    log.truncate_to(end - 1, NOW_MS)
    written = {offset: record for offset, record in written.items() if offset < log.log_end_offset}
    for _ in range(2):
        written |= append_keyed(log, [(b"k0", b"newest")])
        assert (log.losses, log.verify()) == ([], [])
        found = held(log)
        assert all(found.get(offset) == record for offset, record in newest(written).items())
        compact(log)
        abandon(log)
        log = PartitionLog.open(tmp_path, config, NOW_MS)
    abandon(log)


def test_an_epoch_that_was_ever_used_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path)
    for stale in (0, 4, 5):
        with pytest.raises(StaleLeaderEpoch):
            log.lead(stale)
    log.lead(9)
    abandon(log)
    log = opened(tmp_path)
    assert log.highest_leader_epoch == 9, "without a batch of it"
    with pytest.raises(StaleLeaderEpoch):
        log.lead(9)
    log.lead(10)
    log.close()


def test_no_batch_is_written_in_an_epoch_that_could_not_be_recorded(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = opened(tmp_path, files)
    append(log, [b"a"])
    files.space_bytes = 20
    log.lead(3)
    with pytest.raises(StorageFull):
        append(log, [b"b"], epoch=3)
    files.space_bytes = None
    append(log, [b"b"], epoch=3)
    abandon(log)
    files.lose_unsynced(random.Random(0))
    log = opened(tmp_path)
    assert log.highest_leader_epoch == 3
    abandon(log)


@pytest.mark.parametrize("lost", ["nothing", "checkpoint", "checkpoint and indexes"])
def test_the_table_of_epochs_is_a_function_of_the_log(tmp_path: Path, lost: str) -> None:
    log = filled(tmp_path)
    abandon(log)
    if lost != "nothing":
        (tmp_path / "checkpoint").unlink()
    if "indexes" in lost:
        for path in (*tmp_path.glob("*.index"), *tmp_path.glob("*.timeindex")):
            path.unlink()
    log = opened(tmp_path)
    check(log, END)
    log.delete_before(13)
    assert log.epochs.entries == ((5, 12),)
    abandon(log)
    log = opened(tmp_path)
    assert log.epochs.entries == ((5, 12),)
    abandon(log)


@pytest.mark.parametrize(
    ("epoch", "end"),
    [(0, (-1, 0)), (1, (1, 7)), (2, (2, 12)), (3, (2, 12)), (4, (2, 12)), (5, (5, 20)), (9, (5, 20))],
)
def test_ends_of_epochs(epoch: int, end: tuple[int, int]) -> None:
    assert EpochTable(EPOCHS).end_of(epoch, END) == end


def test_an_empty_log_has_no_epochs() -> None:
    assert EpochTable().end_of(4, 17) == (-1, 17)
