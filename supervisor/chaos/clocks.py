"""The clocks of the broker's machine in a chaos run, as the broker's processes see them (REHEARSAL in clock.py).

    set     the wall clock of one actor, or of all, is wrong from now on; they notice with their next heartbeat
    boot    as after a boot of the machine: the next supervisor restarts the steady clock at the time of day

Clients see the correct time. Their records are ahead of a broker whose clock was slow when its machine booted, and more
than `max_timestamp_ahead_ms` is refused; so at a boot the simulated clock is correct or fast.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from ...transport.clock import REHEARSAL, new_origin

STEPS_H = (-5, -2, 0, 2, 5)
HOUR_MS = 3_600_000
EVERYBODY = "all"


class Clocks:
    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self._folder = folder
        self._origin = data / "clock.json"
        self._chance = Random(seed)

    def set(self, address: str = EVERYBODY) -> int:
        """Set the clock wrong from now on; return the error in hours."""
        return self._set(address, self._chance.choice(STEPS_H))

    def boot(self) -> int:
        """Reset the steady clock, to be followed by the supervisor's death. Returns the clock's advance in hours.

        The next supervisor reads the new origin: it may start only after the clock has been set once more.
        """
        hours = self._set(EVERYBODY, self._chance.choice([step for step in STEPS_H if step >= 0]))
        self._replace(self._origin, msgspec.json.encode(new_origin()))
        return hours

    def _set(self, address: str, hours: int) -> int:
        self._replace(self._folder / address.replace("/", "-"), str(hours * HOUR_MS).encode())
        return hours

    def _replace(self, file: Path, content: bytes) -> None:
        """Replace the file atomically: a process may read it at any moment."""
        aside = self._folder / ".new"
        aside.write_bytes(content)
        aside.rename(file)


@contextlib.contextmanager
def rehearsed(scratch: Path, seed: int) -> Iterator[Clocks]:
    """Rehearse clocks for a broker on `scratch`/data, which must be started and restarted within the block."""
    folder = scratch / "clocks"
    folder.mkdir()
    os.environ[REHEARSAL] = str(folder)
    try:
        yield Clocks(folder, scratch / "data", seed)
    finally:
        del os.environ[REHEARSAL]
