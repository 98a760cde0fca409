"""The description of an application, made by a process of its own, which alone imports the application. Impure.

The module named by ENTRY runs in that process and is named only: this package does not load handlers.
"""

import subprocess
from collections.abc import Sequence

import msgspec

from ...transport.application import AppDescription, AppReport
from ...transport.protocol.errors import PlanariaError
from ..rehearsal import own_program

ENTRY = f"{(__package__ or '').partition('.')[0]}.actors.subscriber.application_report"
TIMEOUT_S = 120.0


class ApplicationUnusable(PlanariaError):
    """The application cannot be imported, or one of its handlers cannot be used. `traceback` is its own, or empty."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


def describe(app: str, folders: Sequence[str]) -> tuple[AppDescription, list[str]]:
    """Import `module:app` in another process; return its description and its files. Raises ApplicationUnusable."""
    try:
        found = subprocess.run(
            own_program(ENTRY, app, *folders),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
            # Ctrl-C in a terminal is for the worker.
            process_group=0,
        )
    except subprocess.TimeoutExpired as error:
        raise ApplicationUnusable(f"{app} was not imported within {TIMEOUT_S:.0f} s") from error
    try:
        report = msgspec.json.decode(found.stdout, type=AppReport)
    except msgspec.MsgspecError as error:
        raise ApplicationUnusable(
            f"{app}: its process ended with exit code {found.returncode} while it imported the module"
        ) from error
    if report.app is None:
        raise ApplicationUnusable(report.error, report.traceback)
    return report.app, report.files
