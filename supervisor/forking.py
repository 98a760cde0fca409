"""A process of multiprocessing's fork server whose start does not wait for the process id.

`Process.start` blocks until the fork server has forked and answered with the id: some milliseconds, and hundreds on a
busy machine, in which a supervisor would answer no operator. Here `start` returns once the order is sent, and
`read_pid` reads the answer, for which `sentinel` becomes readable. multiprocessing has no public way for this. Until
then no other process may be started: multiprocessing would take the id for an exit status. Called by launcher.py.

multiprocessing starts a resource tracker beside a fork server, for semaphores and shared memory. A supervisor has
neither, and does without that process; a child, whose handlers may have them, starts one when it needs it.
"""

import atexit
import os
from multiprocessing import context, forkserver, popen_forkserver, resource_tracker
from typing import Any


def replace_tracker() -> None:
    """Have multiprocessing write to the null device, as to a tracker that it has started."""
    tracker = _tracker()
    if tracker._fd is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY)
        # At the end it would wait for the tracker's process.
        atexit.register(restore_tracker)


def restore_tracker() -> None:
    """Have multiprocessing start a tracker when it is needed."""
    tracker = _tracker()
    if tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = None


def _tracker() -> Any:
    return getattr(resource_tracker, "_resource_tracker")  # noqa: B009 - mypy knows nothing of it


class ForkedProcess(context.ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - as multiprocessing calls it
        return _Popen(process_obj)

    def read_pid(self) -> None:
        """Read the process id. Blocks while `sentinel` is not readable; raises EOFError if the fork server has ended."""
        popen: Any = vars(self)["_popen"]
        popen.pid = forkserver.read_signed(self.sentinel)


class _Popen(popen_forkserver.Popen):
    def _launch(self, process_obj: Any) -> None:
        module: Any = forkserver
        read_signed = module.read_signed
        module.read_signed = lambda _: None
        try:
            super()._launch(process_obj)  # type: ignore[misc]
        finally:
            module.read_signed = read_signed
