"""Delays are durations, and times of day follow the wall clock, whatever becomes of it."""

import pytest

from planaria.actors.scheduler import pending_messages as pending_module
from planaria.transport.batch import decode_records
from planaria.transport.machine import StopRequested
from simulated_schedule import SimulatedSchedule


@pytest.fixture
def world() -> SimulatedSchedule:
    return SimulatedSchedule(ORDERS=1).run()


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_a_time_of_day_follows_the_wall_clock(world: SimulatedSchedule, step_ms: int) -> None:
    """Forward by hours: due messages go at once, the rest as much earlier. Back: as much later, and not before."""
    world.schedule("a", "ORDERS", 3_600_000)
    world.schedule("b", "ORDERS", 10_800_000)
    world.step(step_ms)
    world.drain()
    assert world.delivered("ORDERS") == (["a"] if step_ms > 0 else [])
    world.advance(10_800_000 - step_ms - 1)
    assert "b" not in world.delivered("ORDERS")
    world.advance(1)
    assert world.delivered("ORDERS") == ["a", "b"]


HOUR_MS = 3_600_000


@pytest.mark.parametrize("step_ms", [2 * HOUR_MS, -2 * HOUR_MS])
@pytest.mark.parametrize("restart", ["none", "with a snapshot", "without", "before the step"])
def test_a_delay_is_a_duration_whatever_the_wall_clock_does(
    world: SimulatedSchedule, step_ms: int, restart: str
) -> None:
    world.delay("a", "ORDERS", HOUR_MS)
    if restart == "before the step":
        world.crash()
        world.drain()
    world.step(step_ms)
    if restart.startswith("with"):
        world.crash(with_snapshot=restart == "with a snapshot")
    world.drain()
    world.advance(HOUR_MS - 1)
    assert world.delivered("ORDERS") == []
    world.advance(1)
    assert world.delivered("ORDERS") == ["a"]


@pytest.mark.parametrize("with_snapshot", [True, False])
@pytest.mark.parametrize("hours", [-48, -2, 2])
def test_after_a_boot_with_a_wrong_clock_a_delay_is_no_longer_than_itself(
    world: SimulatedSchedule, hours: int, with_snapshot: bool
) -> None:
    world.delay("a", "ORDERS", HOUR_MS)
    world.delay("b", "ORDERS", 5 * HOUR_MS)
    world.advance(HOUR_MS // 2)
    if with_snapshot:
        world.handle(StopRequested(0))
    assert (world.snapshot is not None) == with_snapshot
    world.boot(hours * HOUR_MS)
    world.drain()
    assert world.delivered("ORDERS") == (["a"] if hours > 0 else [])
    world.advance(HOUR_MS)
    assert world.delivered("ORDERS") == ["a"]
    world.advance(4 * HOUR_MS)
    assert world.delivered("ORDERS") == ["a", "b"]


def test_a_delay_goes_on_while_the_machine_sleeps(world: SimulatedSchedule) -> None:
    world.delay("a", "ORDERS", 2 * HOUR_MS)
    world.delay("b", "ORDERS", 4 * HOUR_MS)
    world.step(0, slept_ms=3 * HOUR_MS)
    world.drain()
    assert world.delivered("ORDERS") == ["a"]
    world.crash()
    world.drain()
    world.advance(HOUR_MS)
    assert world.delivered("ORDERS") == ["a", "b"]


def test_delays_and_times_of_day_take_turns_as_they_become_due(world: SimulatedSchedule) -> None:
    world.step(2 * HOUR_MS)
    for number in range(6):
        add = world.delay if number % 2 else world.schedule
        add(f"m{number}", "ORDERS", 1_000 * (6 - number))
    world.advance(10_000)
    assert world.delivered("ORDERS") == ["m5", "m4", "m3", "m2", "m1", "m0"]


def test_the_list_says_when_a_delay_ends_by_todays_clock(world: SimulatedSchedule) -> None:
    world.delay("a", "ORDERS", HOUR_MS)
    world.schedule("b", "ORDERS", HOUR_MS)
    scheduled_at = world.now
    world.step(-2 * HOUR_MS)
    world.advance(1_000)
    delayed, timed = world.listed()
    assert (delayed.deliver_at_ms, delayed.scheduled_at_ms) == (scheduled_at - HOUR_MS, scheduled_at)
    assert timed.deliver_at_ms == scheduled_at + HOUR_MS
    world.advance(HOUR_MS)
    [(header, frame)] = world.logs["ORDERS", 0].batches
    [(_, _, _, headers)] = decode_records(frame, header)
    assert headers is not None
    assert headers["scheduled-for"] == str(scheduled_at + HOUR_MS), "as it was announced"
    assert header.first_timestamp_ms == scheduled_at - HOUR_MS


def test_a_snapshot_from_the_future_is_replaced_before_it_looks_young_again(world: SimulatedSchedule) -> None:
    """The machine booted with a slow clock: two days on, compaction may have dropped later records."""
    world.schedule("a", "ORDERS", HOUR_MS)
    world.handle(StopRequested(0))
    before = world.snapshot
    assert before is not None
    world.boot(-48 * HOUR_MS)
    world.drain()
    assert world.snapshot not in (None, before)


def test_a_name_is_free_again_in_time_after_the_clock_was_set_back(world: SimulatedSchedule) -> None:
    world.schedule("a", "ORDERS", 0)
    world.boot(-48 * HOUR_MS)
    world.drain()
    assert world.schedule("a", "ORDERS", 0).duplicate
    world.advance(pending_module.ENDED_KEPT_MS)
    assert not world.schedule("a", "ORDERS", 0).duplicate
