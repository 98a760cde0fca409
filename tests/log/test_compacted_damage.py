"""Damage and compaction: it is left as it is and reported, and a gap is not taken for a loss."""

from pathlib import Path

import pytest

from keyed_logs import compact, expected, filled, held, opened
from log_batches import BIG, NOW_MS, abandon, flip, segment
from planaria.actors.log.companions import COMPACTION_NAME
from planaria.actors.log.errors import CorruptLog, Unreadable
from planaria.actors.log.files import Files
from planaria.transport.batch import split


def test_damage_is_left_as_it_is_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = opened(tmp_path)
    written = filled(log)
    victim = sorted(tmp_path.glob("*.log"))[2]
    flip(victim, len(victim.read_bytes()) // 2)
    before = victim.read_bytes()
    compact(log)
    assert victim.read_bytes() == before
    assert "is not compacted" in caplog.text
    (damage,) = log.verify()
    last = {key: at for at, (key, _) in written.items()}
    for key, at in last.items():
        if not damage.offset <= at < damage.next_offset:
            assert held(log, at)[at][0] == key
    abandon(log)


@pytest.mark.parametrize("cut_bytes", [1, 200])
def test_a_compacted_segment_that_was_cut_is_damaged(tmp_path: Path, cut_bytes: int) -> None:
    log = opened(tmp_path, segment_bytes=100_000)
    filled(log, keys=50)
    compact(log)
    log.close()
    path = segment(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut_bytes])
    log = opened(tmp_path)
    (damage,) = log.verify()
    with pytest.raises(CorruptLog):
        log.read(damage.offset, 1 << 20, BIG)
    abandon(log)


def test_a_flipped_bit_in_a_compacted_segment_is_reported(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=100_000)
    written = filled(log, keys=50)
    compact(log)
    left = expected(log, written)
    log.close()
    path = segment(tmp_path)
    whole = path.read_bytes()
    bounds = [(header.base_offset, header.next_offset) for header, _ in split(whole)]
    for position in range(0, len(whole), 13):
        path.write_bytes(whole)
        flip(path, position)
        log = opened(tmp_path)
        assert len(log.verify()) == 1, position
        lost = 0
        for offset in left:
            if offset >= bounds[-1][1]:
                continue
            try:
                run, _ = log.read(offset, 1, BIG)
            except CorruptLog as damage:
                lost += damage.next_offset > offset
            else:
                assert split(run)[0][0].base_offset <= offset < split(run)[0][0].next_offset
        assert lost >= 1
        abandon(log)


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_without_its_file_compaction_begins_anew_and_no_gap_reads_as_a_loss(
    tmp_path: Path, kind: str
) -> None:
    log = opened(tmp_path)
    written = filled(log)
    compact(log)
    left = expected(log, written)
    assert any(entry.end_offset < entry.next_offset for entry in log._compactor.cleaned.segments.values())
    log.close()
    (tmp_path / COMPACTION_NAME).unlink()
    if kind == "damaged":
        (tmp_path / COMPACTION_NAME).write_bytes(b"rot")
    for number in range(3):
        log = opened(tmp_path)
        assert log.lost_files == ([COMPACTION_NAME] if number == 0 else [])
        assert log.losses == []
        assert not log.verify()
        assert held(log).items() >= left.items()
        for offset in range(log.log_end_offset):
            log.read(offset, 1, BIG)
        if number == 1:
            compact(log, NOW_MS + 1)
        log.close()


def test_an_index_that_was_made_anew_shows_the_gap_of_its_segment_too(tmp_path: Path) -> None:
    """One of an empty segment is not made: such a segment is never searched."""
    log = opened(tmp_path)
    filled(log, keys=40)
    compact(log)
    log.close()
    for path in (*tmp_path.glob("*.index"), *tmp_path.glob("*.timeindex")):
        path.unlink()
    log = opened(tmp_path)
    held(log)
    with_gap = [
        base
        for base, entry in log._compactor.cleaned.segments.items()
        if entry.size_bytes and entry.end_offset < entry.next_offset
    ]
    assert with_gap
    log.close()
    (tmp_path / COMPACTION_NAME).unlink()
    log = opened(tmp_path)
    assert set(with_gap) <= log._compactor.cleaned.segments.keys()
    assert not any(loss.offset in with_gap or loss.position for loss in log.losses)
    log.close()


def test_without_its_file_and_the_indexes_gaps_read_as_losses_and_no_record_does(tmp_path: Path) -> None:
    log = opened(tmp_path)
    written = filled(log)
    compact(log)
    left = expected(log, written)
    log.close()
    for path in (tmp_path / COMPACTION_NAME, *tmp_path.glob("*.index"), *tmp_path.glob("*.timeindex")):
        path.unlink()
    log = opened(tmp_path)
    found: list[int] = []
    offset = 0
    while offset < log.log_end_offset:
        try:
            run, _ = log.read(offset, 1, BIG)
        except CorruptLog as damage:
            offset = damage.next_offset
            continue
        header = split(run)[0][0]
        found += range(header.base_offset, header.next_offset)
        offset = header.next_offset
    assert found == sorted(left)
    abandon(log)


class _Unreadable(Files):
    """The device cannot read some bytes of one file."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._bad: set[int] = set()

    def open_read(self, path: Path) -> int:
        descriptor = super().open_read(path)
        self._bad.discard(descriptor)
        if path.name == self.name:
            self._bad.add(descriptor)
        return descriptor

    def read(self, descriptor: int, size_bytes: int, position: int) -> bytes:
        if descriptor in self._bad:
            raise Unreadable("the device cannot read")
        return super().read(descriptor, size_bytes, position)


def test_a_sector_that_cannot_be_read_costs_its_segment_alone(tmp_path: Path) -> None:
    log = opened(tmp_path)
    filled(log)
    names = sorted(path.name for path in tmp_path.glob("*.log"))
    log.close()
    log = opened(tmp_path, _Unreadable(names[2]))
    compact(log)
    assert (tmp_path / names[2]).stat().st_size > 900
    assert (tmp_path / names[1]).stat().st_size < 900
    abandon(log)
