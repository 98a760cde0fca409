"""The one clock of a process: wall-clock milliseconds that never go back.

Anchored to the wall clock when the process starts and moved by the monotonic clock from then on, so that a deadline
is not missed or doubled when somebody sets the time. A step of the wall clock is taken up at the next start.
"""

import time


class Clock:
    """Milliseconds since the epoch, never decreasing."""

    def __init__(self) -> None:
        self._anchor_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        return (self._anchor_ns + time.monotonic_ns()) // 1_000_000
