"""A device with unreadable sectors: their readers get an error, all others are served, and nothing is cut."""

import errno
import os
from pathlib import Path

import pytest

from log_batches import BIG, append, contents, open_log, segment
from planaria.actors.log.errors import CorruptLog, StorageFailed, Unreadable
from planaria.actors.log.files import Files
from planaria.transport.batch import split


class BadSector(Files):
    """Reads that touch the bytes from `start` to `end` of any file fail, as on a disk with a bad sector."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.end = 0

    def _pread(self, descriptor: int, size_bytes: int, position: int) -> bytes:
        if position < self.end and self.start < position + size_bytes:
            raise Unreadable(f"the device cannot read {size_bytes} bytes at {position}")
        return super()._pread(descriptor, size_bytes, position)


def starts(path: Path) -> list[int]:
    """Return the position of each batch of the file, and the end."""
    positions = [0]
    for header, _ in split(path.read_bytes()):
        positions.append(positions[-1] + header.size_bytes)
    return positions


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize(("at", "is_next_found"), [(100, True), (5, False)], ids=["body", "head"])
def test_only_the_unreadable_batch_is_refused(
    tmp_path: Path, at: int, is_next_found: bool, is_sealed: bool
) -> None:
    files = BadSector()
    log = open_log(tmp_path, files, segment_bytes=1100 if is_sealed else 1 << 20)
    for number in range(5):
        append(log, [b"%d" % number * 200])
    log.sync()
    sizes = starts(segment(tmp_path))
    if is_sealed:
        assert log.segment_count == 2
    files.start = sizes[2] + at
    files.end = files.start + 8
    run, _ = log.read(0, 1 << 20, BIG)
    assert len(run) == sizes[1], "what lies before the bad sector is served, a batch at a time"
    run, _ = log.read(1, 1 << 20, BIG)
    assert len(run) == sizes[2] - sizes[1]
    for _ in range(2):
        with pytest.raises(CorruptLog, match="cannot read") as caught:
            log.read(2, 1 << 20, BIG)
        assert caught.value.offset == 2
        assert caught.value.next_offset == (3 if is_next_found else 4 if is_sealed else 5)
    if is_next_found:
        run, _ = log.read(3, 1 << 20, BIG)
        assert split(run)[0][0].base_offset == 3
    append(log, [b"more"])
    log.sync()
    files.start = files.end = 0
    assert [offset for offset, _ in contents(log)] == [*range(6)]
    log.close()


def test_a_search_by_time_and_a_check_are_told_too(tmp_path: Path) -> None:
    files = BadSector()
    log = open_log(tmp_path, files)
    for number in range(3):
        append(log, [b"%d" % number * 200], timestamps_ms=[1_000 + number])
    files.start, files.end = 300, 308
    with pytest.raises(CorruptLog):
        log.offset_for_timestamp(1_002)
    assert log.offset_for_timestamp(1) == (0, 1_000)
    [damage] = log.verify()
    assert (damage.offset, damage.next_offset) == (1, 3)
    append(log, [b"more"])
    log.sync()
    files.start = files.end = 0
    log.close()


def test_recovery_never_cuts_what_cannot_be_read(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a" * 200])
    log.checkpoint()
    append(log, [b"b" * 200])
    log.sync()
    size_bytes = segment(tmp_path).stat().st_size
    files = BadSector()
    files.start, files.end = size_bytes - 20, size_bytes
    with pytest.raises(StorageFailed):
        open_log(tmp_path, files)
    assert segment(tmp_path).stat().st_size == size_bytes
    log = open_log(tmp_path)
    assert log.log_end_offset == 2
    log.close()


def test_only_eio_is_a_bad_sector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, expected in ((errno.EIO, True), (errno.EBADF, False)):

        def pread(*_: int, number: int = number) -> bytes:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "pread", pread)
        with pytest.raises(StorageFailed) as caught:
            Files().read(0, 10, 0)
        assert isinstance(caught.value, Unreadable) == expected
