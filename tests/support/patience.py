"""Time limits of waits for events that must happen: they end a test that hangs, and are no promise under test.

A machine may be twenty times slower than usual while others use it. A wait returns as soon as the event is there, so
these limits cost nothing otherwise. A time that is promised is measured, and has a limit of its own.
"""

import time
from collections.abc import Callable

TIMEOUT_S = 100.0
TIMEOUT_MS = 100_000
POLLED_SHARE = 0.05
"""A state is looked at again after this part of the time that it has taken, within the limits below."""
MIN_POLL_S = 0.01
MAX_POLL_S = 0.25


def wait_until(is_true: Callable[[], bool]) -> None:
    """Poll a state of other processes that no event reports."""
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() < began + TIMEOUT_S, "the wait did not end"
        pause_after(began)


def pause_after(began: float) -> None:
    """Wait until the next look at a state that is waited for since `began`. A look may cost other processes much."""
    time.sleep(min(MAX_POLL_S, max(MIN_POLL_S, POLLED_SHARE * (time.monotonic() - began))))
