"""Stopping all actors of a broker for a moment, so that their files are those of one instant. Impure.

Owns the stop (SIGSTOP) and its end (SIGCONT) whatever happens to this process: a guardian process receives the id of
each process before that is stopped, and continues all of them when its pipe is closed, which the death of this process
does as well, or when LIMIT_MS are over. The supervisor itself goes on: it writes no records, and a shell would take the
terminal from a stopped one. Its descendants include the fork server, so no actor starts meanwhile.

    stop all descendants, until a look finds no other one       take the image       continue all

Each thread of a stopped process may still finish the system call that it is in, as when it is killed. Called by
`planaria backup`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

LIMIT_MS = 3_000
"""Longest stop; an actor that makes no progress for `hang_timeout_ms` is taken for hung, by default 5 s."""
STATE_MS = 200
"""Longest wait for all processes to be seen as stopped; one that waits for the disk is not."""
_PAUSE_S = 0.001
_GUARDIAN = """
import os, select, signal, sys, time
pids, end, rest = [], None, b""
sys.stdout.write("!"); sys.stdout.flush()
while end is None or time.monotonic() < end:
    if not select.select([0], [], [], None if end is None else max(0, end - time.monotonic()))[0]:
        break
    data = os.read(0, 65536)
    if not data:
        break
    end = end or time.monotonic() + float(sys.argv[1])
    *lines, rest = (rest + data).split(b"\\n")
    pids += map(int, lines)
for pid in pids:
    try:
        os.kill(pid, signal.SIGCONT)
    except OSError:
        pass
"""


class FreezeFailed(Exception):
    """The actors could not be stopped long enough; the message is one line for the operator."""


class Process(NamedTuple):
    parent: int
    state: str


@contextlib.contextmanager
def frozen(supervisor_pid: int, limit_ms: int = LIMIT_MS) -> Iterator[float]:
    """Stop all descendants of a supervisor in the block, which gets the monotonic time at which that began.

    Raises FreezeFailed, also if the block took too long.
    """
    guardian = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARDIAN, str(limit_ms / 1000)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert guardian.stdin is not None
    assert guardian.stdout is not None
    stopped: list[int] = []
    try:
        guardian.stdout.read(1)
        begun = time.monotonic()
        _stop_all(supervisor_pid, guardian.stdin, stopped)
        yield begun
        took_ms = (time.monotonic() - begun) * 1000
    finally:
        for pid in stopped:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
        guardian.stdin.close()
        guardian.wait()
        guardian.stdout.close()
    if took_ms >= limit_ms:
        raise FreezeFailed(
            f"the image took {took_ms:.0f} ms, and the actors may be stopped for {limit_ms} ms"
        )


def _stop_all(supervisor_pid: int, guardian: IO[bytes], stopped: list[int]) -> None:
    while new := sorted(descendants(processes(), supervisor_pid) - set(stopped)):
        guardian.write(b"".join(b"%d\n" % pid for pid in new))
        guardian.flush()
        for pid in new:
            stopped.append(pid)
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue
            except PermissionError as error:
                raise FreezeFailed(f"process {pid} belongs to another user") from error
    if not stopped:
        raise FreezeFailed(f"the supervisor with process id {supervisor_pid} has no actors on this machine")
    deadline = time.monotonic() + STATE_MS / 1000
    while time.monotonic() < deadline:
        found = processes()
        if all(found[pid].state[0] in "TtZXD" for pid in stopped if pid in found):
            return
        time.sleep(_PAUSE_S)


def descendants(found: dict[int, Process], ancestor: int) -> set[int]:
    """Return the processes below one, at any depth."""
    below = {ancestor}
    while more := {pid for pid, each in found.items() if each.parent in below} - below:
        below |= more
    return below - {ancestor}


def processes() -> dict[int, Process]:
    """Return the processes of this machine by id."""
    if not Path("/proc/self/stat").exists():
        text = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,state="], capture_output=True, text=True, check=True
        ).stdout
        return {
            int(pid): Process(int(parent), state) for pid, parent, state in map(str.split, text.splitlines())
        }
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (
                    Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                )
                found[int(name)] = Process(int(parent), state)
    return found
