"""One member's step: keep, revoke, assign free partitions."""

from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.coordinator.members import Member
from planaria.actors.coordinator.reconcile import reconcile, released_by
from planaria.transport.addresses import TopicPartition

tps = st.frozensets(st.tuples(st.just("A"), st.integers(0, 9)))


def numbered(*numbers: int) -> frozenset[tuple[str, int]]:
    return frozenset(("A", number) for number in numbers)


def test_keeps_the_intersection_revokes_the_rest_and_takes_what_is_free() -> None:
    step = reconcile(numbered(0, 1, 2), numbered(1, 2, 3, 4), numbered(0, 1, 2, 4))
    assert step.keep == numbered(1, 2)
    assert step.revoke == numbered(0)
    assert step.add == numbered(3)
    assert step.assignment == numbered(1, 2, 3)


@given(held=tps, target=tps, others=tps)
def test_never_takes_what_another_holds_and_loses_nothing(
    held: frozenset[tuple[str, int]], target: frozenset[tuple[str, int]], others: frozenset[tuple[str, int]]
) -> None:
    others -= held
    step = reconcile(held, target, held | others)
    assert step.keep | step.revoke == held
    assert not step.add & (others | held)
    assert step.assignment <= target
    assert step.assignment | others >= target


def test_a_report_releases_only_what_is_not_to_be_kept() -> None:
    assert released_by(numbered(0, 1, 2), numbered(2), numbered(1)) == numbered(0)
    assert released_by(numbered(0, 1), numbered(0, 1), numbered()) == numbered()


def test_the_assignment_of_what_the_keys_of_a_dict_hold_can_be_hashed() -> None:
    held = {TopicPartition("A", number): 1 for number in range(3)}
    target = frozenset(held) - {TopicPartition("A", 0)}
    assert hash(reconcile(held.keys(), target, held).assignment) == hash(target)
    assert hash(Member(member_id="m", held=held, target=target).assignment) == hash(target)
