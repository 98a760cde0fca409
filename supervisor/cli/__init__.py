"""The command line, one file a noun. Called by the `planaria` script and by `python -m planaria`."""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from .app import run


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; without `arguments`, those of the process."""
    # Whoever ends us in order, be it a person or a service manager, is heard: offsets are committed, groups left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
