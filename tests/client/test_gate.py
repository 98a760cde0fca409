"""The gates at which a program's threads wait, when the handler of a signal raises at any step."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from patience import TIMEOUT_S
from planaria.transport.client.gate import Bell

STORM_S = 1.0


class Interrupted(Exception):
    pass


@pytest.fixture
def alarms() -> Iterator[None]:
    def strike(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, strike)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_bell_is_shut_until_it_is_set_and_stays_open_until_it_is_cleared() -> None:
    bell = Bell()
    assert not bell.is_open
    assert not bell.wait(0.0)
    bell.set()
    bell.set()
    assert bell.is_open
    assert bell.wait(0.0)
    assert bell.wait(None)
    bell.clear()
    bell.clear()
    assert not bell.is_open


def test_a_bell_wakes_every_thread_that_waits() -> None:
    bell, awake = Bell(), threading.Semaphore(0)

    def wait() -> None:
        bell.wait(None)
        awake.release()

    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    bell.set()
    assert all(awake.acquire(timeout=TIMEOUT_S) for _ in range(3))


@pytest.mark.usefixtures("alarms")
def test_a_bell_works_on_after_exceptions_from_signal_handlers_at_any_step() -> None:
    bell, strikes = Bell(), 0
    over = threading.Event()

    def ring() -> None:
        while not over.is_set():
            bell.set()
            bell.clear()

    ringer = threading.Thread(target=ring, daemon=True)
    ringer.start()
    end = time.monotonic() + STORM_S
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.000_05)
            for _ in range(1_000):
                bell.set()
                bell.wait(0.001)
                bell.clear()
        except Interrupted:
            strikes += 1
    over.set()
    ringer.join(TIMEOUT_S)
    assert not ringer.is_alive(), "it waits for a lock that nobody will release"
    assert strikes > 100
    bell.set()
    assert bell.wait(0.0)
