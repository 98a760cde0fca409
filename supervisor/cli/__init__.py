"""The command line, one file a noun. Called by the `planaria` script and by `python -m planaria`."""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..standard_streams import open_missing_standard_streams


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; without `arguments`, those of the process."""
    open_missing_standard_streams()
    given = sys.argv[1:] if arguments is None else arguments
    # An order to end, from a person or a service manager, is obeyed in good order: offsets are committed, groups left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # One that comes while this loads is kept; for a broker until its supervisor has loaded, over `exec`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from .app import run  # noqa: PLC0415

    if list(given[:1]) != ["serve"]:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    sys.exit(run(given))
