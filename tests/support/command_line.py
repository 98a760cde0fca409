"""The `planaria` command as a person runs it: in a process of its own, and a broker started by `planaria serve`."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
PROGRAM = [sys.executable, "-P", "-m", "planaria"]


def environment(**variables: str) -> dict[str, str]:
    """Ours without what would change the command line's behaviour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PLANARIA_") or "TEST" in name
    }
    return {**kept, "COLUMNS": "80", "PYTHONWARNINGS": "error", **variables}


def planaria(
    *arguments: str, given: str | bytes = b"", cwd: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        input=given.decode() if isinstance(given, bytes) else given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(**variables),
        cwd=cwd,
        check=False,
    )


class Command:
    """A command that runs until it is told to stop."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=cwd,
            # As a shell does it: Ctrl-C reaches the whole group.
            process_group=0,
        )
        self._output = b""

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._output:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            assert ready, "no line came"
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise AssertionError(f"it ended: {self.finish()}")
            self._output += piece
        line, _, self._output = self._output.partition(b"\n")
        return line.decode()

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> tuple[int, str, str]:
        """Exit code, what was not read yet of its output, its errors."""
        output, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, (self._output + output).decode(), errors.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class ServedBroker(Command):
    """`planaria serve`, ready."""

    def __init__(self, data: Path, endpoint: str, *arguments: str) -> None:
        super().__init__("serve", "--data", str(data), "--endpoint", endpoint, *arguments)
        self.endpoint = endpoint
        self.greeting = self.line()

    def run(self, *arguments: str, given: str = "") -> str:
        """A command attached to this broker; its output. Fails the test when the command fails."""
        done = planaria(*arguments, "--connect", self.endpoint, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str, given: str = "") -> Any:
        return json.loads(self.run(*arguments, "--json", given=given))
