"""A rebalance in steps: their order, and that none is left undone or raised twice."""

import pytest

from planaria.transport.client.membership import Target
from planaria.transport.client.rebalancing import Rebalancing, Step, steps_to

A, B, C = ("T", 0), ("T", 1), ("T", 2)


def tps(*given: tuple[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(given)


def test_what_goes_is_released_before_it_is_confirmed_and_what_comes_is_assigned_after() -> None:
    assert steps_to(Target(tps(B, C)), tps(A, B)) == [
        Step("commit", tps(A)),
        Step("revoked", tps(A)),
        Step("release", tps(A)),
        Step("confirm", tps(B, C)),
        Step("assign", tps(C)),
        Step("assigned", tps(C)),
    ]
    assert steps_to(Target(tps(A)), tps(A)) == [Step("confirm", tps(A))]
    assert steps_to(Target(tps(), is_lost=True), tps(A)) == [
        Step("release", tps(A)),
        Step("lost", tps(A)),
    ]


def test_a_step_stays_until_it_is_done() -> None:
    change = Rebalancing()
    change.begin(Target(tps(A)), tps())
    first = change.next_step
    assert first == Step("confirm", tps(A))
    assert change.next_step is first
    change.done(first)
    assert change.next_step == Step("assign", tps(A))
    change.drop()
    change.done(first)
    assert change.next_step is None


def test_each_error_is_raised_once_in_order() -> None:
    change = Rebalancing()
    change.errors += [RuntimeError("first"), SystemExit("second")]
    with pytest.raises(RuntimeError, match="first"):
        change.raise_error()
    with pytest.raises(SystemExit, match="second"):
        change.raise_error()
    change.raise_error()
