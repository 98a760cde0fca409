"""A process of multiprocessing's fork server whose start does not wait for the process id.

`Process.start` blocks until the fork server has forked and answered with the id: some milliseconds, and hundreds on a
busy machine, in which a supervisor would answer no operator. Here `start` returns once the order is sent, and
`read_pid` reads the answer, for which `sentinel` becomes readable. multiprocessing has no public way for this. Until
then no other process may be started: multiprocessing would take the id for an exit status. Called by launcher.py.

The first fork server is a fork of this process (`fork_server_here`), which has loaded half of the modules by then;
multiprocessing would start a new interpreter. If it dies, the next one is such an interpreter, since this process has a
ZeroMQ context then.

multiprocessing starts a resource tracker beside a fork server, for semaphores and shared memory. A supervisor has
neither, and does without that process; a child, whose handlers may have them, starts one when it needs it.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from multiprocessing import context, forkserver, popen_forkserver, resource_tracker
from types import ModuleType
from typing import Any, NoReturn


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


def fork_server_here() -> None:
    """Start the fork server as a fork of this process, which must have no ZeroMQ context and no other thread."""
    module: Any = forkserver
    util = module.util
    spawn = util.spawnv_passfds
    util.spawnv_passfds = _fork
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn


def _fork(_: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Run the program that is the last argument, as a new interpreter with these arguments would. Returns its id."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # both would write the content of a buffer
    # A signal between the fork and the child's reset would be taken for one to this process.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if not pid:
        _run_alone(arguments[-1], set(descriptors), previous)
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return pid


def _run_alone(program: str, descriptors: set[int], signal_mask: Iterable[int]) -> NoReturn:
    """Run a program without this process's descriptors, signal handlers and state of multiprocessing."""
    code = 1
    try:
        gc.freeze()  # a finalizer of this process's garbage would close descriptors of the program
        for name in os.listdir("/dev/fd"):
            if int(name) > 2 and int(name) not in descriptors:
                with contextlib.suppress(OSError):  # the one of the list itself
                    os.close(int(name))
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        getattr(forkserver, "_forkserver").__init__()  # noqa: B009 - mypy knows nothing of it
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(program, vars(main))
    except SystemExit:
        code = 0
    except BaseException:  # noqa: BLE001 - the outermost frame
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


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
