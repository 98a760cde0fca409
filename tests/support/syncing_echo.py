"""The pace of this machine while a test runs: an echo from a process that writes and syncs a byte before it answers.

Like an acknowledgement it waits for a turn of another process and for the disk, so a limit of a time that is promised
may grow with its longest wait, and with nothing else.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

INTERVAL_S = 0.01
_PROGRAM = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
while asked := os.read(0, 1):
    os.write(descriptor, asked)
    os.fdatasync(descriptor)
    os.write(1, asked)
"""


class SyncingEcho:
    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-c", _PROGRAM, str(folder / "echoed")]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._longest_s = 0.0

    def __enter__(self) -> "SyncingEcho":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def take_longest_ms(self) -> float:
        """Return the longest wait since the last call."""
        longest, self._longest_s = self._longest_s, 0.0
        return longest * 1_000

    def _run(self) -> None:
        with subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            self._ask(process.stdin, process.stdout)  # it is up from now on
            while not self._is_over.wait(INTERVAL_S):
                self._longest_s = max(self._longest_s, self._ask(process.stdin, process.stdout))
            process.stdin.close()

    def _ask(self, asked: IO[bytes], answered: IO[bytes]) -> float:
        began = time.monotonic()
        asked.write(b"x")
        assert answered.read(1) == b"x"
        return time.monotonic() - began
