"""The description of an application, made by a process of its own, which alone imports the application. Impure.

The module named by ENTRY runs in that process and is named only: this package does not load handlers.
"""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

import msgspec

from ...transport.application import AppDescription, AppReport
from ...transport.protocol.errors import PlanariaError
from ..rehearsal import own_program

ENTRY = f"{(__package__ or '').partition('.')[0]}.actors.subscriber.application_report"
TIMEOUT_S = 120.0
CANCEL_S = 0.1
"""How often it is asked whether the description is still wanted."""


class ApplicationUnusable(PlanariaError):
    """The application cannot be imported, or one of its handlers cannot be used. `traceback` is its own, or empty."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


def describe(
    app: str, folders: Sequence[str], is_cancelled: Callable[[], bool]
) -> tuple[AppDescription, list[str]] | None:
    """Import `module:app` in another process; return its description and its files. Raises ApplicationUnusable.

    Returns None once `is_cancelled`, whatever the import waits for.
    """
    # A file, not a pipe: a process that the module starts may keep a pipe open.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            own_program(ENTRY, app, *folders),
            stdin=subprocess.DEVNULL,
            stdout=output,
            # Ctrl-C in a terminal is for the worker.
            process_group=0,
        )
        try:
            code = _await_end(process, app, is_cancelled)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        said = output.read()
    return None if code is None else _read_report(said, app, code)


def _await_end(process: "subprocess.Popen[bytes]", app: str, is_cancelled: Callable[[], bool]) -> int | None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_cancelled():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(CANCEL_S)
        if time.monotonic() > deadline:
            raise ApplicationUnusable(f"{app} was not imported within {TIMEOUT_S:.0f} s")
    return None


def _read_report(said: bytes, app: str, code: int) -> tuple[AppDescription, list[str]]:
    try:
        report = msgspec.json.decode(said, type=AppReport)
    except msgspec.MsgspecError as error:
        raise ApplicationUnusable(
            f"{app}: its process ended with exit code {code} while it imported the module"
        ) from error
    if report.app is None:
        raise ApplicationUnusable(report.error, report.traceback)
    return report.app, report.files
