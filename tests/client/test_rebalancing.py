"""A rebalance in steps: the order, and that nothing of it is left undone or raised twice."""

import pytest

from planaria.transport.client.membership import Target
from planaria.transport.client.rebalancing import Step, no_change, steps_to

A, B, C = ("T", 0), ("T", 1), ("T", 2)


def places(*given: tuple[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(given)


def test_what_goes_is_released_before_it_is_confirmed_and_what_comes_is_assigned_after() -> None:
    assert steps_to(Target(places(B, C)), places(A, B)) == [
        Step("commit", places(A)),
        Step("revoked", places(A)),
        Step("release", places(A)),
        Step("confirm", places(B, C)),
        Step("assign", places(C)),
        Step("assigned", places(C)),
    ]
    assert steps_to(Target(places(A)), places(A)) == [Step("confirm", places(A))]
    assert steps_to(Target(places(), is_lost=True), places(A)) == [
        Step("release", places(A)),
        Step("lost", places(A)),
    ]


def test_a_step_stays_until_it_is_done() -> None:
    change = no_change()
    change.begin(Target(places(A)), places())
    first = change.next_step
    assert first == Step("confirm", places(A))
    assert change.next_step is first
    change.done(first)
    assert change.next_step == Step("assign", places(A))
    change.drop()
    change.done(first)
    assert change.next_step is None


def test_each_error_is_raised_once_in_order() -> None:
    change = no_change()
    change.errors += [RuntimeError("first"), SystemExit("second")]
    with pytest.raises(RuntimeError, match="first"):
        change.raise_error()
    with pytest.raises(SystemExit, match="second"):
        change.raise_error()
    change.raise_error()
