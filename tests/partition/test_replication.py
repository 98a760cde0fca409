"""Durability condition of a batch: the flush policy on one side, the replicas on the other."""

import pytest

from planaria.actors.log.producers import ProducerStates
from planaria.actors.partition.appends import Appends, PendingProduce
from planaria.actors.partition.flush import FlushPolicy
from planaria.actors.partition.replication import LEADER, Watermarks
from planaria.transport.machine import Sender

FOLLOWER = 1


def with_follower() -> Watermarks:
    """Return watermarks with an in-sync follower that holds nothing yet."""
    marks = Watermarks(0, 0)
    marks._ends[FOLLOWER] = 0
    return marks


def pending(number: int, acks: object, complete_at_offset: int) -> PendingProduce:
    return PendingProduce(Sender((b"peer",), number), acks, [], complete_at_offset)  # type: ignore[arg-type]


def test_alone_the_leader_decides() -> None:
    marks = Watermarks(0, 0)
    marks.advance(LEADER, 5)
    assert (marks.high_watermark, marks.held("all"), marks.held(1)) == (5, 5, 5)


def test_acks_all_waits_for_the_follower_and_acks_one_does_not() -> None:
    marks = with_follower()
    appends = Appends(ProducerStates(), 0, 0)
    appends.park(pending(1, "all", 2))
    appends.park(pending(2, 1, 2))
    appends.park(pending(3, 1, 9))
    marks.advance(LEADER, 5)
    assert [each.sender.id for each in appends.release(marks)] == [2]
    assert marks.high_watermark == 0
    marks.advance(FOLLOWER, 2)
    assert marks.high_watermark == 2
    assert [each.sender.id for each in appends.release(marks)] == [1]
    assert len(appends) == 1


def test_the_high_watermark_never_goes_back() -> None:
    marks = Watermarks(0, 5)
    with pytest.raises(AssertionError):
        marks.advance(LEADER, 4)
    assert marks.high_watermark == 5


@pytest.mark.parametrize(
    ("flush", "policy"),
    [
        ("batch", FlushPolicy(True)),
        ("os", FlushPolicy(False)),
        ("interval:250ms", FlushPolicy(False, 250)),
        ("interval:3s", FlushPolicy(False, 3_000)),
    ],
)
def test_flush_policies(flush: str, policy: FlushPolicy) -> None:
    assert FlushPolicy.parse(flush) == policy
