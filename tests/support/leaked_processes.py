"""Finds processes that a test session started and left running. Used by conftest.py at the session's end.

Parentage is not enough: an actor whose supervisor was killed is adopted by init. So the session marks its
environment, every descendant that goes through exec inherits the mark, and the mark is looked for in /proc.
The name of the test that started the process travels the same way: pytest keeps it in PYTEST_CURRENT_TEST.
Linux only; elsewhere nothing is found.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "PLANARIA_TEST_SESSION"
GRACE_S = 20.0
PROC = Path("/proc")


@dataclass(frozen=True)
class Leak:
    pid: int
    command_line: str
    test: str


def mark_session() -> str:
    """Mark this process's environment; return the mark. A nested session has its own."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    os.environ[MARK] = mark
    return mark


def kill_leaked(mark: str) -> list[Leak]:
    """Give the remaining processes a moment to finish, kill those that do not, and return their descriptions."""
    deadline = time.monotonic() + GRACE_S
    for pid in list(_running(mark)):
        _wait_gone(pid, deadline)
    leaks = []
    for pid in list(_running(mark)):
        leaks.append(Leak(pid, _command_line(pid), _environment(pid).get("PYTEST_CURRENT_TEST", "unknown")))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _wait_gone(pid, time.monotonic() + GRACE_S)
    return leaks


def _running(mark: str) -> Iterator[int]:
    if not PROC.is_dir():
        return
    own = os.getpid()
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        pid = int(entry.name)
        parent, state = _parent_and_state(pid)
        if state == "Z" or _ends_with_us(pid, parent):
            continue
        if parent == own or _environment(pid).get(MARK) == mark:
            yield pid


def _ends_with_us(pid: int, parent: int) -> bool:
    """Return True for multiprocessing's own servants, which live as long as their starter, by design."""
    command_line = _command_line(pid)
    return parent == os.getpid() and (
        "multiprocessing.resource_tracker" in command_line or "multiprocessing.forkserver" in command_line
    )


def _parent_and_state(pid: int) -> tuple[int, str]:
    # pid (name) state ppid ...: the name may hold spaces and brackets, so look behind the last one.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[1]), fields[0].decode()) if fields else (0, "Z")


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def _environment(pid: int) -> dict[str, str]:
    pairs = (line.partition("=") for line in _read(pid, "environ").decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}


def _read(pid: int, name: str) -> bytes:
    # Ended meanwhile, or another user's: neither is ours.
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _wait_gone(pid: int, deadline: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(pidfd)
