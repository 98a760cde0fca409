"""The clock: one reading is unaffected by steps and restarts; the others follow."""

import time
from pathlib import Path

import pytest

from planaria.transport import clock as clock_module
from planaria.transport.clock import REHEARSAL, Clock, is_current, new_origin


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
    assert abs(clock.follow() - step_ms) < 60_000
    assert abs(clock.offset_ms - step_ms) < 60_000
    assert 0 <= clock.now_ms() - before < 60_000
    assert clock.follow() == 0, "a step is told once"
    monkeypatch.undo()
    assert abs(clock.follow() + step_ms) < 60_000
    assert abs(clock.offset_ms) < 60_000


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_a_process_that_starts_after_a_step_has_the_steady_clock_of_those_before(
    monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    origin = new_origin()
    before = Clock(origin)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + step_ms * 1_000_000)
    after = Clock(origin)
    assert abs(after.now_ms() - before.now_ms()) < 1_000
    assert abs(after.offset_ms - step_ms) < 60_000
    assert abs(Clock().now_ms() - before.now_ms() - step_ms) < 1_000, (
        "an origin of its own is at the time of day"
    )


def test_an_origin_holds_until_the_machine_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "_boot", lambda: "one")
    origin = new_origin()
    assert is_current(origin)
    monkeypatch.setattr(clock_module, "_boot", lambda: "another")
    assert not is_current(origin)
    monkeypatch.setattr(clock_module, "_boot", lambda: "")
    assert not is_current(new_origin()), "where the system names no boots, none is taken for another"


def test_the_time_that_the_machine_sleeps_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    real_wall, real_sleepless = time.time_ns, time.clock_gettime_ns
    slept_ns = 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: real_wall() + slept_ns)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: real_sleepless(which) + slept_ns)
    before = clock.now_ms()
    assert abs(clock.follow() - 3_600_000) < 60_000
    assert abs(clock.slept_ms - 3_600_000) < 60_000
    assert clock.now_ms() - before < 60_000


def test_a_rehearsed_step_is_of_all_processes_or_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(REHEARSAL, str(tmp_path))
    origin = new_origin()
    one, other = Clock(origin, "partition/ORDERS/0"), Clock(origin, "gateway/0")
    (tmp_path / "all").write_text("7200000")
    (tmp_path / "partition-ORDERS-0").write_text("-10800000")
    assert abs(one.follow() + 3_600_000) < 60_000
    assert abs(other.follow() - 7_200_000) < 60_000
