"""The run directory: sockets of one start of the supervisor. Private, short, never used twice.

    $XDG_RUNTIME_DIR or /tmp / planaria-<uid>-<digest of the data directory> / <number of the start> /
        instance                  the instance id: a client that can read it is on the same machine
        operator                  the proof of the broker's user, for requests that run code
        endpoint                  the public endpoint, by which operators on the same machine find the supervisor
        supervisor, <actor>.<n>   sockets
        listener-<random>         the fork server's socket

Created by __main__.py once the data directory's lock is held; so the directories of earlier starts can be removed.
"""

import glob
import hashlib
import os
import shutil
import socket
import stat
from pathlib import Path

from ..transport.addresses import Address
from ..transport.door import shut_path
from ..transport.endpoints import control_endpoint, endpoint_for

ENDPOINT_NAME = "endpoint"
PROOF_NAME = "operator"
_LOCALHOST = "tcp://localhost"
_EVERYWHERE = ("tcp://*", "tcp://0.0.0.0", "tcp://[::]")


class RunDirectoryError(Exception):
    """The directory cannot be used; the message is one line for the operator."""


def run_directory_of(data_directory: Path, starts: int) -> Path:
    """Return the directory for this start's sockets. `data_directory` is a real path."""
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    if not (root.is_dir() and os.access(root, os.W_OK)):
        root = Path("/tmp")
    digest = hashlib.sha256(str(data_directory).encode()).hexdigest()[:10]
    return root / f"planaria-{os.getuid()}-{digest}" / str(starts)


def create_run_directory(path: Path, instance_id: str, endpoint: str) -> None:
    """Create `path`, remove its predecessors, write `instance` and `endpoint`. Raises RunDirectoryError."""
    try:
        _make_private(path.parent)
        for stale in path.parent.iterdir():
            shutil.rmtree(stale, ignore_errors=True)
        _make_private(path)
        (path / "instance").write_text(instance_id)
        say_endpoint(path, endpoint)
    except OSError as error:
        raise RunDirectoryError(f"run directory {path} is not usable: {error.strerror}") from error


def say_endpoint(path: Path, endpoint: str) -> None:
    """Write the endpoint for clients; final once the gateway has bound a port that the system chose."""
    written = path / f"{ENDPOINT_NAME}.new"
    written.write_text(endpoint)
    written.replace(path / ENDPOINT_NAME)


def write_proof(path: Path, proof: str) -> None:
    """Write the proof that a client which can read it is the broker's user."""
    (path / PROOF_NAME).write_text(proof)


def proofs_at(endpoint: str) -> list[str]:
    """Return the proofs of this user's live brokers here that serve `endpoint`."""
    directories = [Path(control.removeprefix("ipc://")).parent for control in supervisors_at(endpoint)]
    return [proof for directory in directories if (proof := _proof_in(directory)) is not None]


def _proof_in(directory: Path) -> str | None:
    try:
        return (directory / PROOF_NAME).read_text()
    except OSError:  # it is being removed
        return None


def supervisors_at(endpoint: str) -> list[str]:
    """Return the control endpoints of this user's live brokers here that serve `endpoint`; rarely more than one."""
    roots = {Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp"), Path("/tmp")}
    pattern = f"planaria-{os.getuid()}-*/*/{ENDPOINT_NAME}"
    # Not `Path.glob`, which fails when a directory is removed meanwhile: another broker may be stopping.
    found = [Path(root, path) for root in sorted(roots) for path in glob.glob(pattern, root_dir=root)]
    controls = [control_endpoint(str(path.parent)) for path in found if _serves(path, endpoint)]
    return [control for control in controls if is_listening(control)]


def _serves(path: Path, endpoint: str) -> bool:
    try:
        return _is_private(path.parent.parent) and same_endpoint(path.read_text(), endpoint)
    except OSError:  # it is being removed
        return False


def same_endpoint(served: str, asked: str) -> bool:
    """Return True if connecting to `asked` on this machine reaches a broker that listens at `served`."""
    served_host, _, served_port = served.rpartition(":")
    asked_host, _, asked_port = asked.rpartition(":")
    if served_port != asked_port:
        return False
    if asked_host == served_host:
        return True
    if not _is_loopback(asked_host):
        return False
    return served_host in _EVERYWHERE or (
        _is_loopback(served_host) and _LOCALHOST in (asked_host, served_host)
    )


def _is_loopback(host: str) -> bool:
    return host in (_LOCALHOST, "tcp://[::1]") or host.startswith("tcp://127.")


def is_listening(control: str) -> bool:
    """Return True if a process has this control endpoint open: a killed process leaves its socket file behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(control.removeprefix("ipc://"))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True


def remove_run_directory(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)


def remove_socket(run_directory: str, address: Address, incarnation: int) -> None:
    """Remove the socket file of an actor that has ended: ZeroMQ leaves it when a process is killed."""
    path = endpoint_for(run_directory, address, incarnation).removeprefix("ipc://")
    for name in (path, shut_path(path)):
        Path(name).unlink(missing_ok=True)


def _make_private(path: Path) -> None:
    """Create the directory, or check its owner: a user who can write here can impersonate an actor, and in /tmp another
    user may have created it first.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(path):
        raise RunDirectoryError(f"run directory {path} is not a directory that belongs to you alone")


def _is_private(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
