"""The clock: one reading stays put when somebody sets the time, the other follows."""

import time

import pytest

from planaria.transport.clock import Clock


def test_it_tells_the_time() -> None:
    before = time.time_ns() // 1_000_000
    assert before - 1 <= Clock().now_ms() <= time.time_ns() // 1_000_000 + 1


def test_it_never_goes_back_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    first = clock.now_ms()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    readings = [clock.now_ms() for _ in range(1_000)]
    assert readings == sorted(readings)
    assert first <= readings[0] < first + 60_000


def test_it_moves_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    started = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: started)
    first = clock.now_ms()
    monkeypatch.setattr(time, "monotonic_ns", lambda: started + 5_000_000_000)
    assert clock.now_ms() == first + 5_000


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_the_wall_clock_is_followed_and_the_steady_one_stays(
    monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    clock = Clock()
    assert (clock.follow(), clock.offset_ms) == (0, 0)
    before, real = clock.now_ms(), time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + step_ms * 1_000_000)
    assert abs(clock.follow() - step_ms) < 100
    assert abs(clock.offset_ms - step_ms) < 100
    assert 0 <= clock.now_ms() - before < 60_000
    assert clock.follow() == 0, "a step is told once"
    monkeypatch.undo()
    assert abs(clock.follow() + step_ms) < 100
    assert abs(clock.offset_ms) < 100
