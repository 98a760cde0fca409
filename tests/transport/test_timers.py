"""Timers: the last one set for a key counts, earliest first, and the heap drops cancelled ones."""

import random

from planaria.transport.timers import STALE_ALLOWANCE, Timers


def test_earliest_first_and_once() -> None:
    timers = Timers()
    for key, at in (("c", 30), ("a", 10), ("b", 20), ("d", 40)):
        timers.set(key, at)
    assert timers.next_at() == 10
    assert list(timers.pop_due(30)) == ["a", "b", "c"]
    assert list(timers.pop_due(30)) == []
    assert (timers.next_at(), len(timers)) == (40, 1)


def test_of_one_moment_the_first_set_is_first_whatever_the_keys() -> None:
    timers = Timers()
    for key in (("tuple",), "str", 7, None):
        timers.set(key, 5)
    assert list(timers.pop_due(5)) == [("tuple",), "str", 7, None]


def test_setting_again_replaces_earlier_and_later() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.set("a", 20)
    assert list(timers.pop_due(10)) == []
    timers.set("a", 5)
    assert list(timers.pop_due(30)) == ["a"]


def test_cancelled_timers_do_not_fire() -> None:
    timers = Timers()
    timers.set("a", 10)
    timers.cancel("a")
    timers.cancel("never set")
    assert (timers.next_at(), list(timers.pop_due(99)), len(timers)) == (None, [], 0)


def test_one_that_is_due_can_still_be_cancelled_by_another() -> None:
    timers = Timers()
    timers.set("first", 10)
    timers.set("second", 10)
    for key in timers.pop_due(10):
        assert key == "first"
        timers.cancel("second")


def test_one_set_while_others_fire_waits_for_the_next_turn() -> None:
    timers = Timers()
    timers.set("again", 10)
    for fired, key in enumerate(timers.pop_due(10)):
        assert fired == 0
        timers.set(key, 10)
    assert list(timers.pop_due(10)) == ["again"]


def test_a_far_timer_set_again_and_again_takes_no_room() -> None:
    timers = Timers()
    for at in range(100_000):
        timers.set("session", 10**9 + at)
    assert len(timers._heap) <= STALE_ALLOWANCE + 2
    assert timers.next_at() == 10**9 + 99_999


def test_like_a_dictionary_sorted_by_time(seed: int) -> None:
    random_ = random.Random(seed)
    timers, model = Timers(), dict[int, int]()
    for now in range(2_000):
        key, at = random_.randrange(50), now + random_.randrange(500)
        if random_.random() < 0.8:
            timers.set(key, at)
            model[key] = at
        else:
            timers.cancel(key)
            model.pop(key, None)
        due = [key for key in timers.pop_due(now) if isinstance(key, int)]
        assert sorted(due) == sorted(key for key, at in model.items() if at <= now)
        for key in due:
            del model[key]
        assert timers.next_at() == min(model.values(), default=None)
