"""A log copied from one that compaction has been at: offsets are missing, anywhere, and that is no damage."""

import random
from pathlib import Path

import pytest

from log_batches import NOW_MS, abandon, batch, contents, open_log
from planaria.actors.log.errors import CorruptLog

SEGMENT_BYTES = 300


def copied(path: Path, seed: int) -> list[tuple[int, bytes]]:
    """Append batches with gaps between them, over several segments."""
    draw = random.Random(seed)
    log = open_log(path, segment_bytes=SEGMENT_BYTES)
    found, offset = [], 0
    for _ in range(25):
        offset += draw.choice([0, 0, 1, 40])
        values = [b"%d" % (offset + at) * 8 for at in range(draw.randint(1, 3))]
        frame, header = batch(offset, values, epoch=3)
        log.append([frame], [header], NOW_MS)
        found += [(offset + at, value) for at, value in enumerate(values)]
        offset += len(values)
    assert log.log_end_offset == offset
    if draw.random() < 0.5:
        log.checkpoint()
    assert contents(log) == found
    abandon(log)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("lost", ["", "checkpoint", "*.index"])
def test_gaps_survive_any_recovery(tmp_path: Path, seed: int, lost: str) -> None:
    written = copied(tmp_path, seed)
    for path in tmp_path.glob(lost) if lost else ():
        path.unlink()
    for max_bytes in (1, 1 << 20):
        log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
        assert (log.losses, log.verify()) == ([], [])
        assert contents(log, max_bytes=max_bytes) == written
        for offset in range(log.log_end_offset):
            assert contents(log, offset, max_bytes) == [each for each in written if each[0] >= offset]
        abandon(log)


def test_a_log_with_gaps_is_cut_where_a_batch_begins(tmp_path: Path) -> None:
    written = copied(tmp_path, seed=3)
    log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    for offset in sorted({offset for offset, _ in written}, reverse=True):
        log.truncate_to(offset, NOW_MS)
        left = [each for each in written if each[0] < log.log_end_offset]
        assert log.log_end_offset <= offset
        assert contents(log) == left
    abandon(log)


def test_a_missing_segment_is_still_noticed(tmp_path: Path) -> None:
    written = copied(tmp_path, seed=5)
    bases = sorted(int(path.stem) for path in tmp_path.glob("*.log"))
    (tmp_path / f"{bases[1]:020d}.log").unlink()
    log = open_log(tmp_path, segment_bytes=SEGMENT_BYTES)
    assert [(loss.offset, loss.next_offset) for loss in log.losses] == [(bases[1], bases[2])]
    with pytest.raises(CorruptLog):
        log.read(bases[1], 1 << 20, log.log_end_offset)
    assert contents(log) == [each for each in written if not bases[1] <= each[0] < bases[2]]
    abandon(log)
