"""Test of the checker: each anomaly, planted in an otherwise good history, is found; a good history passes."""

import random
from collections.abc import Callable

import pytest

from planaria.supervisor.chaos.history import MAX_EXAMPLES, History, LogEntry, Verdict

GROUP = "readers"
KEYS = 5
VALUES_PER_KEY = 8
PARTITIONS = 2


class Life:
    """A run without faults, in which a test then plants anomalies."""

    def __init__(self, seed: int = 1) -> None:
        self.history = History()
        self.log: list[LogEntry] = []
        self._ends = [0] * PARTITIONS
        published = [f"k{key}:{n}" for n in range(VALUES_PER_KEY) for key in range(KEYS)]
        for value in published:
            self.append(value, acknowledged=True)
        self.history.on_delivered(GROUP, published)
        self._chance = random.Random(seed)

    def append(self, value: str, *, acknowledged: bool) -> None:
        partition = int(value[1]) % PARTITIONS
        self.log.append(LogEntry(partition, self._ends[partition], value))
        if acknowledged:
            self.history.on_acknowledged(value, partition, self._ends[partition])
        self._ends[partition] += 1

    @property
    def deliveries(self) -> list[str]:
        return self.history.deliveries[GROUP]

    def any_entry(self) -> LogEntry:
        return self._chance.choice(self.log)

    def verdict(self) -> Verdict:
        return self.history.check(
            sorted(self.log, key=lambda entry: (entry.partition, entry.offset)), [GROUP]
        )


def test_a_good_history_passes() -> None:
    verdict = Life().verdict()

    assert verdict.is_clean
    assert verdict.violations == []
    assert verdict.acknowledged == verdict.in_log == verdict.delivered[GROUP] == KEYS * VALUES_PER_KEY
    assert verdict.redelivered[GROUP] == 0


def lose(life: Life) -> None:
    life.log.remove(life.any_entry())


def lose_the_tail(life: Life) -> None:
    life.log.pop()


def move_to_another_offset(life: Life) -> None:
    victim = life.any_entry()
    life.log.remove(victim)
    life.log.append(LogEntry(victim.partition, 1_000, victim.value))


def append_twice(life: Life) -> None:
    victim = life.any_entry()
    life.log.append(LogEntry(victim.partition, 1_000, victim.value))


def append_what_was_refused(life: Life) -> None:
    life.append("k1:99", acknowledged=False)
    life.history.on_refused("k1:99")


def swap_in_the_log(life: Life) -> None:
    early, late = (next(e for e in life.log if e.value == value) for value in ("k3:2", "k3:5"))
    for entry, other in ((early, late), (late, early)):
        life.log[life.log.index(entry)] = moved = LogEntry(entry.partition, entry.offset, other.value)
        life.history.on_acknowledged(moved.value, moved.partition, moved.offset)


def swap_in_delivery(life: Life) -> None:
    deliveries = life.deliveries
    early, late = deliveries.index("k2:1"), deliveries.index("k2:2")
    deliveries[early], deliveries[late] = deliveries[late], deliveries[early]


def skip_and_return(life: Life) -> None:
    """One member skips ahead, and another one delivers the skipped records later."""
    life.deliveries.remove("k4:3")
    life.deliveries.append("k4:3")


def withhold(life: Life) -> None:
    life.deliveries.remove(life.any_entry().value)


def withhold_everything(life: Life) -> None:
    del life.history.deliveries[GROUP]


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (lose, {"lost"}),
        (lose_the_tail, {"lost"}),
        (move_to_another_offset, {"lost"}),
        (append_twice, {"duplicated"}),
        (append_what_was_refused, {"phantom"}),
        (swap_in_the_log, {"reordered"}),
        (swap_in_delivery, {"reordered"}),
        (skip_and_return, {"reordered"}),
        (withhold, {"undelivered"}),
        (withhold_everything, {"undelivered"}),
    ],
)
def test_each_anomaly_is_found(plant: Callable[[Life], None], kinds: set[str], seed: int) -> None:
    life = Life(seed)
    plant(life)

    verdict = life.verdict()

    assert not verdict.is_clean
    accused = {violation.partition(":")[0] for violation in verdict.violations}
    # A value that moves to the end of the log is out of order there as well.
    assert kinds <= accused <= kinds | {"reordered"}
    assert all(getattr(verdict, kind) for kind in accused)


def test_what_at_least_once_allows_is_no_violation() -> None:
    life = Life()
    life.history.on_delivered(GROUP, life.deliveries[5:12])

    verdict = life.verdict()

    assert verdict.is_clean
    assert verdict.redelivered[GROUP] == 7


def test_an_unknown_outcome_promises_nothing() -> None:
    life = Life()
    life.history.on_unknown("k1:50")
    life.history.on_unknown("k1:51")
    life.append("k1:51", acknowledged=False)

    verdict = life.verdict()

    assert verdict.is_clean
    assert (verdict.unknown, verdict.in_log) == (2, KEYS * VALUES_PER_KEY + 1)


def test_an_unknown_outcome_that_reached_the_log_twice_is_a_duplicate() -> None:
    life = Life()
    life.history.on_unknown("k1:50")
    life.append("k1:50", acknowledged=False)
    life.append("k1:50", acknowledged=False)

    assert life.verdict().duplicated == 1


def test_all_violations_are_counted_and_the_first_are_named() -> None:
    life = Life()
    life.log.clear()

    verdict = life.verdict()

    assert verdict.lost == KEYS * VALUES_PER_KEY
    assert len(verdict.violations) == MAX_EXAMPLES
