"""The command line, one file per noun. Called by the `planaria` script and by `python -m planaria`."""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..standard_streams import open_missing_standard_streams


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code. `arguments` defaults to those of the process."""
    open_missing_standard_streams()
    given = sys.argv[1:] if arguments is None else arguments
    # SIGTERM, from a person or a service manager, ends a command in order: offsets are committed, groups left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A SIGTERM that arrives during loading stays pending; for a broker until its supervisor has loaded, over `exec`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from .app import run  # noqa: PLC0415

    if list(given[:1]) != ["serve"]:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    sys.exit(run(given))
