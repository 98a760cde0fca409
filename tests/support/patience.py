"""Time limits of waits for events that must happen: they end a test that hangs, and are no promise under test.

A machine may be twenty times slower than usual while others use it. A wait returns as soon as the event is there, so
these limits cost nothing otherwise. A time that is promised is measured, and has a limit of its own.
"""

import time
from collections.abc import Callable

TIMEOUT_S = 100.0
TIMEOUT_MS = 100_000


def wait_until(is_true: Callable[[], bool]) -> None:
    """Poll a state of other processes that no event reports."""
    ends_at = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < ends_at, "the wait did not end"
        time.sleep(0.1)
