"""Rot of any width in segments written or read by compaction: intact records are read, the others named."""

import random
from pathlib import Path

import pytest

from keyed_logs import Written, append_keyed, compact, newest, seal
from log_batches import BIG, NOW_MS, abandon, unlimited
from planaria.actors.log.errors import CorruptLog
from planaria.actors.log.log import PartitionLog
from planaria.transport.batch import decode_records, split

PAGE_BYTES = 4096
KEYS = 60
Loss = tuple[int, int]
"""First lost offset, and the next intact one."""


def opened(path: Path, segment_bytes: int) -> PartitionLog:
    config = unlimited(
        segment_bytes=segment_bytes, is_compacting=True, is_deleting=False, min_cleanable_ratio=0.0
    )
    return PartitionLog.open(path, config, NOW_MS)


def filled(log: PartitionLog, draw: random.Random) -> Written:
    """Append old records of which few survive, here and there, so that compacted segments have gaps of every size."""
    written: Written = {}
    for number in range(draw.choice([150, 400])):
        key = b"once %d" % number if draw.random() < 0.2 else b"often %d" % draw.randrange(KEYS)
        records = [(key, draw.randbytes(draw.choice([10, 200, 900])))] * draw.choice([1, 1, 3])
        written |= append_keyed(log, records)
    return written | seal(log)


def rot(path: Path, draw: random.Random) -> set[int]:
    """Damage a stretch; return the offsets of the records whose batches have a byte in it."""
    whole = path.read_bytes()
    size_bytes = min(draw.choice([1, 100, PAGE_BYTES, PAGE_BYTES, 3 * PAGE_BYTES, len(whole)]), len(whole))
    anywhere = draw.randrange(len(whole) - size_bytes + 1)
    start = draw.choice([0, len(whole) - size_bytes, anywhere, anywhere // PAGE_BYTES * PAGE_BYTES])
    stuff = draw.choice([bytes(size_bytes), draw.randbytes(size_bytes), b"\xff" * size_bytes])
    now = whole[:start] + stuff + whole[start + size_bytes :]
    path.write_bytes(now)
    at, destroyed = 0, set[int]()
    for header, _ in split(whole):
        if now[at : at + header.size_bytes] != whole[at : at + header.size_bytes]:
            destroyed |= set(range(header.base_offset, header.next_offset))
        at += header.size_bytes
    return destroyed


def read_all(log: PartitionLog) -> tuple[Written, list[Loss]]:
    """Read as a consumer that continues after each loss."""
    found: Written = {}
    losses: list[Loss] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        before = offset
        try:
            run, offset = log.read(offset, 1 << 20, BIG)
        except CorruptLog as damage:
            losses.append((damage.offset, damage.next_offset))
            offset = damage.next_offset
        else:
            for header, frame in split(run):
                for at, record in enumerate(decode_records(frame, header), header.base_offset):
                    if at >= before:
                        found[at] = (record[0], record[1])
        assert offset > before, f"stuck at {before}"
    return found, losses


def judge(found: Written, losses: list[Loss], left: Written, destroyed: set[int]) -> None:
    assert found == {offset: record for offset, record in left.items() if offset not in destroyed}
    for first, following in losses:
        assert not any(first <= offset < following for offset in found), "what can be read is not lost"
        assert any(first <= offset < following for offset in destroyed), (
            "nothing is lost where nothing was hurt"
        )
    for offset in destroyed & left.keys():
        assert any(first <= offset < following for first, following in losses), f"{offset} is not named"


@pytest.mark.parametrize("seed", range(24))
def test_every_intact_record_of_a_compacted_segment_is_read_and_every_other_named(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    segment_bytes = draw.choice([5_000, 40_000, 1_000_000])
    log = opened(tmp_path, segment_bytes)
    written = filled(log, draw)
    compact(log)
    left, losses = read_all(log)
    assert not losses
    assert left == newest(written, sealed_below=log._compactor.cleaned.cleaned_offset)
    cleaned = [tmp_path / f"{base:020d}.log" for base in log._compactor.cleaned.segments]
    log.close()
    destroyed = set[int]()
    for path in draw.sample(cleaned, k=min(len(cleaned), draw.choice([1, 1, 2]))):
        if path.stat().st_size:
            destroyed |= rot(path, draw)
    if draw.random() < 0.5:
        for path in [*tmp_path.glob("*.index"), *tmp_path.glob("*.timeindex")]:
            path.unlink()
    log = opened(tmp_path, segment_bytes)
    judge(*read_all(log), left, destroyed)
    assert log.log_start_offset == 0
    abandon(log)


@pytest.mark.parametrize("when", ["before", "between two slices"])
@pytest.mark.parametrize("seed", range(12))
def test_rot_in_a_segment_under_compaction_costs_what_it_hit_and_nothing_else(
    tmp_path: Path, seed: int, when: str
) -> None:
    draw = random.Random(seed)
    log = opened(tmp_path, 5_000)
    written = filled(log, draw)
    sealed = [segment.path for segment in log._segments.all[:-2]]
    if when != "before":
        for _ in range(draw.randrange(1, 40)):
            log.compact(NOW_MS, 1)
    victims = [path for path in sealed if path.exists() and path.stat().st_size]
    # Records dropped by compaction so far are gone rightly.
    before, _ = read_all(log)
    destroyed = rot(draw.choice(victims), draw)
    compact(log)
    found, losses = read_all(log)
    # The newest record of a key is never dropped in favour of a destroyed one.
    for offset, record in newest(written, sealed_below=max(written) + 1).items():
        if offset in before and offset not in destroyed:
            assert found.get(offset) == record
    for first, following in losses:
        assert not any(first <= offset < following for offset in found)
    for offset in destroyed & newest(written).keys():
        assert any(first <= offset < following for first, following in losses)
    log.close()
    again = opened(tmp_path, 5_000)
    assert read_all(again) == (found, losses)
    assert again.log_end_offset == max(written) + 1
    abandon(again)
