"""A death before any system call of a compaction leaves the old or the new segments."""

import random
import shutil
from pathlib import Path

import pytest

from faulty_files import Died, FaultyFiles
from keyed_logs import (
    Written,
    append_keyed,
    held,
    in_batches,
    opened,
    seal,
)
from log_batches import NOW_MS, abandon
from planaria.actors.log.cleaned import CLEANED_SUFFIX, load_cleaned
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog


def _live(directory: Path, files: FaultyFiles, before: Path | None = None) -> Written:
    log = opened(directory, files, delete_retention_ms=0, segment_bytes=400)
    written: Written = {}
    try:
        records: list[tuple[bytes | None, bytes | None]] = [
            (b"k%d" % (number % 3), None if number % 5 == 4 else b"v%d" % number) for number in range(20)
        ]
        for batch in in_batches(records, 4):
            written |= append_keyed(log, batch)
        written |= seal(log)
        files.calls.append("compaction")
        for now_ms in (NOW_MS, NOW_MS + 1):
            while log.compact(now_ms, 1):
                pass
        written |= append_keyed(log, [(b"k0", b"end")])
        log.close()
    finally:
        files.die_before = -1
        log.close(clean=False)
    return written


@pytest.mark.parametrize(
    ("power", "every"),
    [
        ("on", 2),
        ("cut", 2),
        *(pytest.param(*case, marks=pytest.mark.chaos) for case in [("on", 1), ("cut", 1)]),
    ],
)
def test_dying_before_any_call_leaves_the_old_or_the_new(tmp_path: Path, power: str, every: int) -> None:
    """The ordinary run takes every other call with each state of the power, and so all calls."""
    counting = FaultyFiles()
    written = _live(tmp_path / "all", counting)
    first = counting.calls.index("compaction")
    assert len(counting.calls) - first > 50
    begin = first + 1 + (every - 1) * (power == "cut")
    for die_before in range(begin, len(counting.calls), every):
        directory = tmp_path / str(die_before)
        files = FaultyFiles(die_before)
        with pytest.raises(Died):
            _live(directory, files)
        files.release()
        if power == "cut":
            files.lose_unsynced(random.Random(die_before))
        second = FaultyFiles()
        log = opened(directory, second, delete_retention_ms=0, segment_bytes=400)
        _judge(log, written)
        assert not list(directory.glob(f"*{CLEANED_SUFFIX}"))
        assert load_cleaned(directory, Files()).swap is None or log.segment_count
        for now_ms in (NOW_MS, NOW_MS + 1):
            while log.compact(now_ms, 1):
                pass
        _judge(log, written)
        abandon(log)


def _judge(log: PartitionLog, written: Written) -> None:
    found = held(log)
    known = {offset: record for offset, record in written.items() if offset < log.log_end_offset}
    assert found.items() <= known.items()
    last = {key: offset for offset, (key, _) in sorted(known.items())}
    for key, offset in last.items():
        if known[offset][1] is not None:
            assert offset in found, key
        elif offset not in found:
            assert key not in {found_key for found_key, _ in found.values()}, "a deleted key came back"
    assert not log.verify()
    assert log.log_start_offset == 0


def test_dying_while_recovery_finishes_a_swap(tmp_path: Path) -> None:
    counting = FaultyFiles()
    written = _live(tmp_path / "all", counting)
    swaps = [at for at, call in enumerate(counting.calls) if call == "rename"]
    first = counting.calls.index("compaction")
    tried = 0
    for die_before in (at for at in swaps if at > first):
        left_behind = tmp_path / f"{die_before}"
        with pytest.raises(Died):
            _live(left_behind, FaultyFiles(die_before))
        for die_again in range(40):
            directory = tmp_path / f"{die_before}-{die_again}"
            shutil.copytree(left_behind, directory)
            files = FaultyFiles(die_again)
            try:
                abandon(opened(directory, files, segment_bytes=400))
            except Died:
                files.die_before = -1
                files.release()
                tried += 1
            else:
                break
            log = opened(directory, segment_bytes=400)
            _judge(log, written)
            abandon(log)
    assert tried > 20
