"""Space preallocated after the last batch: invisible, removed before the next segment, no damage after a kill."""

import logging
from pathlib import Path

import pytest

from faulty_files import FaultyFiles
from log_batches import abandon, append, contents, make_room_early, open_log, segment
from planaria.actors.log.errors import StorageFull

ROOM_BYTES = 1_000


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    make_room_early(monkeypatch, ROOM_BYTES)


def test_nobody_sees_the_room(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(5):
        append(log, [b"%d" % number])
        log.sync()
    assert segment(tmp_path).stat().st_size > log.size_bytes
    assert contents(log) == [(number, b"%d" % number) for number in range(5)]
    assert not log.verify()
    log.close()
    assert segment(tmp_path).stat().st_size == log.size_bytes


def test_a_killed_owners_room_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"])
    log.sync()
    size_bytes = log.size_bytes
    abandon(log)
    with caplog.at_level(logging.WARNING):
        log = open_log(tmp_path)
    assert not caplog.records
    assert not list(tmp_path.glob("*.torn"))
    assert (log.size_bytes, segment(tmp_path).stat().st_size) == (size_bytes, size_bytes)
    append(log, [b"b"])
    assert contents(log) == [(0, b"a"), (1, b"b")]
    log.close()


def test_a_batch_torn_inside_the_room_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"])
    log.sync()
    end = log.size_bytes
    append(log, [b"torn" * 10])
    abandon(log)
    with segment(tmp_path).open("r+b") as file:
        file.seek(end + 70)
        file.write(bytes(30))
    log = open_log(tmp_path)
    assert "cutting" in caplog.text
    assert contents(log) == [(0, b"a")]
    assert segment(tmp_path).stat().st_size == end
    log.close()


def test_a_sealed_segment_has_no_room(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=300)
    for _ in range(4):
        append(log, [b"x" * 100])
        log.sync()
    abandon(log)
    *sealed, _ = sorted(tmp_path.glob("*.log"))
    assert sealed
    log = open_log(tmp_path)
    assert not log.verify()
    assert log.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    log.close()


def test_a_disk_without_space_for_room_still_takes_batches(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, files)
    files.space_bytes = ROOM_BYTES // 2
    append(log, [b"a"])
    assert segment(tmp_path).stat().st_size == log.size_bytes
    with pytest.raises(StorageFull):
        append(log, [b"b" * ROOM_BYTES])
    append(log, [b"c"])
    log.sync()
    assert contents(log) == [(0, b"a"), (1, b"c")]
    abandon(log)
