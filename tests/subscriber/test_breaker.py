"""Many different records fail: a pause, one attempt, twice the pause; one record that fails forever changes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.subscriber.breaker import MAX_PAUSE_MS, Breaker, Spot
from planaria.actors.subscriber.effects import PublishDeadLetter
from subscriber_script import FakeMessage, Script


def spot(offset: int) -> Spot:
    return ("A", 0, offset)


def opened() -> Breaker:
    breaker = Breaker(4, 0.5, 100)
    assert not breaker.failed(spot(0))
    assert breaker.failed(spot(1))
    return breaker


def test_different_records_open_it_and_the_same_one_does_not() -> None:
    breaker = Breaker(4, 0.5, 100)
    assert not any(breaker.failed(spot(0)) for _ in range(100))
    assert breaker.lets(5)
    assert breaker.failed(spot(1))
    assert not breaker.lets(0)


def test_failures_far_apart_do_not_open_it() -> None:
    breaker = Breaker(4, 0.5, 100)
    for offset in range(100):
        assert not breaker.failed(spot(offset))
        breaker.handled(3)


def test_one_is_tried_and_the_pauses_grow_until_one_is_handled() -> None:
    breaker = opened()
    pauses = []
    for offset in range(12):
        pauses.append(breaker.pause_ms)
        breaker.pause_over()
        assert breaker.lets(0)
        assert not breaker.lets(1)
        assert breaker.failed(spot(offset))
    assert pauses[:4] == [100, 200, 400, 800]
    assert pauses[-1] == MAX_PAUSE_MS
    breaker.pause_over()
    breaker.handled(1)
    assert breaker.lets(5)
    assert breaker.pause_ms == 100


def test_without_a_window_it_never_opens() -> None:
    breaker = Breaker(0, 0.5, 100)
    assert not any(breaker.failed(spot(offset)) for offset in range(1_000))
    breaker.handled(5)


@given(st.integers(1, 20), st.floats(0.1, 1), st.lists(st.one_of(st.none(), st.integers(0, 30))))
def test_it_opens_when_and_only_when_so_many_different_ones_failed(
    window: int, share: float, ends: list[int | None]
) -> None:
    breaker = Breaker(window, share, 100)
    for end in ends:
        if end is None:
            breaker.handled(1)
            assert breaker.state == "closed"
        elif breaker.failed(spot(end)):
            assert breaker.failing >= max(2, window * share)
            return
        assert breaker.failing < max(2, window * share)


# In the subscriber.


def failing(script: Script, count: int) -> list[str]:
    script.start()
    lines = script.polled(*[FakeMessage("A", 0, offset, str(offset).encode()) for offset in range(10)])
    for _ in range(count):
        lines = script.ran(failure="ConnectionError: refused")
    return lines


def test_a_dependency_that_is_down_pauses_the_member_under_an_alarm_and_buries_nothing() -> None:
    script = Script(breaker_window=4, breaker_pause_ms=1_000, retries=1, backoff_ms=10, dead_letter="A.dlq")
    assert failing(script, 2) == ["warning: handler failed", "error: circuit open"]
    assert script.alarms == (
        "circuit open: 2 different records failed, the last one with ConnectionError: refused",
    )
    assert script.after(999) == []
    for pause_ms in (1_000, 2_000, 4_000):
        lines = script.after(pause_ms if pause_ms > 1_000 else 1)
        assert [line[:3] for line in lines] == ["run"]
        assert script.ran(failure="ConnectionError: refused")[-1] == "error: circuit open"
    script.after(8_000)
    assert script.ran(1)
    assert script.alarms == ()
    while script.run is not None:
        script.ran()
    assert not [effect for effect in script.effects if isinstance(effect, PublishDeadLetter)]
