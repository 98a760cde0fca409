"""Damage below the recovery point: reported to its readers, never cut, and the rest is served."""

from pathlib import Path

import pytest

from log_batches import BIG, UNCLEAN, abandon, append, contents, flip, last_batch_position, open_log, segment
from planaria.actors.log.errors import CorruptLog
from planaria.transport.batch import split


def test_a_bit_flipped_anywhere_below_the_recovery_point_is_reported(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    log = open_log(origin)
    for value in (b"first", b"second", b"third"):
        append(log, [value, value])
    log.close()
    whole = segment(origin).read_bytes()
    start = split(whole)[0][0].size_bytes
    end = last_batch_position(whole)
    for position in range(start, end):
        flip(segment(origin), position, 1 << position % 8)
        log = open_log(origin)
        assert log.log_end_offset == 6
        with pytest.raises(CorruptLog) as caught:
            log.read(3, 1 << 20, BIG)
        assert caught.value.segment == segment(origin).name
        assert (caught.value.position, caught.value.next_offset) == (start, 4), position
        run, _ = log.read(0, 1 << 20, BIG)
        assert len(run) == start
        run, _ = log.read(4, 1 << 20, BIG)
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
    assert contents(log) == UNCLEAN[: batch_index * 2] + UNCLEAN[batch_index * 2 + 2 :]
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
