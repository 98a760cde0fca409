"""Limits by key of a hosted subscriber: rates, the newest of a key, and the options that only share groups have."""

from typing import Any

import pytest

from planaria.actors.subscriber.effects import HandlerReturned, Run
from planaria.transport.subscription import ONLY_SHARED, InvalidSubscription, options_of
from subscriber_pool import Pool, keyed
from subscriber_script import Script, options


def started_after(pool: Pool, delay_ms: int) -> list[int]:
    pool.script.after(delay_ms)
    return pool.hear()


def test_a_key_is_handled_at_its_rate_and_delays_no_other() -> None:
    pool = Pool(3, rate_per_key=2)
    assert pool.polled(keyed("aaaab")) == [0, 4]
    assert pool.ran(4) == []
    assert pool.ran(0) == [1]
    assert pool.ran(1) == []
    assert pool.polled(keyed("bc", first=5)) == [5, 6]
    assert started_after(pool, 499) == []
    assert started_after(pool, 1) == [2]
    assert pool.ran(2, "down") == []
    assert started_after(pool, 130) == []  # the retry is a call like any other
    assert started_after(pool, 400) == [2]


def test_records_without_a_key_have_no_rate() -> None:
    pool = Pool(4, rate_per_key=1)
    assert pool.polled(keyed("....")) == [0, 1, 2, 3]


def test_a_key_has_as_many_records_a_turn_as_its_weight() -> None:
    pool = Pool(2, weights={"a": 3})
    started = pool.polled(keyed("aaaaaabbbb" + "cccc"))
    handled = []
    while started:
        handled.append(started.pop(0))
        started += pool.ran(handled[-1])
    keys = "".join("aaaaaabbbbcccc"[offset] for offset in handled)
    assert keys.count("a") == 6
    assert "aaa" in keys.replace("b", "").replace("c", "")
    # Of two workers one is with `a` until its turn ends, the other with `b` and `c` in turns.
    assert keys == "abacabcabacabc"


def test_only_the_newest_record_of_a_key_is_handled_and_the_others_are_done() -> None:
    pool = Pool(2, coalesce="latest")
    assert pool.polled(keyed("aabaa.")) == [4, 2]
    assert pool.ran(2) == [5]
    assert pool.polled(keyed("aa", first=6)) == []
    assert pool.ran(5) == []
    assert pool.ran(4) == [7]
    assert pool.ran(7) == []
    assert pool.commit() == (8, "")


def test_a_record_that_failed_is_retried_before_a_newer_one() -> None:
    pool = Pool(2, coalesce="latest")
    assert pool.polled(keyed("a")) == [0]
    assert pool.polled(keyed("aa", first=1)) == []
    assert pool.ran(0, "down") == []
    assert started_after(pool, 120) == [0]
    assert pool.ran(0) == []
    pool.commit()
    assert [run.records[0].offset for run in pool.runs.values()] == [2]


def test_records_of_a_key_are_collected_before_the_newest_is_handled() -> None:
    pool = Pool(2, coalesce="latest", max_wait_ms=1_000)
    assert pool.polled(keyed("a")) == []
    assert started_after(pool, 600) == []
    assert pool.polled(keyed("ab", first=1)) == []
    assert started_after(pool, 400) == [1]
    assert pool.polled(keyed("a", first=3)) == []
    assert pool.ran(1) == []  # collected again
    assert started_after(pool, 600) == [2]
    assert started_after(pool, 400) == [3]


def test_a_key_has_as_many_records_in_flight_as_its_limit_and_loses_its_order() -> None:
    pool = Pool(4, max_in_flight_per_key=3)
    assert pool.polled(keyed("aaaaab.")) == [0, 1, 2, 5]
    assert pool.ran(1) == [6]
    assert pool.ran(6) == [4]
    assert pool.ran(5) == []  # three of the key are in flight
    assert pool.ran(2) == []
    assert pool.ran(4, "down") == []
    assert pool.ran(0) == [3]  # the failed one blocks no other
    assert started_after(pool, 120) == [4]
    pool.ran(3)
    pool.ran(4)
    assert pool.commit() == (7, "")


def test_a_key_with_several_records_in_flight_keeps_its_rate() -> None:
    pool = Pool(4, max_in_flight_per_key=4, rate_per_key=2)
    assert pool.polled(keyed("aaaab")) == [0, 1, 4]
    pool.ran(0)
    assert started_after(pool, 499) == []
    assert len(started_after(pool, 1)) == 1


def test_a_stop_waits_for_no_limit() -> None:
    script = Script(concurrency=2, rate_per_key=1)
    script.start()
    script.polled(*keyed("aab"))
    runs = [effect for effect in script.take_effects() if isinstance(effect, Run)]
    script.stop()
    for run in runs:
        script.give(HandlerReturned(run.number, 1, None))
    assert script.polled() == ["leave A/0=1"]


@pytest.mark.parametrize("name", sorted(ONLY_SHARED))
def test_options_of_share_groups_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InvalidSubscription, match=f"^{name}: .*; share groups have this option$"):
        options_of({name: 1})


@pytest.mark.parametrize(
    "given",
    [
        {"rate_per_key": 1.0},
        {"coalesce": "latest"},
        {"weights": {"a": 2}},
        {"concurrency": 2, "weights": {"a": 0}},
        {"concurrency": 2, "weights": {"a": 101}},
        {"concurrency": 2, "weights": {str(number): 1 for number in range(1_001)}},
        {"concurrency": 2, "delivery": "at-most-once", "rate_per_key": 1.0},
        {"concurrency": 2, "rate_per_key": -1.0},
        {"concurrency": 2, "coalesce": "newest"},
        {"concurrency": 2, "max_wait_ms": 5},
        {"max_in_flight_per_key": 2},
        {"concurrency": 2, "max_in_flight_per_key": 0},
        {"concurrency": 2, "max_in_flight_per_key": 2, "coalesce": "latest"},
        {"concurrency": 2, "max_in_flight_per_key": 2, "weights": {"a": 2}},
        {"concurrency": 2, "max_in_flight_per_key": 2, "delivery": "at-most-once"},
    ],
)
def test_limits_that_cannot_hold_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSubscription):
        options(**given)
