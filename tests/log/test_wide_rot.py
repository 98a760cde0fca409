"""Damage of any width, anywhere below the recovery point: intact records are read, lost ones named to the offset."""

import random
from pathlib import Path

import pytest

from log_batches import BIG, append, open_log, segment
from planaria.actors.log import segment_reading
from planaria.actors.log.errors import CorruptLog
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.scan import SearchUnfinished
from planaria.transport.batch import BatchHeader, split

PAGE_BYTES = 4096


def _write(directory: Path, draw: random.Random, segment_bytes: int) -> list[BatchHeader]:
    log = open_log(directory, segment_bytes=segment_bytes)
    headers = []
    for _ in range(draw.choice([5, 60, 200])):
        records, size_bytes = draw.choice([1, 1, 1, 3, 50]), draw.choice([5, 100, 2000])
        headers.append(append(log, [draw.randbytes(size_bytes) for _ in range(records)]))
    log.close()
    return headers


def _damage(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        return
    size_bytes = min(draw.choice([1, 4, 100, PAGE_BYTES, PAGE_BYTES, 5 * PAGE_BYTES]), len(data))
    anywhere = draw.randrange(len(data) - size_bytes + 1)
    start = draw.choice([0, len(data) - size_bytes, anywhere, anywhere // PAGE_BYTES * PAGE_BYTES])
    rot = draw.choice(
        [bytes(size_bytes), draw.randbytes(size_bytes), b"\xff" * size_bytes, b"\x01" * size_bytes]
    )
    data[start : start + size_bytes] = rot
    path.write_bytes(data)


def _intact(before: dict[Path, bytes]) -> set[int]:
    found = set()
    for path, whole in before.items():
        position, now = 0, path.read_bytes()
        for header, _ in split(whole):
            end = position + header.size_bytes
            if now[position:end] == whole[position:end]:
                found.add(header.base_offset)
            position = end
    return found


@pytest.mark.parametrize("seed", range(60))
def test_every_intact_batch_is_read_and_every_other_one_named(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    segment_bytes = draw.choice([3_000, 20_000, 200_000, -1])
    headers = _write(tmp_path, draw, segment_bytes)
    before = {path: path.read_bytes() for path in sorted(tmp_path.glob("*.log"))}
    for _ in range(draw.choice([1, 1, 2, 4])):
        _damage(draw.choice(list(before)), draw)
    if draw.random() < 0.5:
        for path in [*tmp_path.glob("*.index"), *tmp_path.glob("*.timeindex")]:
            path.unlink()
    intact = _intact(before)
    end_offset = headers[-1].next_offset
    log = open_log(tmp_path, segment_bytes=segment_bytes)
    assert log.log_end_offset == end_offset
    next_intact = end_offset
    for header in reversed(headers):
        for offset in (header.base_offset, header.next_offset - 1):
            if header.base_offset in intact:
                run, _ = log.read(offset, 1 << 20, BIG)
                assert split(run)[0][0].base_offset == header.base_offset
            else:
                with pytest.raises(CorruptLog) as caught:
                    log.read(offset, 1 << 20, BIG)
                assert (caught.value.offset, caught.value.next_offset) == (offset, next_intact)
        if header.base_offset in intact:
            next_intact = header.base_offset
    log.close()


def test_a_flipped_length_hides_one_batch(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(6):
        append(log, [b"%d" % number])
    log.close()
    data = bytearray(segment(tmp_path).read_bytes())
    size_bytes = split(bytes(data))[0][0].size_bytes
    data[2 * size_bytes + 13] ^= 0x40
    segment(tmp_path).write_bytes(data)
    log = open_log(tmp_path)
    with pytest.raises(CorruptLog) as caught:
        log.read(2, 100, BIG)
    assert (caught.value.position, caught.value.next_offset) == (2 * size_bytes, 3)
    log.close()


def test_a_batch_inside_a_record_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    """A value may hold batches of another log. If its own batch's header is damaged, they are exposed."""
    other = open_log(tmp_path / "other")
    for number in range(50):
        append(other, [b"%d" % number])
    other.close()
    foreign = segment(tmp_path / "other").read_bytes()
    log = open_log(tmp_path / "log")
    append(log, [b"a"])
    append(log, [foreign[split(foreign)[0][0].size_bytes * 30 :]])
    append(log, [b"c"])
    log.close()
    data = bytearray(segment(tmp_path / "log").read_bytes())
    data[split(bytes(data))[0][0].size_bytes + 5] ^= 1
    segment(tmp_path / "log").write_bytes(data)
    log = open_log(tmp_path / "log")
    with pytest.raises(CorruptLog) as caught:
        log.read(1, 100, BIG)
    assert caught.value.next_offset == 2
    log.close()


@pytest.mark.parametrize("rot", ["zeros", "random", "ones"])
def test_a_long_damaged_stretch_is_searched_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rot: str
) -> None:
    monkeypatch.setattr(segment_reading, "SEARCH_BYTES", 64 * 1024)
    log = open_log(tmp_path)
    for _ in range(2_000):
        append(log, [bytes(500)])
    log.close()
    data = bytearray(segment(tmp_path).read_bytes())
    headers = [header for header, _ in split(bytes(data))]
    size_bytes = headers[0].size_bytes * 1_900
    fill = {
        "zeros": bytes(size_bytes),
        "random": random.Random(1).randbytes(size_bytes),
        "ones": b"\1" * size_bytes,
    }
    data[:size_bytes] = fill[rot]
    segment(tmp_path).write_bytes(data)
    log = open_log(tmp_path)
    steps, damage = _read_damage(log)
    assert damage.next_offset == 1_900
    assert size_bytes // (64 * 1024) - 1 <= steps <= size_bytes // (64 * 1024) + 2
    run, _ = log.read(1_900, 1 << 20, BIG)
    assert split(run)[0][0].base_offset == 1_900
    log.close()


def _read_damage(log: PartitionLog) -> tuple[int, CorruptLog]:
    """Read offset 0 until the log reports the loss; return the number of reads before the last."""
    for steps in range(1_000):
        try:
            log.read(0, 1 << 20, BIG)
        except SearchUnfinished:
            continue
        except CorruptLog as damage:
            return steps, damage
    raise AssertionError("nothing was said to be damaged")


def test_a_time_is_found_behind_damage(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(6):
        append(log, [b"%d" % number], timestamps_ms=[1_000 + number])
    log.close()
    data = bytearray(segment(tmp_path).read_bytes())
    size_bytes = split(bytes(data))[0][0].size_bytes
    data[size_bytes : 3 * size_bytes] = bytes(2 * size_bytes)
    segment(tmp_path).write_bytes(data)
    log = open_log(tmp_path)
    assert log.offset_for_timestamp(1_005) == (5, 1_005)
    assert log.offset_for_timestamp(1_001) == (3, 1_003)
    log.close()
