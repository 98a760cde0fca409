"""A disk that is full, and a disk that fails."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faulty_files import Died, FaultyFiles
from log_batches import BIG, NOW_MS, abandon, append, batch, contents, open_log, unlimited
from patience import TIMEOUT_S
from planaria.actors.log.errors import StorageFailed, StorageFull
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.producers import Accept


@pytest.mark.parametrize("space_bytes", range(0, 400, 7))
def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, space_bytes: int) -> None:
    """Wherever the space ends: in a batch, an index, a snapshot, a checkpoint."""
    files = FaultyFiles()
    log = open_log(tmp_path, files, segment_bytes=300)
    append(log, [b"a" * 50], producer_id=1, producer_epoch=0, base_sequence=0)
    append(log, [b"b" * 50], producer_id=1, producer_epoch=0, base_sequence=1)
    log.sync()
    before = (contents(log), log.size_bytes, log.segment_count, log.producers.get(1))
    files.space_bytes = space_bytes
    with contextlib.suppress(StorageFull):
        while True:
            append(log, [b"c" * 50], producer_id=1, producer_epoch=0, base_sequence=log.log_end_offset)
            log.sync()
            before = (contents(log), log.size_bytes, log.segment_count, log.producers.get(1))
    assert (contents(log), log.size_bytes, log.segment_count, log.producers.get(1)) == before
    end = log.log_end_offset
    files.space_bytes = None
    append(log, [b"d"], producer_id=1, producer_epoch=0, base_sequence=end)
    assert contents(log) == [*before[0], (end, b"d")]
    log.sync()
    abandon(log)
    log = open_log(tmp_path)
    assert contents(log) == [*before[0], (end, b"d")]
    assert not log.verify()
    log.close()


def test_what_a_turn_decided_is_forgotten_when_the_disk_is_full(tmp_path: Path) -> None:
    """Otherwise the producer's retry would count as a repeat of an unwritten batch: an acknowledged loss."""
    files = FaultyFiles()
    log = open_log(tmp_path, files)
    frame, header = batch(0, [b"a"], producer_id=1, producer_epoch=0, base_sequence=0)
    log.producers.apply(header)
    files.space_bytes = 20
    with pytest.raises(StorageFull):
        log.append([frame], [header], NOW_MS)
    assert log.producers.check(header) == Accept()
    files.space_bytes = None
    log.producers.apply(header)
    log.append([frame], [header], NOW_MS)
    log.close()


def test_a_roll_that_found_no_room_for_a_name(tmp_path: Path) -> None:
    class NoRoomForNames(FaultyFiles):
        def open_write(self, path: Path) -> int:
            if path.suffix == ".log" and not path.exists() and list(path.parent.glob("*.log")):
                raise StorageFull("no room for another name")
            return super().open_write(path)

    log = open_log(tmp_path, NoRoomForNames(), segment_bytes=300)
    append(log, [b"a" * 100])
    with pytest.raises(StorageFull):
        append(log, [b"b" * 250])
    append(log, [b"c"])
    log.sync()
    abandon(log)
    log = open_log(tmp_path)
    assert contents(log) == [(0, b"a" * 100), (1, b"c")]
    log.close()


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "close"])
def test_a_sync_that_finds_no_room_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """File systems that reserve late report a full disk here, when the data is already lost."""

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, call, no_space)
    files = Files()
    operations: dict[str, Callable[[], None]] = {
        "fdatasync": lambda: files.sync_data(0),
        "fsync": lambda: files.sync_directory(tmp_path),
        "close": lambda: files.close(0),
    }
    with pytest.raises(StorageFailed):
        operations[call]()


def test_a_failure_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    files = Files()
    descriptor = files.open_append(tmp_path / "log")
    monkeypatch.setattr(os, "writev", no_space)
    with pytest.raises(StorageFull, match=r"^cannot append to .*/log: no space left$"):
        files.append(descriptor, [b"a"], 1)
    files.close(descriptor)
    with pytest.raises(StorageFull, match=rf"^cannot append to descriptor {descriptor}: no space left$"):
        files.append(descriptor, [b"a"], 1)


def test_a_checkpoint_on_a_full_disk_is_put_off(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, files)
    append(log, [b"a"])
    files.space_bytes = 10
    assert not log.checkpoint()
    files.space_bytes = None
    assert log.checkpoint()
    log.close()


def test_retention_frees_a_full_disk(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, files, segment_bytes=300)
    for number in range(10):
        append(log, [b"%d" % number * 50])
    files.space_bytes = 0
    with pytest.raises(StorageFull):
        append(log, [b"x" * 500])
    log.reconfigure(unlimited(segment_bytes=300, retention_bytes=600))
    start = log.apply_retention(NOW_MS)
    assert start > 0
    append(log, [b"y"])
    found = contents(log)
    assert found[0][0] == start
    assert found[-1] == (10, b"y")
    log.close()


def test_a_deletion_that_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    class NoRoomForNames(FaultyFiles):
        def rename(self, source: Path, target: Path) -> None:
            if source.suffix == ".start":
                raise StorageFull("no room for another name")
            super().rename(source, target)

    log = open_log(tmp_path, NoRoomForNames(), segment_bytes=300)
    for number in range(6):
        append(log, [b"%d" % number * 50])
    log.sync()
    with pytest.raises(StorageFull):
        log.delete_before(1)
    log.reconfigure(unlimited(segment_bytes=300, retention_bytes=300))
    assert log.apply_retention(NOW_MS) == log.log_start_offset == 0
    assert [offset for offset, _ in contents(log)] == list(range(6))
    log.close()


def test_a_kill_in_a_deletion_on_a_full_disk_is_no_loss(tmp_path: Path) -> None:
    """No checkpoint can be written: the start is known all the same, and deleted segments do not count as missing."""

    def live(directory: Path, files: FaultyFiles) -> PartitionLog:
        log = open_log(directory, files, segment_bytes=300)
        for number in range(10):
            append(log, [b"%d" % number * 50])
        log.sync()
        files.space_bytes = 0
        files.calls.clear()
        files.die_before = die_before
        log.reconfigure(unlimited(segment_bytes=300, retention_bytes=600))
        log.apply_retention(NOW_MS)
        return log

    starts = set()
    for die_before in range(100):
        files = FaultyFiles()
        try:
            abandon(live(tmp_path / str(die_before), files))
        except Died:
            files.die_before = -1
        else:
            break
        files.release()
        log = open_log(tmp_path / str(die_before), segment_bytes=300)
        assert not log.losses
        assert [offset for offset, _ in contents(log)] == list(range(log.log_start_offset, 10))
        starts.add(log.log_start_offset)
        abandon(log)
    assert len(starts) == 2


def test_after_a_failed_sync_the_log_refuses_everything(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, files)
    append(log, [b"a"])
    log.sync()
    append(log, [b"b"])
    files.fail_syncs = True
    with pytest.raises(StorageFailed):
        log.sync()
    files.fail_syncs = False
    for refused in (
        log.sync,
        log.checkpoint,
        lambda: append(log, [b"c"]),
        lambda: log.read(0, 100, BIG),
        lambda: log.delete_before(1),
        lambda: log.apply_retention(NOW_MS),
        lambda: log.offset_for_timestamp(0),
        log.close,
    ):
        with pytest.raises(StorageFailed):
            refused()
    abandon(log)


def test_what_a_failed_sync_left_in_the_cache_is_written_anew(tmp_path: Path) -> None:
    """The kernel marks those pages clean: it would never write them again on its own."""
    files = FaultyFiles()
    log = open_log(tmp_path, files)
    append(log, [b"a"])
    files.fail_syncs = True
    with pytest.raises(StorageFailed):
        log.sync()
    abandon(log)
    assert (tmp_path / "sync-failed").exists()
    again = FaultyFiles()
    log = open_log(tmp_path, again)
    assert again.calls.index("rewrite") < again.calls.index("sync_data")
    assert not (tmp_path / "sync-failed").exists()
    assert contents(log) == [(0, b"a")]
    log.close()


def test_recovery_that_cannot_sync_leaves_the_note(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    append(log, [b"a"])
    abandon(log)
    files = FaultyFiles()
    files.fail_syncs = True
    with pytest.raises(StorageFailed):
        open_log(tmp_path, files)
    assert (tmp_path / "sync-failed").exists()


# -- the real operating system

_UNDER_A_FILE_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from log_batches import append, contents, open_log
from planaria.actors.log.errors import StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
log = open_log(Path(sys.argv[1]))
try:
    while True:
        append(log, [b"x" * 700])
        log.sync()
except StorageFull:
    pass
assert log.size_bytes == sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.log"))
full = len(contents(log))
assert full >= 10, full
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
append(log, [b"y"])
assert contents(log)[-1] == (full, b"y")
log.close()
print("survived", full)
"""


def test_a_short_write_under_a_file_size_limit(tmp_path: Path) -> None:
    support = Path(__file__).parents[1] / "support"
    done = subprocess.run(
        [sys.executable, "-c", _UNDER_A_FILE_SIZE_LIMIT, str(tmp_path / "log"), str(support)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout.startswith("survived"), done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root on Linux")
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount_point], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield mount_point
    subprocess.run(["umount", "-l", mount_point], check=True)


def test_a_device_without_space(small_disk: Path) -> None:
    log = open_log(small_disk / "log", segment_bytes=40_000)
    with contextlib.suppress(StorageFull):
        while log.log_end_offset < 1000:
            append(log, [b"x" * 3000])
            log.sync()
    written = contents(log)
    assert 20 < len(written) < 1000
    log.reconfigure(unlimited(segment_bytes=40_000, retention_bytes=100_000))
    assert log.apply_retention(NOW_MS) > 0
    append(log, [b"y" * 3000])
    assert contents(log)[-1] == (len(written), b"y" * 3000)
    log.close()
    log = open_log(small_disk / "log", segment_bytes=40_000)
    assert contents(log)[-1] == (len(written), b"y" * 3000)
    log.close()


def test_files_translate_errors(tmp_path: Path) -> None:
    files = Files()
    with pytest.raises(StorageFailed, match="cannot open"):
        files.open_read(tmp_path / "missing")
    with pytest.raises(StorageFailed, match="cannot list"):
        files.names(tmp_path / "missing")
    assert files.read_whole(tmp_path / "missing") is None
    files.unlink(tmp_path / "missing")


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """writev may write any part of its buffers, ending anywhere in any of them."""
    real = os.writev
    for step in (1, 2, 3, 7):
        path = tmp_path / f"{step}"
        files = Files()
        descriptor = files.open_append(path)
        limited = lambda fd, buffers, step=step: real(fd, [b"".join(map(bytes, buffers))[:step]])  # noqa: E731
        monkeypatch.setattr(os, "writev", limited)
        files.append(descriptor, [b"abc", b"", memoryview(b"defgh"), b"i"], 9)
        monkeypatch.setattr(os, "writev", real)
        files.close(descriptor)
        assert path.read_bytes() == b"abcdefghi"


def test_a_write_without_progress_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files()
    descriptor = files.open_append(tmp_path / "file")
    monkeypatch.setattr(os, "writev", lambda *_: 0)
    with pytest.raises(StorageFull):
        files.append(descriptor, [b"abc"], 3)
    files.close(descriptor)
