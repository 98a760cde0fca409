"""The clocks of a process, in milliseconds since the epoch.

    now     the steady clock. It never steps and never goes back. It measures every duration, timer and deadline;
            time during which the machine sleeps does not count.
    elapsed `now` plus the time during which the machine has slept: for durations that include it.
    wall    the machine's time of day. It steps when the clock is set, and by as long as the machine slept.
            Points in time that people enter or read are compared with it.

All processes of a broker share one steady clock: the monotonic clock, which the kernel keeps for all processes from
boot to shutdown, plus a constant. The constant is the `Origin`. The supervisor keeps it in the data directory until
the machine boots again. So processes can compare the times that they have recorded, whatever the wall clock did in
between.

`wall` and `elapsed` are `now` plus offsets that `follow` updates. The loop calls it with each heartbeat, so they are
correct again within a second of a step. In between they advance as steadily as `now`.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from .origin import Origin

STEP_MS = 250
"""Difference of two clocks that counts as a step. NTP's slewing adjusts in smaller amounts."""
REHEARSAL = "PLANARIA_CLOCK_STEPS"
"""For tests only: a folder with errors of the wall clock, in milliseconds. The file `all` applies to every process
of the broker, `partition-ORDERS-0` to that actor. They add up, and are read again with each heartbeat. The file
`ahead-scheduler` moves all clocks of that kind of actors forward; its number only grows."""

_SLEEPLESS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Continues while the machine sleeps. On macOS CLOCK_MONOTONIC does so, and `time.monotonic` does not."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACE = "/proc/self/ns/time"


def elapsed_ms() -> int:
    """Return the machine's own clock that also counts its sleep, such as CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(_SLEEPLESS) // 1_000_000


def ahead_file(kind: str) -> str:
    """Return the name of the file that moves the clocks of a kind of actors."""
    return f"ahead-{kind}"


def new_origin() -> Origin:
    """Return an origin at which the steady clock shows the time of day."""
    wall_ns = time.time_ns() + _rehearsed_ns("all")
    return Origin(_boot(), wall_ns - time.monotonic_ns(), _slept_ns())


def is_current(origin: Origin) -> bool:
    """Return True if the machine has not booted since this origin was made."""
    return origin.boot != "" and origin.boot == _boot()


class Clock:
    def __init__(self, origin: Origin | None = None, name: str = "") -> None:
        """Make the clock of the actor `name` at this origin, by default a new one."""
        origin = origin or new_origin()
        self._anchor_ns = origin.anchor_ns
        self._slept_before_ns = origin.slept_ns
        self._name = name.replace("/", "-")
        self._ahead_file = ahead_file(name.partition("/")[0])
        self._ahead_ns = 0
        self._offset_ms = self._slept_ms = 0
        self.follow()

    def now_ms(self) -> int:
        """Return the steady clock, which never decreases."""
        return (self._anchor_ns + time.monotonic_ns()) // 1_000_000

    @property
    def offset_ms(self) -> int:
        """Return the offset of the wall clock from the steady one."""
        return self._offset_ms

    @property
    def slept_ms(self) -> int:
        """Return the time for which the machine has slept since the origin."""
        return self._slept_ms

    @property
    def ahead_ms(self) -> int:
        """Return the time by which a test has moved all clocks of this kind of actors."""
        return self._ahead_ns // 1_000_000

    def follow(self) -> int:
        """Read the machine's clocks. Return the step of the wall clock since the last call, 0 if it has not
        stepped."""
        slept_ms = (_slept_ns() - self._slept_before_ns) // 1_000_000
        if abs(slept_ms - self._slept_ms) >= STEP_MS:
            self._slept_ms = slept_ms
        ahead_ns = _rehearsed_ns(self._ahead_file)
        self._anchor_ns += ahead_ns - self._ahead_ns
        self._ahead_ns = ahead_ns
        wall_ns = time.time_ns() + ahead_ns + _rehearsed_ns("all", self._name)
        offset_ms = (wall_ns - time.monotonic_ns() - self._anchor_ns) // 1_000_000
        step_ms = offset_ms - self._offset_ms
        if abs(step_ms) < STEP_MS:
            return 0
        self._offset_ms = offset_ms
        return step_ms


def _slept_ns() -> int:
    return time.clock_gettime_ns(_SLEEPLESS) - time.monotonic_ns()


def _boot() -> str:
    """Return the id of the kernel's run, including the container's own clocks where it has any."""
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
