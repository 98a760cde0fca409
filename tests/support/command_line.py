"""The `planaria` command as a person runs it, and a broker started by `planaria serve`."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from patience import TIMEOUT_S
from planaria.supervisor.cli.app import root, run
from warm_start import WarmPopen

PROGRAM = [sys.executable, "-P", "-m", "planaria"]


def environment(**variables: str) -> dict[str, str]:
    """Return our environment without the variables that change the command line's behaviour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PLANARIA_") or "TEST" in name
    }
    return {**kept, "COLUMNS": "80", "PYTHONWARNINGS": "error", **variables}


def leaves() -> list[tuple[str, ...]]:
    """Return all commands that do something, by their words."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not hasattr(command, "commands"):
            yield path
        for name, each in getattr(command, "commands", {}).items():
            yield from below(each, (*path, name))

    return list(below(root(), ()))


class Done(NamedTuple):
    """Result of a command."""

    returncode: int
    stdout: str
    stderr: str


def planaria(*arguments: str, given: str | bytes = "", columns: int = 80, **variables: str) -> Done:
    """Run one command in this process, as `Command` would in its own, only faster."""
    given = given.encode() if isinstance(given, str) else given
    stdin, stdout, stderr = (
        io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (given, b"", b"")
    )
    with (
        mock.patch.dict(os.environ, environment(COLUMNS=str(columns), **variables), clear=True),
        mock.patch.multiple(sys, stdin=stdin, stdout=stdout, stderr=stderr),
    ):
        code = run(arguments)
        stdout.flush()
        stderr.flush()
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (stdout, stderr)))  # type: ignore[attr-defined]


class Command:
    """A command that runs until it is stopped."""

    def __init__(
        self, *arguments: str, cwd: Path | None = None, is_typed_into: bool = False, is_warm: bool = False
    ) -> None:
        """With `is_warm` it has the warnings and the modules of the nursery; see warm_start.py."""
        variables = environment()
        if is_warm:
            del variables["PYTHONWARNINGS"]
        self.process = (WarmPopen if is_warm else subprocess.Popen)(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE if is_typed_into else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            cwd=cwd,
            # As in a shell: Ctrl-C reaches the whole group.
            process_group=0,
        )
        self._output = b""

    def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
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
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> tuple[int, str, str]:
        """Return the exit code, the unread rest of the output, and the errors."""
        output, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, (self._output + (output or b"")).decode(), errors.decode()

    def hang_up(self) -> None:
        """Stop reading its output, as `head` does."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.stdout = None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class ServedBroker(Command):
    """`planaria serve`, ready."""

    def __init__(self, data: Path, endpoint: str, *arguments: str, is_warm: bool = False) -> None:
        command = ("serve", "--data", str(data), "--endpoint", endpoint, *arguments)
        super().__init__(*command, is_warm=is_warm)
        self.endpoint = endpoint
        self.greeting = self.line()

    def run(self, *arguments: str, given: str = "") -> str:
        """Run a command attached to this broker; return its output. Fails the test when the command fails."""
        done = planaria(*arguments, "--connect", self.endpoint, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str, given: str = "") -> Any:
        return json.loads(self.run(*arguments, "--json", given=given))
