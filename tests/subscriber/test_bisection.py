"""One killer among many records in flight: found and charged alone, in few deaths."""

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.subscriber.bisection import Bisection, Spot


def deaths_until_charged(records: list[Spot], killer: Spot, finished_first: st.DataObject) -> int:
    """Run processes one after another, until one dies with a single record in flight."""
    suspects, done, deaths = set(records), set[Spot](), 1
    while len(suspects) > 1:
        bisection = Bisection(suspects)
        while True:
            at_hand = sorted(bisection.suspects - done)
            started = bisection.on_trial(at_hand, is_quiet=True)
            assert started, "somebody is started"
            assert bisection.on_trial(at_hand, is_quiet=False) == started, "and nobody else meanwhile"
            innocents = sorted(started - {killer})
            if killer in started:
                # Some end before the process does; they are known to have.
                ended = finished_first.draw(
                    st.sets(st.sampled_from(innocents)) if innocents else st.just(set())
                )
                done |= ended
                suspects, deaths = set(started - ended), deaths + 1
                break
            for spot in innocents:
                bisection.clear(spot)
            done |= set(innocents)
    assert suspects == {killer}
    return deaths


@given(st.integers(1, 200), st.data())
def test_one_killer_is_found_in_logarithmically_many_deaths(count: int, data: st.DataObject) -> None:
    records = [("A", offset % 3, offset) for offset in range(count)]
    killer = data.draw(st.sampled_from(records))
    assert deaths_until_charged(records, killer, data) <= ceil(log2(count)) + 1


@given(st.integers(0, 63), st.data())
def test_one_among_64_is_found_in_7(at: int, data: st.DataObject) -> None:
    records = [("A", 0, offset) for offset in range(64)]
    assert deaths_until_charged(records, records[at], data) <= 7


def test_nobody_is_started_while_others_are_in_progress() -> None:
    bisection = Bisection([("A", 0, 1), ("A", 0, 2)])
    assert bisection.on_trial([("A", 0, 1), ("A", 0, 2)], is_quiet=False) == frozenset()
    assert bisection.on_trial([("A", 0, 1), ("A", 0, 2)], is_quiet=True) == {("A", 0, 1)}
