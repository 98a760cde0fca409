"""The run directory: where one start of the supervisor has its sockets. Private, short, never used twice.

    $XDG_RUNTIME_DIR or /tmp / planaria-<uid>-<digest of the data directory> / <number of the start> /
        instance                  the instance id: a client that can read it is on the same machine
        supervisor, <actor>.<n>   sockets
        listener-<random>         the fork server's socket

Made by __main__.py once the data directory's lock is held; that is why what earlier starts have left can be removed.
"""

import hashlib
import os
import shutil
import stat
from pathlib import Path

from ..transport.endpoints import endpoint_for


class RunDirectoryError(Exception):
    """The directory cannot be used; the message is one line for the operator."""


def run_directory_of(data_directory: Path, starts: int) -> Path:
    """Where this start's sockets belong. `data_directory` is a real path."""
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    if not (root.is_dir() and os.access(root, os.W_OK)):
        root = Path("/tmp")
    digest = hashlib.sha256(str(data_directory).encode()).hexdigest()[:10]
    return root / f"planaria-{os.getuid()}-{digest}" / str(starts)


def create_run_directory(path: Path, instance_id: str) -> None:
    """Make `path`, remove its predecessors, write `instance`. Raises RunDirectoryError."""
    try:
        _make_private(path.parent)
        for stale in path.parent.iterdir():
            shutil.rmtree(stale, ignore_errors=True)
        _make_private(path)
        (path / "instance").write_text(instance_id)
    except OSError as error:
        raise RunDirectoryError(f"run directory {path} is not usable: {error.strerror}") from error


def remove_run_directory(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)


def remove_socket(run_directory: str, address: str, incarnation: int) -> None:
    """Remove the socket file of an actor that has ended: ZeroMQ leaves it when a process is killed."""
    Path(endpoint_for(run_directory, address, incarnation).removeprefix("ipc://")).unlink(missing_ok=True)


def _make_private(path: Path) -> None:
    """Whoever can write here can take the place of an actor; in /tmp somebody else may have made it before us."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RunDirectoryError(f"run directory {path} is not a directory that belongs to you alone")
