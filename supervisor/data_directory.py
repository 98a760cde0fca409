"""The data directory as a whole: its format, its owner, its number of starts. Its contents belong to the actors.

    format.json        {"format": 1}: an older program refuses a newer directory
    supervisor.lock    flock and record lock, held by the one supervisor for life; contains its process id, followed by
                       "stopping" once it stops: a new supervisor waits for one that stops, and kills it after
                       STOPPING_MS
    supervisor.json    {"starts": n}: numbers the run directories
    node.json          {"node", "data_id", "cluster"}: of a node of a cluster, node.py
    disk.json          the generation of that node's directory, by which an old copy is recognised; the controller's
    clock.json         {"boot", "anchor_ns", "slept_ns"}: origin of the broker's steady clock, transport/clock.py;
                       rewritten when the machine has booted since, or when it cannot be read
    .restoring~        a restore was cut off: no broker starts here
    actors.lock        shared flock and record lock, held by every actor for life: a new supervisor waits until the last
                       actors of its predecessor are gone, and kills the remaining ones (stopped ones never exit): the
                       record lock names its holder

Opened by __main__.py before anything is started.
"""

import contextlib
import fcntl
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..transport.clock import is_current, new_origin
from ..transport.origin import Origin

FORMAT = 1
RESTORING_NAME = ".restoring~"
"""The mark of a directory that is being restored, actors/backup/restore.py."""
NOTICE_MS = 1_000
"""Time for a supervisor whose program has died to notice and mark itself as stopping."""
STOPPING_MS = 40_000
"""Time for a supervisor to stop: that of its handlers (SHUTDOWN_MS of a subscriber) and of the other actors."""
PREDECESSORS_MS = 2_000
"""Time for the actors of a killed supervisor to exit. Not a guarantee: each has its own lock as well."""
KILLED_MS = 1_000
"""Time for them to be gone after SIGKILL."""
_PAUSE_S = 0.01
_STOPPING = "stopping"


class DataDirectoryError(Exception):
    """The directory cannot be used; the message is one line for the operator."""


class DirectoryInUse(DataDirectoryError):
    """Another supervisor holds the directory."""

    def __init__(self, path: Path, pid: str, is_stopping: bool) -> None:
        super().__init__(
            f"data directory {path} is in use by the supervisor with process id {pid}"
            f"{', which is stopping' if is_stopping else ''}"
        )
        self.is_stopping = is_stopping


class _Format(msgspec.Struct):
    format: int


class _Starts(msgspec.Struct):
    starts: int = 0


class DataDirectory:
    """An open, locked data directory."""

    def __init__(self, path: Path, starts: int, clock: Origin, lock: int) -> None:
        self.path = path
        self.clock = clock
        self.starts = starts
        """Number of this start, from 1."""
        self._lock = lock

    def say_stopping(self) -> None:
        """Announce to a successor that it may wait for this supervisor's end."""
        os.pwrite(self._lock, f"{os.getpid()} {_STOPPING}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._lock)


def open_data_directory(path: Path, is_cancelled: Callable[[], bool] = lambda: False) -> DataDirectory:
    """Create or check the directory, lock it, and count the start.

    Waits for a supervisor that stops, until `is_cancelled`. Raises DataDirectoryError.
    """
    path = Path(os.path.realpath(path))
    try:
        path.mkdir(parents=True, exist_ok=True)
        _sync_names_above(path)
        lock = _await_lock(path, is_cancelled)
    except OSError as error:
        raise DataDirectoryError(f"data directory {path} is not usable: {error.strerror}") from error
    try:
        _check_format(path)
        starts = _count_start(path)
        clock = _clock(path)
    except OSError as error:
        os.close(lock)
        raise DataDirectoryError(f"data directory {path} is not writable: {error.strerror}") from error
    except DataDirectoryError:
        os.close(lock)
        raise
    return DataDirectory(path, starts, clock, lock)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an existing directory against supervisors in the block. Raises DataDirectoryError if one holds it."""
    lock = _lock(path)
    try:
        yield
    finally:
        os.close(lock)


def hold_presence(path: str) -> int:
    """Mark the directory as in use by an actor, until the returned descriptor is closed."""
    descriptor = os.open(Path(path) / "actors.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    fcntl.lockf(descriptor, fcntl.LOCK_SH)
    return descriptor


def wait_for_predecessors(path: Path, timeout_ms: int = PREDECESSORS_MS) -> bool:
    """Wait until no actor uses this directory, then kill the remaining ones; return True if all are gone."""
    deadline = time.monotonic() + timeout_ms / 1000
    descriptor = os.open(path / "actors.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            overdue_ms = (time.monotonic() - deadline) * 1000
            if overdue_ms > KILLED_MS or (overdue_ms > 0 and not _kill_holder(descriptor)):
                return False
            # A blocking flock has no timeout, so poll.
            time.sleep(_PAUSE_S)
    finally:
        os.close(descriptor)


def _kill_holder(descriptor: int) -> bool:
    """Kill one process that holds the record lock; return True if there was one."""
    pid = _holder(descriptor)
    # 0 if no process holds the lock; a process in another container has no id here.
    if pid <= 0:
        return False
    with contextlib.suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, signal.SIGKILL)
            return True
        pidfd = os.pidfd_open(pid)
        try:
            # The id may have been reused since, unless its owner still holds the lock.
            if _holder(descriptor) == pid:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    return True


def _holder(descriptor: int) -> int:
    """Return the process id of one holder of the record lock."""
    # The C library's struct flock; Python has no wrapper for the query.
    if sys.platform == "darwin":
        layout, question, at = "qqihh", (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET), 2
    else:
        layout, question, at = "hhqqi", (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0), 4
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *question)))
    pid: int = answer[at]
    return pid


def _await_lock(path: Path, is_cancelled: Callable[[], bool]) -> int:
    """Lock the directory, once a stopping supervisor has ended. Raises DataDirectoryError."""
    began = time.monotonic()
    noticed_by, ended_by = began + NOTICE_MS / 1000, began + STOPPING_MS / 1000
    killed_by = ended_by + KILLED_MS / 1000
    while True:
        try:
            return _lock(path)
        except DirectoryInUse as refusal:
            now = time.monotonic()
            is_over = now > killed_by if refusal.is_stopping else now > noticed_by
            if is_over or is_cancelled():
                raise
            if refusal.is_stopping and now > ended_by:
                _kill_supervisor(path)
        # A blocking flock has no timeout, so poll.
        time.sleep(_PAUSE_S)


def _kill_supervisor(path: Path) -> None:
    descriptor = os.open(path / "supervisor.lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        _kill_holder(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    descriptor = os.open(path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid, _, state = os.read(descriptor, 64).decode(errors="replace").strip().partition(" ")
        os.close(descriptor)
        raise DirectoryInUse(path, pid or "unknown", state == _STOPPING) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _check_format(path: Path) -> None:
    if (path / RESTORING_NAME).exists():
        raise DataDirectoryError(
            f"data directory {path} is not restored completely: run planaria restore again, or delete it"
        )
    file = path / "format.json"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_Format).format
    except FileNotFoundError:
        replace_file(file, msgspec.json.encode(_Format(FORMAT)))
        return
    except msgspec.MsgspecError as error:
        raise DataDirectoryError(f"{file} is damaged: {error}") from error
    if found > FORMAT:
        raise DataDirectoryError(
            f"data directory {path} has format {found}, this program knows formats up to {FORMAT}: use a newer one"
        )


def _count_start(path: Path) -> int:
    file = path / "supervisor.json"
    try:
        starts = msgspec.json.decode(file.read_bytes(), type=_Starts).starts
    except FileNotFoundError:
        starts = 0
    except msgspec.MsgspecError as error:
        raise DataDirectoryError(f"{file} is damaged: {error}") from error
    replace_file(file, msgspec.json.encode(_Starts(starts + 1)))
    return starts + 1


def _sync_names_above(path: Path) -> None:
    """Make the names of the directory and its parents durable: they may be new, or created by a predecessor that died
    before it synced them.
    """
    while not os.path.ismount(path) and os.access(path.parent, os.R_OK):
        path = path.parent
        _sync_directory(path)


def _clock(path: Path) -> Origin:
    file = path / "clock.json"
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=Origin)
    except (FileNotFoundError, msgspec.MsgspecError):
        kept = None
    if kept is not None and is_current(kept):
        return kept
    origin = new_origin()
    replace_file(file, msgspec.json.encode(origin))
    return origin


def replace_file(file: Path, content: bytes) -> None:
    """Write a new file, sync, rename, sync the directory: readers see the old or the new file, never a part."""
    aside = file.with_suffix(".new")
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(file)
    _sync_directory(file.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
