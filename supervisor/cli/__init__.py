"""The command line, one file per noun. Called by the `planaria` script and by `python -m planaria`."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from ..standard_streams import open_missing_standard_streams

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code. `arguments` defaults to those of the process."""
    open_missing_standard_streams()
    _escape_unencodable_text()
    given = sys.argv[1:] if arguments is None else arguments
    # SIGTERM, from a person or a service manager, ends a command in order: offsets are committed, groups left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A SIGTERM that arrives during loading stays pending; for a broker until its supervisor has loaded, over `exec`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # It may be ignored, as in a background job.
    is_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_interruptible:
        signal.signal(signal.SIGINT, _end_at_once)
    from .app import run  # noqa: PLC0415

    try:
        if is_interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if list(given[:1]) != ["serve"]:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        code = run(given)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _escape_unencodable_text() -> None:
    """Print escapes for characters that the locale lacks: keys, reasons and tables may have any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # its descriptor was replaced by one without positions
                stream.reconfigure(errors="backslashreplace")


def _end_at_once(_: int, __: FrameType | None) -> NoReturn:
    """Handle Ctrl-C while modules are loaded: nothing has begun. An exception could be lost in the import system."""
    os._exit(EXIT_INTERRUPTED)
