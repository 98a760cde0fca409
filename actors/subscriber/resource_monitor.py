"""The resource monitor: checks memory, file descriptors and each record's CPU time ten times a second. Impure.

The peak memory is noted in the flight recorder, for the report of a process that was killed. The loop is notified of a
record that has used more than `cpu_limit`, and when EXHAUSTED_CHECKS checks in a row have found no free descriptor. A
handler that does not release the interpreter lock blocks the monitor, too; the supervisor ends such a process, because
its heartbeats are missing.
"""

import errno
import faulthandler
import os
import resource
import sys
import threading
import time
from pathlib import Path

from .effects import CpuExceeded, DescriptorsExhausted
from .flight_recorder import FlightRecorder
from .threads import Inbox
from .worker import Workers

INTERVAL_S = 0.1
EXHAUSTED_CHECKS = 10
MAX_STACK_CHARS = 8_000
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class ResourceMonitor:
    def __init__(
        self, recorder: FlightRecorder, workers: Workers, inbox: Inbox, cpu_limit_s: float | None
    ) -> None:
        self._recorder = recorder
        self._workers = workers
        self._inbox = inbox
        self._cpu_limit_s = cpu_limit_s
        self._exhausted_checks = 0
        """Checks in a row that have found no free descriptor."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="planaria-gauge", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            self._recorder.note_peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES)
            if self._cpu_limit_s is not None:
                self._check_cpu(self._cpu_limit_s)
            self._check_descriptors()

    def _check_cpu(self, limit_s: float) -> None:
        for worker, (ident, began) in enumerate(self._workers.at_hand()):
            if began is None:
                continue
            offset, began_s = began
            if time.clock_gettime(time.pthread_getcpuclockid(ident)) - began_s > limit_s:
                self._inbox.post(CpuExceeded(worker, offset))

    def _check_descriptors(self) -> None:
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            self._exhausted_checks = self._exhausted_checks + 1 if error.errno == errno.EMFILE else 0
            if self._exhausted_checks == EXHAUSTED_CHECKS:
                self._inbox.post(DescriptorsExhausted())
        else:
            self._exhausted_checks = 0


def limit_memory(limit_bytes: int) -> None:
    """Limit the process to `limit_bytes` beyond its present memory. Only Linux enforces the limit."""
    status = Path("/proc/self/status")
    used = 0
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmData:")]
        used = int(line.split()[1]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + limit_bytes
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def take_stack(path: Path) -> str | None:
    """Return the stack that the last process left when a signal killed it, and use the file for this one's."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "rb+", buffering=0, closefd=False) as file:
        text = file.read(1_000_000).decode(errors="replace")
        file.truncate(0)
        file.seek(0)
    faulthandler.enable(file=descriptor, all_threads=True)
    return _culprit_in(text)[:MAX_STACK_CHARS] or None


def _culprit_in(text: str) -> str:
    """Return the error and the stack of the thread that raised it, without the other threads' stacks."""
    parts = [part for part in text.split("\n\n") if part.startswith(("Fatal", "Current thread"))]
    return "\n\n".join(parts).strip()
