"""The assignors: the assignment, its balance, and the number of moves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.coordinator.assignors import (
    ASSIGNORS,
    range_assignor,
    round_robin_assignor,
    sticky_assignor,
)

TOPICS = ("A", "B", "C")
names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)
counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 12), max_size=3)


@st.composite
def subscriptions(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    return {name: draw(st.frozensets(st.sampled_from(TOPICS))) for name in draw(names)}


@st.composite
def histories(draw: st.DrawFn, members: list[str]) -> dict[str, set[tuple[str, int]]]:
    """Draw any previous assignment, also with departed members and overlapping claims."""
    tps = st.tuples(st.sampled_from(TOPICS), st.integers(0, 12))
    return {name: draw(st.sets(tps, max_size=12)) for name in (*members, "gone")}


@pytest.mark.parametrize("name", ASSIGNORS)
@given(data=st.data())
def test_every_partition_goes_to_exactly_one_subscriber(name: str, data: st.DataObject) -> None:
    members, partitions = data.draw(subscriptions()), data.draw(counts)
    previous = data.draw(histories(list(members)))
    assigned = ASSIGNORS[name](members, partitions, previous)
    assert assigned == ASSIGNORS[name](members, partitions, previous)
    given_out = Counter(item for items in assigned.values() for item in items)
    wanted = {
        (topic, number)
        for topic, count in partitions.items()
        if any(topic in topics for topics in members.values())
        for number in range(count)
    }
    assert given_out == Counter(wanted)
    assert set(assigned) == set(members)
    for member, items in assigned.items():
        assert {topic for topic, _ in items} <= members[member]


@given(data=st.data())
def test_sticky_is_balanced_and_keeps_as_much_as_balance_allows(data: st.DataObject) -> None:
    members, partitions = data.draw(names), data.draw(counts)
    previous = data.draw(histories(members))
    assigned = sticky_assignor(dict.fromkeys(members, TOPICS), partitions, previous)
    loads = [len(items) for items in assigned.values()]
    assert max(loads) - min(loads) <= 1

    claimed: set[tuple[str, int]] = set()
    had: list[int] = []
    for member in members:
        mine = {item for item in previous[member] if item[1] < partitions.get(item[0], 0)} - claimed
        claimed |= mine
        had.append(len(mine))
    share, remainder = divmod(sum(partitions.values()), len(members))
    could_be_kept = sum(
        min(count, share + (tp < remainder)) for tp, count in enumerate(sorted(had, reverse=True))
    )
    kept = sum(len(assigned[member] & previous[member]) for member in members)
    assert kept >= could_be_kept


@given(data=st.data())
def test_no_single_move_improves_a_sticky_assignment(data: st.DataObject) -> None:
    members, partitions = data.draw(subscriptions()), data.draw(counts)
    assigned = sticky_assignor(members, partitions, data.draw(histories(list(members))))
    for member, items in assigned.items():
        for topic, _ in items:
            for other in members:
                if topic in members[other]:
                    assert len(items) - len(assigned[other]) <= 1, (member, other)


@given(data=st.data())
def test_a_sticky_assignment_is_at_rest(data: st.DataObject) -> None:
    members, partitions = data.draw(subscriptions()), data.draw(counts)
    first = sticky_assignor(members, partitions, {})
    assert sticky_assignor(members, partitions, first) == first


def test_sticky_moves_one_share_when_a_member_joins_and_only_the_orphans_when_one_leaves() -> None:
    topics = {"A": 12}
    three = sticky_assignor(dict.fromkeys("abc", "A"), topics, {})
    four = sticky_assignor(dict.fromkeys("abcd", "A"), topics, three)
    assert sum(len(four[member] - three[member]) for member in "abc") == 0
    assert len(four["d"]) == 3
    left = sticky_assignor(dict.fromkeys("abd", "A"), topics, four)
    assert all(four[member] <= left[member] for member in "abd")


def test_range_gives_runs_and_lines_topics_up() -> None:
    assigned = range_assignor(dict.fromkeys("ab", ("A", "B")), {"A": 5, "B": 5}, {})
    assert {number for topic, number in assigned["a"] if topic == "A"} == {0, 1, 2}
    assert {number for topic, number in assigned["b"] if topic == "B"} == {3, 4}


def test_round_robin_deals_in_a_circle_and_skips_who_is_not_subscribed() -> None:
    assigned = round_robin_assignor({"a": ("A",), "b": ("A", "B"), "c": ("B",)}, {"A": 3, "B": 2}, {})
    assert assigned == {
        "a": frozenset({("A", 0), ("A", 2)}),
        "b": frozenset({("A", 1), ("B", 0)}),
        "c": frozenset({("B", 1)}),
    }


def test_nobody_and_nothing() -> None:
    for assign in ASSIGNORS.values():
        assert assign({}, {"A": 3}, {}) == {}
        assert assign({"a": ("A",)}, {}, {"a": {("A", 0)}}) == {"a": frozenset()}


def test_a_large_group_is_balanced_too() -> None:
    members = {f"m{number:04}": ("A",) for number in range(1_000)}
    assigned = sticky_assignor(members, {"A": 10_000}, {"m0000": {("A", number) for number in range(10_000)}})
    assert {len(items) for items in assigned.values()} == {10}
