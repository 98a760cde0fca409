"""A process of multiprocessing's fork server whose start does not wait for the process id.

`Process.start` blocks until the fork server has forked and answered with the id: some milliseconds, and hundreds on a
busy machine, in which a supervisor would answer no operator. Here `start` returns once the order is sent, and
`read_pid` reads the answer, for which `sentinel` becomes readable. multiprocessing has no public way for this. Until
then no other process may be started: multiprocessing would take the id for an exit status. Called by launcher.py.
"""

from multiprocessing import context, forkserver, popen_forkserver
from typing import Any


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
