"""Standard input, output and error of processes that a service manager or a daemon has started.

Missing ones are replaced by the null device, before any descriptor is opened. Called first by the command line and by
the supervisor. The processes of a broker lose output that cannot be written, for example on a full disk: a log is no
reason to stop serving. A command reports that instead.
"""

import io
import os
import sys
from typing import Any


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


class _LossyOutput(io.FileIO):
    """A descriptor for writing that takes all output, and drops whatever the system refuses."""

    def write(self, data: Any, /) -> int:
        try:
            count = super().write(data)
        except OSError:
            count = None
        return memoryview(data).nbytes if count is None else count


def lose_unwritable_output() -> None:
    """Let standard output and error drop text that cannot be written, instead of raising."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream: Any = getattr(sys, name)
        is_buffered = isinstance(stream.buffer, io.BufferedWriter)  # not with PYTHONUNBUFFERED
        if isinstance(stream.buffer.raw if is_buffered else stream.buffer, _LossyOutput):
            continue  # a fork of the supervisor
        output: Any = _LossyOutput(descriptor, "w", closefd=False)
        lossy = io.TextIOWrapper(
            io.BufferedWriter(output) if is_buffered else output,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, lossy)
