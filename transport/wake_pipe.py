"""A pipe that wakes the thread which polls its reading end. Used by every thread that waits for both sockets and threads.

The numbers of closed descriptors are given to the next files that the program opens. A byte written, or a close, that
comes too late would hit such a file, so each descriptor is closed exactly once, and never while a thread writes to it:

    open     `wake` writes
    closing  `close` was called while threads were in `wake`; the last of them closes the descriptors
    closed   `wake` and `close` do nothing

No lock, because a signal handler that interrupts `wake` may call `wake` or `close`. The order of the steps matters: a
thread enters before it looks whether the pipe is open, and `close` marks the pipe before it looks who is inside.
"""

import os
from contextlib import suppress


class WakePipe:
    """A pipe whose reading end is readable after `wake`, until `clear`."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._reader, self._writer = reader, writer
        self._unclosed = [reader, writer]
        self._inside: list[None] = []
        """One item for each thread in `wake`."""
        self._is_open = True

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        return self._reader

    def wake(self) -> None:
        """Make the reading end readable. Any thread, signal handlers too."""
        self._inside.append(None)
        try:
            if self._is_open:
                with suppress(BlockingIOError):  # full: it is readable
                    os.write(self._writer, b"\0")
        finally:
            self._leave()

    def clear(self) -> None:
        """Read the bytes that were written. Only the thread that polls."""
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close both ends. Only the thread that polls, or after its end."""
        self._is_open = False
        if not self._inside:
            self._close_descriptors()

    def on_fork(self) -> None:
        """Close this process's copies in a forked child, which has none of the threads that were in `wake`."""
        self._inside.clear()
        self.close()

    def _leave(self) -> None:
        with suppress(IndexError):  # forked in the middle
            self._inside.pop()
        if not self._is_open and not self._inside:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        with suppress(IndexError):  # closed
            while True:
                os.close(self._unclosed.pop())
