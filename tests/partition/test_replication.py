"""Durability condition of a batch: the flush policy on one side, the replicas on the other."""

import pytest

from planaria.actors.log.producers import ProducerStates
from planaria.actors.partition.appends import Appends, PendingProduce
from planaria.actors.partition.flush import FlushPolicy
from planaria.actors.partition.replication import Watermarks
from planaria.transport.machine import Sender


def pending(number: int, acks: object, complete_at_offset: int) -> PendingProduce:
    return PendingProduce(Sender((b"peer",), number), acks, [], complete_at_offset)  # type: ignore[arg-type]


def test_acks_all_waits_for_the_high_watermark_and_acks_one_does_not() -> None:
    marks = Watermarks(0, 0, 0)
    appends = Appends(ProducerStates(), 0, 0)
    appends.park(pending(1, "all", 2))
    appends.park(pending(2, 1, 2))
    appends.park(pending(3, 1, 9))
    marks.durable_offset = 5
    assert [each.sender.id for each in appends.release(marks)] == [2]
    marks.high_watermark = 2
    assert [each.sender.id for each in appends.release(marks)] == [1]
    assert [each.sender.id for each in appends.take_all()] == [3]
    assert len(appends) == 0


def test_a_reader_may_have_an_offset_up_to_the_start_of_the_epoch() -> None:
    """The high watermark of an earlier leader may have been there."""
    marks = Watermarks(0, 7, 4)
    assert marks.known_offset == 7
    marks.high_watermark = 9
    assert marks.known_offset == 9


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
