"""A report about an application, made in a process of its own: its subscriptions, and the files of its modules. Impure.

    stdout    one line of JSON: {"app", "files"}, or {"error", "traceback"} if the application cannot be used

Every handler is loaded once, so that a wrong annotation or a missing module is found before a process runs it. Output of
the modules goes to standard error. Run as `python -m ...application_report MODULE:APP FOLDER...` by the worker, which
loads no application itself: so it can describe the application again when the code has changed.
"""

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import msgspec

from ...transport.application import App, AppReport, description_of
from ...transport.codec import sendable
from ...transport.periodic import Schedule
from ...transport.protocol.errors import PlanariaError
from ...transport.subscription import HandlerSource
from .coroutines import run_alone
from .handler import HandlerUnusable, imported, load_handler

_OWN_FOLDERS = tuple(
    f"{__file__.rsplit('/', 3)[0]}/{name}/" for name in ("actors", "supervisor", "transport")
)
_INSTALLED = "/site-packages/"


def main() -> NoReturn:
    results = os.dup(1)
    os.dup2(2, 1)
    path, *folders = sys.argv[1:]
    os.write(results, msgspec.json.encode(report_of(path, folders)) + b"\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    # Not sys.exit: threads that the module has started must not keep the process alive.
    os._exit(0)


def report_of(path: str, folders: list[str]) -> AppReport:
    before = set(sys.modules)
    sys.path[:0] = [entry for entry in folders if entry not in sys.path]
    try:
        app = imported(path)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the user's code may raise anything
        return AppReport(
            error=sendable(f"{path} cannot be imported: {type(error).__name__}: {error}"),
            traceback=sendable(traceback.format_exc()),
        )
    if not isinstance(app, App):
        return AppReport(error=f"{path} is not a planaria.App but {type(app).__name__}")
    description = description_of(app)
    schedule = Schedule(lambda *_: None, lambda: 0, run_alone)
    try:
        for subscription in description.subscriptions:
            load_handler(HandlerSource(path=path, member=subscription.name), folders, schedule)
    except (HandlerUnusable, PlanariaError) as error:
        return AppReport(error=sendable(f"{subscription.name}: {error}"))
    files = [getattr(sys.modules[name], "__file__", None) for name in sys.modules.keys() - before]
    return AppReport(app=description, files=sorted({file for file in files if file and _is_programs(file)}))


def _is_programs(file: str) -> bool:
    """Return True for a file of the program: not of the standard library, an installed package, or this one."""
    return not (
        _INSTALLED in file
        or file.startswith((f"{sys.base_prefix}/lib/", *_OWN_FOLDERS))
        or not file.endswith(".py")
    )


if __name__ == "__main__":
    main()
