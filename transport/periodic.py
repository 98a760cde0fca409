"""Periodic functions of an application, each run once per period over all of its workers. Pure.

A run is ordered by a *tick*: a delayed message in the application's topic of one partition, whose consumer group has one
owner at a time. The times of the ticks are the multiples of the period since 1970, in UTC, and a tick's `scheduled_id`
contains its time. So any number of workers may schedule the same tick, and it is delivered once.

    tick       the next tick is scheduled, durably; then the function runs
    raises     the tick is retried like any record, until the next one is due
    late       a tick that is handled a whole period late runs nothing, since the next one is due
    unknown    a tick of a function that is gone, or had another period, ends its series

A worker that starts schedules the next tick of each function. Called by application.py in the subscriber's process.
"""

from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from msgspec import Struct

from .durations import MILLISECOND, duration_ms

MIN_PERIOD_MS = 1_000
MAX_PERIOD_MS = 366 * 86_400_000

PublishAt: TypeAlias = Callable[[str, Any, str, int, str], object]
"""Publishes a delayed message, durably: topic, value, key, time in milliseconds since the epoch, and scheduled id."""


class Schedule(Struct, frozen=True):
    """The means of a process to schedule ticks and to run functions."""

    publish_at: PublishAt
    now_ms: Callable[[], int]
    """The wall clock: milliseconds since the epoch."""
    run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any]
    """Runs a coroutine in an event loop of its own, to the end."""


class Tick(Struct, frozen=True):
    function: str
    period_ms: int
    due_ms: int
    """Milliseconds since the epoch."""


def period_of(period: str | float | timedelta) -> int:
    """Return a period in milliseconds. Raises ValueError."""
    if isinstance(period, str):
        found = duration_ms(period)
        if found is None:
            raise ValueError(f"period: {period!r} is not a duration such as 30s, 5m, 2h or 1d")
    elif isinstance(period, timedelta):
        found = -(-period // MILLISECOND)
    elif isinstance(period, bool) or not isinstance(period, int | float):
        raise ValueError(f"period: must be a text such as '5m', seconds, or a timedelta, not {period!r}")
    else:
        found = round(period * 1_000)
    if not MIN_PERIOD_MS <= found <= MAX_PERIOD_MS:
        raise ValueError(f"period: must be from 1 second to 366 days, not {period!r}")
    return found


def next_tick(function: str, period_ms: int, after_ms: int) -> Tick:
    """Return the first tick after a time."""
    return Tick(function, period_ms, (after_ms // period_ms + 1) * period_ms)


def schedule_tick(tick: Tick, topic: str, publish_at: PublishAt) -> None:
    value = {"function": tick.function, "period_ms": tick.period_ms, "due_ms": tick.due_ms}
    scheduled_id = f"{topic}/{tick.function}/{tick.period_ms}/{tick.due_ms}"
    publish_at(topic, value, tick.function, tick.due_ms, scheduled_id)


class Periodic(Struct, frozen=True):
    """A periodic function."""

    name: str
    call: Callable[[], object]
    period_ms: int


def due_function(
    tick: Tick, functions: Mapping[str, Periodic], topic: str, schedule: Schedule
) -> Callable[[], object] | None:
    """Schedule the next tick of the function; return the function if it is to run now."""
    function = functions.get(tick.function)
    if function is None or function.period_ms != tick.period_ms:
        return None
    now_ms = schedule.now_ms()
    following = next_tick(tick.function, tick.period_ms, max(tick.due_ms, now_ms))
    schedule_tick(following, topic, schedule.publish_at)
    return None if now_ms >= tick.due_ms + tick.period_ms else function.call
