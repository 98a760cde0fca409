"""Trials of dead letters with the current code, in isolated processes. Impure.

Owns those processes. Each is fresh, in a session and an empty working directory of its own, without core dumps; if one
dies or takes too long, that is the result of the current letter, and another one continues with the next. Called by
`planaria dlq`. The module named by ENTRY runs on the other side and is imported by name: this package does not load
handlers.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from ..transport.client.messages import Message
from ..transport.protocol.errors import PlanariaError

ENTRY = f"{(__package__ or '').partition('.')[0]}.actors.subscriber.rehearsal"
LOAD_TIMEOUT_S = 30.0
HOME = Path(__file__).resolve().parents[2]
"""The directory that contains the package."""
_RUN_MODULE = """import runpy, sys
home, module = sys.argv[1:3]
del sys.argv[1:3]
sys.path.append(home)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
STACK_CHARS = 8_000


class RehearsalFailed(PlanariaError):
    """The handler cannot be tried at all."""


class Trial(Struct, frozen=True):
    """Result of one letter."""

    message: Message
    passed: bool
    reason: str = ""
    traceback: str = ""


def rehearse(
    handler: str, messages: Sequence[Message], timeout_s: float, paths: Sequence[str]
) -> Iterator[Trial]:
    """Pass each message to the handler `module:function`, found in `paths`. Raises RehearsalFailed."""
    left = list(messages)
    while left:
        with tempfile.TemporaryDirectory(prefix="planaria-rehearsal-") as directory:
            trials = list(_one_process(handler, left, timeout_s, paths, Path(directory)))
        yield from trials
        left = left[len(trials) :]


def check_handler(handler: str, folder: str, python: str, environment: Mapping[str, str]) -> None:
    """Load the handler `module:function` in a process of this Python, and run nothing. Raises RehearsalFailed."""
    try:
        done = subprocess.run(
            own_program(ENTRY, handler, folder, python=python),
            input=msgspec.msgpack.encode([]),
            capture_output=True,
            env={**os.environ, **environment},
            timeout=LOAD_TIMEOUT_S,
            check=False,
        )
        found = json.loads(done.stdout.partition(b"\n")[0] or b"{}")
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise RehearsalFailed(f"{handler} was not loaded: {error}") from error
    if not found.get("loaded"):
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RehearsalFailed(found.get("reason") or f"{python} does not load {handler}: {said}")


def _one_process(
    handler: str, messages: Sequence[Message], timeout_s: float, paths: Sequence[str], directory: Path
) -> Iterator[Trial]:
    """Yield at least one trial: the last one ended the process, unless its message was the last."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(msgspec.msgpack.encode(list(messages)))
        given.seek(0)
        process = subprocess.Popen(
            own_program(ENTRY, handler, *map(os.path.abspath, paths)),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=directory,
            start_new_session=True,
        )
        assert process.stdout is not None
        lines = _Lines(process.stdout)
        try:
            _await_loaded(lines, said)
            for message in messages:
                found = lines.next(timeout_s)
                if found is None:
                    yield _ended(message, process, said, timeout_s, is_late=lines.is_late)
                    return
                yield Trial(message, found["passed"], found.get("reason", ""), found.get("traceback") or "")
        finally:
            _kill(process)


def own_program(module: str, *arguments: str, python: str = sys.executable) -> list[str]:
    """Return the command of a module of this package, whose parent directory may be on the caller's path only.

    The directory is the last on its path: in PYTHONPATH its other packages would hide those of the standard library.
    """
    return [python, "-c", _RUN_MODULE, str(HOME), module, *arguments]


class _Lines:
    """JSON lines from a pipe, read with a timeout."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._buffer = b""
        self.is_late = False

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next line; None if the pipe has ended or the timeout has passed (`is_late`)."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.is_late = True
                return None
            piece = os.read(self._pipe.fileno(), 65_536)
            if not piece:
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _await_loaded(lines: _Lines, said: IO[bytes]) -> None:
    found = lines.next(LOAD_TIMEOUT_S)
    if found is None:
        raise RehearsalFailed(f"the handler's process did not start: {_exit_reports(said)}")
    if not found["loaded"]:
        raise RehearsalFailed(found["reason"])


def _ended(
    message: Message, process: "subprocess.Popen[bytes]", said: IO[bytes], timeout_s: float, *, is_late: bool
) -> Trial:
    if is_late:
        # With faulthandler enabled, the signal makes it write the stack of the hang.
        process.send_signal(signal.SIGABRT)
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    reason = f"took longer than {timeout_s:g} s" if is_late else _end_text(code)
    return Trial(message, False, reason, _exit_reports(said))


def _end_text(code: int) -> str:
    if code >= 0:
        return f"ended its process with exit code {code}"
    with suppress(ValueError):
        return f"killed its process: {signal.Signals(-code).name}"
    return f"killed its process: signal {-code}"


def _exit_reports(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-STACK_CHARS:].strip()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and its descendants."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
