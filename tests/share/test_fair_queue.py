"""Which record is delivered next: turns of keys, limits by key, priorities, expiry, coalescing. Pure."""

import random
from collections import Counter, defaultdict

import pytest

from planaria.actors.coordinator.share.fair_queue import FairQueue, KeyRules
from planaria.actors.coordinator.share.spans import Span, State

NOW = 1_000_000


class Played:
    """A queue, with records that are added, taken and ended."""

    def __init__(self, **rules: object) -> None:
        self.queue = FairQueue(KeyRules(**rules), 0)  # type: ignore[arg-type]
        self.now = NOW
        self.keys: list[bytes | None] = []

    def add(self, key: str | None, count: int = 1, *, priority: int = 0, expires_ms: int = 0) -> None:
        for _ in range(count):
            self.keys.append(None if key is None else key.encode())
            self.queue.end = len(self.keys)
            self.queue.add(len(self.keys) - 1, self.keys[-1], priority, expires_ms, 0, self.now)

    def take(self, limit: int = 100) -> str:
        """Return the keys of the delivered records."""
        chosen = self.queue.choose(limit, self.now, self.now).delivered
        self.taken = chosen
        return "".join((self.keys[offset] or b"-").decode() for offset in chosen)

    def end(self, offset: int, state: State = State.DONE, until: int = 0) -> None:
        self.queue.note(Span(offset, offset + 1, state, 1, until))


def test_keys_take_turns() -> None:
    played = Played()
    played.add("a", 5)
    played.add("b", 2)
    played.add("c", 1)
    assert played.take() == "abcabaaa"


def test_a_key_gets_as_many_as_its_weight() -> None:
    played = Played(weights={"a": 3})
    played.add("a", 6)
    played.add("b", 6)
    assert played.take(8) == "aaabaaab"


def test_no_more_of_a_key_are_in_flight_than_allowed() -> None:
    played = Played(max_in_flight=2)
    played.add("a", 5)
    played.add("b", 1)
    assert played.take() == "aba"
    assert played.take() == ""
    played.end(0)
    assert played.take() == "a"
    assert not played.queue.can_give(played.now)


def test_a_record_that_comes_back_is_delivered_before_the_later_ones_of_its_key() -> None:
    played = Played(max_in_flight=1)
    played.add("a", 3)
    assert played.take() == "a"
    played.end(0, State.AVAILABLE)
    assert played.take() == "a"
    assert played.taken == [0]


def test_a_delayed_record_holds_back_no_other_of_its_key() -> None:
    played = Played(max_in_flight=1)
    played.add("a", 2)
    played.take()
    played.end(0, State.AVAILABLE, until=NOW + 500)
    played.take()
    assert played.taken == [1]
    played.end(1)
    assert played.take() == ""
    assert played.queue.next_due(played.now) == NOW + 500
    played.now += 500
    played.take()
    assert played.taken == [0]


def test_a_rate_is_kept_after_a_burst_of_a_second() -> None:
    played = Played(rate=10)
    played.add("a", 100)
    played.add("b", 1)
    assert Counter(played.take()) == {"a": 10, "b": 1}
    for _ in range(10):
        due = played.queue.next_due(played.now)
        assert due is not None
        played.now = due
        assert played.take() == "a"
    assert NOW + 990 <= played.now <= NOW + 1_020


def test_a_rate_below_one_a_second_is_kept() -> None:
    played = Played(rate=0.5)
    played.add("a", 2)
    assert played.take() == "a"
    played.now += 1_900
    assert played.take() == ""
    played.now += 200
    assert played.take() == "a"


def test_higher_priorities_are_first_and_limits_hold_across_them() -> None:
    played = Played(max_in_flight=2)
    played.add("a", 2)
    played.add("b", 1)
    played.add("a", 1, priority=5)
    played.add("c", 1, priority=9)
    assert played.take() == "caba"
    assert 3 in played.taken


def test_expired_records_are_returned_as_such() -> None:
    played = Played()
    played.add("a", 1, expires_ms=NOW - 1)
    played.add("a", 1, expires_ms=NOW + 1)
    chosen = played.queue.choose(10, played.now, played.now)
    assert (chosen.expired, chosen.delivered) == ([0], [1])


def test_only_the_newest_of_a_key_is_delivered_after_the_wait() -> None:
    played = Played(is_coalescing=True, max_wait_ms=200)
    played.add("a", 2)
    assert played.take() == ""
    played.now += 150
    played.add("a", 1)
    played.add("b", 1)
    assert played.queue.next_due(played.now) == NOW + 200
    played.now = NOW + 200
    chosen = played.queue.choose(10, played.now, played.now)
    assert (chosen.delivered, sorted(chosen.superseded)) == ([2], [0, 1])
    played.now = NOW + 350
    assert played.take() == "b"


def test_records_without_a_key_are_not_limited() -> None:
    played = Played(max_in_flight=1, rate=1)
    played.add(None, 5)
    assert played.take() == "-----"


def test_a_noisy_key_costs_another_one_turn() -> None:
    played = Played(max_in_flight=10)
    played.add("a", 100_000)
    played.add("b", 3)
    assert played.take().count("b") == 3


@pytest.mark.parametrize(
    "rules", [{}, {"max_in_flight": 2}, {"rate": 50}, {"max_in_flight": 1, "weights": {"a": 4}}]
)
def test_every_record_is_delivered_until_it_is_done_and_limits_hold(
    rules: dict[str, object], seed: int
) -> None:
    draw = random.Random(seed)
    played = Played(**rules)
    in_flight: set[int] = set()
    done: set[int] = set()
    times: defaultdict[bytes | None, list[int]] = defaultdict(list)
    total = 300
    while len(done) < total:
        if len(played.keys) < total and draw.random() < 0.5:
            played.add(
                draw.choice("aaaabc"),
                min(draw.randint(1, 20), total - len(played.keys)),
                priority=draw.randint(0, 1),
            )
        played.take(draw.randint(1, 10))
        assert not in_flight & set(played.taken)
        assert not done & set(played.taken)
        in_flight |= set(played.taken)
        for offset in played.taken:
            times[played.keys[offset]].append(played.now)
        counts = Counter(played.keys[offset] for offset in in_flight)
        assert max(counts.values(), default=0) <= (rules.get("max_in_flight") or total)
        for offset in draw.sample(sorted(in_flight), len(in_flight) // 2 + 1 if in_flight else 0):
            in_flight.remove(offset)
            if draw.random() < 0.7:
                played.end(offset)
                done.add(offset)
            else:
                played.end(offset, State.AVAILABLE, until=draw.choice([0, played.now + 40]))
        played.now += draw.randint(1, 30)
    rate = rules.get("rate")
    for found in times.values() if rate else ():
        assert all(found[at + 101] - found[at] > 1_000 for at in range(len(found) - 101))
    assert len(played.queue) == 0
    assert len(played.queue._keys) <= 3
