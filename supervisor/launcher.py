"""Starts children from a fork server that has loaded the heavy imports and holds no ZeroMQ context and no thread.

Sole owner of multiprocessing's fork server. The death of a fork server is harmless: its children live on, and the next
launch starts another one. Called by process.py. child.py runs in the child; actors are named by dotted path only, so
that the supervisor never loads their code.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver

from ..transport.endpoints import MAX_PATH_BYTES, PathTooLong
from .child import ChildParameters, run_child
from .forking import ForkedProcess, fork_server_here, replace_tracker

LAUNCH_TIMEOUT_S = 10.0
"""Time in which the fork server has to answer."""
LOADING_TIMEOUT_S = 30.0
"""Time limit of a new fork server's first launch: it loads all modules first, and the machine may be busy."""
SOCKET_NAME_BYTES = len("/listener-12345678")
"""Length of multiprocessing's name for the fork server's socket."""


class LaunchFailed(Exception):
    """The system did not create a process."""


class ForkServerSilent(Exception):
    """The fork server did not answer in time."""


class Launcher:
    def __init__(self, preload: Sequence[str], directory: str, timeout_s: float = LAUNCH_TIMEOUT_S) -> None:
        """Place the fork server's socket, and multiprocessing's other files, in `directory`.

        Raises PathTooLong.
        """
        if len(directory.encode()) + SOCKET_NAME_BYTES > MAX_PATH_BYTES:
            raise PathTooLong(
                f"run directory {directory!r} is too long for sockets ({MAX_PATH_BYTES} bytes a path)"
            )
        # By default it creates a directory in the system's, which would never be removed: this process is killed, or ends
        # without the interpreter's cleanup. multiprocessing has no public setting for it; children inherit it.
        multiprocessing.current_process()._config["tempdir"] = directory  # type: ignore[attr-defined]
        replace_tracker()
        self._timeout_s = timeout_s
        self._proven_pid: int | None = 0
        """Process id of the fork server that has completed a launch; 0: none."""
        self.time_limit_s = timeout_s
        """Time limit of the launch that was begun last."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))

    def warm_up(self) -> None:
        """Start the fork server now, before this process has a ZeroMQ context or a thread. Children inherit its signal
        handling, so an interrupt at the terminal, which reaches the whole process group, is ignored from their first
        instruction on.
        """
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            fork_server_here()
        finally:
            signal.signal(signal.SIGINT, previous)
        # A collection would write to every object, and so copy each page that the fork server shares.
        gc.freeze()
        gc.enable()

    def begin(self, order: ChildParameters) -> ForkedProcess:
        """Ask the fork server for a process. Its `sentinel` becomes readable with the answer. Raises LaunchFailed."""
        name = f"{order.context.address}.{order.context.incarnation}"
        process = ForkedProcess(target=run_child, args=(order,), name=name)
        is_proven = _fork_server_pid() == self._proven_pid
        self.time_limit_s = self._timeout_s if is_proven else LOADING_TIMEOUT_S
        try:
            with _alarm(self.time_limit_s):
                process.start()
        except ForkServerSilent as error:
            raise self.give_up() from error
        except (OSError, EOFError) as error:
            raise LaunchFailed(f"{type(error).__name__}: {error}") from error
        return process

    def complete(self, process: ForkedProcess) -> None:
        """Take the answer that has arrived: the process has an id. Raises LaunchFailed."""
        try:
            process.read_pid()
        except (OSError, EOFError) as error:
            raise LaunchFailed(f"{type(error).__name__}: {error}") from error
        self._proven_pid = _fork_server_pid()

    def give_up(self) -> LaunchFailed:
        """Kill a fork server that has not answered in time."""
        self._kill_fork_server()
        self._proven_pid = 0
        return LaunchFailed("the fork server did not answer and was killed")

    @staticmethod
    def _kill_fork_server() -> None:
        """Kill it; the next launch starts another one. A child that it may have forked unreported finds its
        parent's end of the pipe closed, and exits.
        """
        pid = _fork_server_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def _fork_server_pid() -> int | None:
    """Return the fork server's process id, which multiprocessing does not expose."""
    pid: int | None = getattr(forkserver, "_forkserver")._forkserver_pid  # noqa: B009 - mypy knows nothing of it
    return pid


@contextlib.contextmanager
def _alarm(timeout_s: float) -> Iterator[None]:
    """Raise ForkServerSilent in the block after `timeout_s`. multiprocessing blocks in writing an order larger than a
    pipe; a supervisor waiting forever for a stopped or wedged fork server would be as good as dead.
    """

    def give_up(*_: object) -> None:
        raise ForkServerSilent

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
