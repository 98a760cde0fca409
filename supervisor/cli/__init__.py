"""The command line, one file a noun. Called by the `planaria` script and by `python -m planaria`."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from .app import run


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; without `arguments`, those of the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
