"""Start and end of a supervisor as a process of its own. Called by the embedded Broker and by the chaos run.

Two pipes connect it to its starter: on the status pipe the supervisor reports the result of its start in a line of JSON;
nothing is ever written to the lifeline, whose end of file tells the supervisor that its starter has died.
"""

import fcntl
import os
import select
import subprocess
import sys
import time

import msgspec

from ..transport.forks import notify_of_fork
from .broker_tree import Role
from .config import BrokerConfig, sent

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class StartFailed(Exception):
    """The supervisor did not start; the message is one line for a person."""


class SupervisorStarted(msgspec.Struct, kw_only=True):
    """Report of a supervisor that serves."""

    endpoint: str
    control: str
    instance_id: str
    pid: int


class _StatusLine(msgspec.Struct):
    ready: bool = False
    endpoint: str = ""
    control: str = ""
    instance_id: str = ""
    pid: int = 0
    error: str | None = None


class Lifeline:
    """End of a pipe held for as long as the supervisor is to live. A forked child closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        notify_of_fork(self)

    def on_fork(self) -> None:
        self.cut()

    def cut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SupervisorHandle:
    """A running supervisor: its addresses, and methods to end it."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", lifeline: Lifeline, started: SupervisorStarted
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self.started = started

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return its exit code, None if it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it in order by closing the lifeline; kill it if that takes longer than `timeout_s`."""
        self._lifeline.cut()
        if self.wait(timeout_s) is None:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL; its actors notice and exit on their own."""
        self._process.kill()
        self._process.wait()
        self._lifeline.cut()


def launch_supervisor(
    config: BrokerConfig,
    timeout_s: float = START_TIMEOUT_S,
    working_directory: str | None = None,
    role: Role = "broker",
) -> SupervisorHandle:
    """Start a supervisor and wait until it serves. Raises StartFailed."""
    status_read, status_write = _pipe()
    lifeline_read, lifeline_write = _pipe()
    lifeline = Lifeline(lifeline_write)
    sent_config = sent(config)
    package = __package__ or "planaria.supervisor"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", package, "--config-fd", str(sent_config), "--role", role),
            *("--status-fd", str(status_write), "--lifeline-fd", str(lifeline_read)),
        ],
        pass_fds=(sent_config, status_write, lifeline_read),
        cwd=working_directory,
        stdin=subprocess.DEVNULL,
        stdout=_unless_closed(1),
        stderr=_unless_closed(2),
        # A separate group: Ctrl-C in a terminal is for the embedding program, which stops the broker in order.
        process_group=0,
    )
    for descriptor in (sent_config, status_write, lifeline_read):
        os.close(descriptor)
    try:
        started = _await_start(status_read, process, timeout_s)
    except BaseException:
        lifeline.cut()
        process.kill()
        process.wait()
        raise
    finally:
        os.close(status_read)
    return SupervisorHandle(process, lifeline, started)


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends are not standard descriptors, even if a daemon has closed those."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
        os.close(end)
    return ends[0], ends[1]


def _unless_closed(descriptor: int) -> int | None:
    """Return the child's standard descriptor: the one of this process, unless that is closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        return subprocess.DEVNULL
    return None


def _await_start(status: int, process: "subprocess.Popen[bytes]", timeout_s: float) -> SupervisorStarted:
    deadline = time.monotonic() + timeout_s
    line = b""
    # Not `select`, which refuses descriptors from 1024 on: the embedding program may have many.
    poll = select.poll()
    poll.register(status, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise StartFailed(f"the broker did not start within {timeout_s:.0f} s")
        piece = os.read(status, 65536)
        if not piece:
            raise StartFailed(f"the broker exited while it started (exit code {process.wait()})")
        line += piece
    found = msgspec.json.decode(line, type=_StatusLine)
    if found.error is not None:
        raise StartFailed(found.error)
    return SupervisorStarted(
        endpoint=found.endpoint, control=found.control, instance_id=found.instance_id, pid=found.pid
    )
