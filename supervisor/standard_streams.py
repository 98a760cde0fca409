"""Standard input, output and error of a process that was started without them, as a daemon's children may be.

Replaces missing ones by the null device and leaves the others alone. Called first by the command line and by the
supervisor, before any descriptor is opened.
"""

import os
import sys


def open_missing_standard_streams() -> None:
    """Open `/dev/null` for each closed descriptor from 0 to 2, and the stream that Python has on it.

    Otherwise a socket or a file would get one of these numbers, and would receive all printed and logged text.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.set_inheritable(descriptor, True)
    # Python has None for a stream whose descriptor was closed when it started.
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
