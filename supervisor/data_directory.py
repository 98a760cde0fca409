"""The data directory as a whole: its format, who owns it, how often it was started. What is inside belongs to the actors.

    format.json        {"format": 1}: an older program refuses a newer directory
    supervisor.lock    flock, held by the one supervisor for life; its process id is inside
    supervisor.json    {"starts": n}: numbers the run directories
    actors.lock        shared flock and record lock, held by every actor for life: a new supervisor waits until the last
                       actors of its predecessor are gone, and kills those that do not go (stopped ones never do): the
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
from collections.abc import Iterator
from pathlib import Path

import msgspec

FORMAT = 1
PREDECESSORS_MS = 2_000
"""How long the actors of a killed supervisor may take to leave. Each has its own lock as well, so it is no promise."""
KILLED_MS = 1_000
"""How long they may take to be gone once they are killed."""
_PAUSE_S = 0.01


class DataDirectoryError(Exception):
    """The directory cannot be used; the message is one line for the operator."""


class _Format(msgspec.Struct):
    format: int


class _Starts(msgspec.Struct):
    starts: int = 0


class DataDirectory:
    """An open, locked data directory."""

    def __init__(self, path: Path, starts: int, lock: int) -> None:
        self.path = path
        self.starts = starts
        """This start's number, from 1."""
        self._lock = lock

    def close(self) -> None:
        os.close(self._lock)


def open_data_directory(path: Path) -> DataDirectory:
    """Create or check, lock, count the start. Raises DataDirectoryError."""
    path = Path(os.path.realpath(path))
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as error:
        raise DataDirectoryError(f"data directory {path} is not usable: {error.strerror}") from error
    try:
        _check_format(path)
        starts = _count_start(path)
    except OSError as error:
        os.close(lock)
        raise DataDirectoryError(f"data directory {path} is not writable: {error.strerror}") from error
    except DataDirectoryError:
        os.close(lock)
        raise
    return DataDirectory(path, starts, lock)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep supervisors out of an existing directory meanwhile. Raises DataDirectoryError when one has it."""
    lock = _lock(path)
    try:
        yield
    finally:
        os.close(lock)


def hold_presence(path: str) -> int:
    """Say that an actor works in this directory; lasts until the descriptor is closed."""
    descriptor = os.open(Path(path) / "actors.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    fcntl.lockf(descriptor, fcntl.LOCK_SH)
    return descriptor


def wait_for_predecessors(path: Path, patience_ms: int = PREDECESSORS_MS) -> bool:
    """Wait until no actor works in this directory, then kill those that still do; whether all are gone."""
    deadline = time.monotonic() + patience_ms / 1000
    descriptor = os.open(path / "actors.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            overdue_ms = (time.monotonic() - deadline) * 1000
            if overdue_ms > KILLED_MS or (overdue_ms > 0 and not _kill_holder(descriptor)):
                return False
            # A blocking flock has no timeout, so ask again.
            time.sleep(_PAUSE_S)
    finally:
        os.close(descriptor)


def _kill_holder(descriptor: int) -> bool:
    """Kill one process that holds the record lock; whether there is one."""
    # The C library's struct flock; Python has no wrapper for asking.
    if sys.platform == "darwin":
        layout, question, at = "qqihh", (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET), 2
    else:
        layout, question, at = "hhqqi", (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0), 4
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *question)))
    pid: int = answer[at]
    # The type is F_UNLCK and the id 0 when nobody holds it; another container's process has no id here.
    if pid <= 0:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def _lock(path: Path) -> int:
    descriptor = os.open(path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryError(
            f"data directory {path} is in use by the supervisor with process id {holder}"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _check_format(path: Path) -> None:
    file = path / "format.json"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_Format).format
    except FileNotFoundError:
        _replace(file, msgspec.json.encode(_Format(FORMAT)))
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
    _replace(file, msgspec.json.encode(_Starts(starts + 1)))
    return starts + 1


def _replace(file: Path, content: bytes) -> None:
    """Write aside, sync, rename, sync the directory: the file is the old one or the new one, never a part."""
    aside = file.with_suffix(".new")
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
