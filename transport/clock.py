"""The two readings of a process's time, both in milliseconds since the epoch.

    now     the steady clock: anchored to the wall clock when the process starts, moved by the monotonic clock from then
            on. It never steps. Every duration, timer and deadline is measured by it; suspended time does not count.
    wall    the time of day as the machine has it. It steps when somebody sets it, and by as long as the machine slept.
            Points in time that outlive the process, or that people give, are compared with it.

`wall` is `now` plus an offset that is looked at by `follow`, which the loop calls with each heartbeat: within a second
the offset is right again. In between `wall` moves as steadily as `now`.
"""

import time

STEP_MS = 250
"""What the two clocks may drift apart before it counts as a step: adjustments by NTP's slewing come in bits."""


class Clock:
    def __init__(self) -> None:
        self._anchor_ns = time.time_ns() - time.monotonic_ns()
        self._offset_ms = 0

    def now_ms(self) -> int:
        """The steady clock; never decreasing."""
        return (self._anchor_ns + time.monotonic_ns()) // 1_000_000

    @property
    def offset_ms(self) -> int:
        """What the wall clock is ahead of the steady one."""
        return self._offset_ms

    def follow(self) -> int:
        """Look at the machine's wall clock; by how much it has stepped since the last look, 0 if it has not."""
        offset_ms = (time.time_ns() - time.monotonic_ns() - self._anchor_ns) // 1_000_000
        step_ms = offset_ms - self._offset_ms
        if abs(step_ms) < STEP_MS:
            return 0
        self._offset_ms = offset_ms
        return step_ms
