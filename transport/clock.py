"""The readings of a process's time, in milliseconds since the epoch.

    now     the steady clock. It never steps and never goes back. Every duration, timer and deadline is measured by it;
            time during which the machine sleeps does not count.
    elapsed `now` and what the machine has slept: for durations that go on meanwhile.
    wall    the time of day as the machine has it. It steps when the clock is set, and by as long as the machine slept.
            Points in time that people give, and those that people read, are compared with it.

All processes of a broker have one steady clock: the monotonic clock, which the kernel keeps for all processes from boot
to shutdown, plus a constant. The constant is the `Origin`; the supervisor keeps it in the data directory until the
machine boots again. So what one process has written down, another one compares rightly, whatever the wall clock did in
between.

`wall` and `elapsed` are `now` plus offsets that `follow` looks at. The loop calls it with each heartbeat: within a second
they are right again. In between they move as steadily as `now`.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from .origin import Origin

STEP_MS = 250
"""What two clocks may drift apart before it counts as a step: adjustments by NTP's slewing come in bits."""
REHEARSAL = "PLANARIA_CLOCK_STEPS"
"""For tests alone: a folder with what the wall clock is to be wrong by, in milliseconds. The file `all` speaks to every
process of the broker, `partition-ORDERS-0` to that actor; they add up, and are read again with each heartbeat."""

_SLEEPLESS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps. On macOS CLOCK_MONOTONIC does, and `time.monotonic` does not."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACE = "/proc/self/ns/time"


def new_origin() -> Origin:
    """One at which the steady clock shows the time of day."""
    wall_ns = time.time_ns() + _rehearsed_ns("all")
    return Origin(_boot(), wall_ns - time.monotonic_ns(), _slept_ns())


def is_current(origin: Origin) -> bool:
    """Whether the machine has not booted since this origin was made."""
    return origin.boot != "" and origin.boot == _boot()


class Clock:
    def __init__(self, origin: Origin | None = None, name: str = "") -> None:
        """Of the actor `name` at this origin; by default at a new one."""
        origin = origin or new_origin()
        self._anchor_ns = origin.anchor_ns
        self._slept_before_ns = origin.slept_ns
        self._name = name.replace("/", "-")
        self._offset_ms = self._slept_ms = 0
        self.follow()

    def now_ms(self) -> int:
        """The steady clock; never decreasing."""
        return (self._anchor_ns + time.monotonic_ns()) // 1_000_000

    @property
    def offset_ms(self) -> int:
        """What the wall clock is ahead of the steady one."""
        return self._offset_ms

    @property
    def slept_ms(self) -> int:
        """How long the machine has slept since the origin."""
        return self._slept_ms

    def follow(self) -> int:
        """Look at the machine's clocks; by how much the wall clock has stepped since the last look, 0 if it has not."""
        slept_ms = (_slept_ns() - self._slept_before_ns) // 1_000_000
        if abs(slept_ms - self._slept_ms) >= STEP_MS:
            self._slept_ms = slept_ms
        wall_ns = time.time_ns() + _rehearsed_ns("all", self._name)
        offset_ms = (wall_ns - time.monotonic_ns() - self._anchor_ns) // 1_000_000
        step_ms = offset_ms - self._offset_ms
        if abs(step_ms) < STEP_MS:
            return 0
        self._offset_ms = offset_ms
        return step_ms


def _slept_ns() -> int:
    return time.clock_gettime_ns(_SLEEPLESS) - time.monotonic_ns()


def _boot() -> str:
    """Names the run of the kernel, and the clocks of this container where it has clocks of its own."""
    try:
        boot = Path(_BOOT_ID).read_text().strip()
    except OSError:
        return ""
    with suppress(OSError):
        boot += f"/{os.stat(_TIME_NAMESPACE).st_ino}"
    return boot


def _rehearsed_ns(*names: str) -> int:
    folder = os.environ.get(REHEARSAL)
    if folder is None:
        return 0
    total_ms = 0
    for name in filter(None, names):
        with suppress(FileNotFoundError):
            total_ms += int((Path(folder) / name).read_text() or 0)
    return total_ms * 1_000_000
