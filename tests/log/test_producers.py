"""Every row of the verdict table, the window of five, wrapping, forgetting, reverting, snapshots. Pure."""

import pytest

from log_batches import NOW_MS
from planaria.actors.log.errors import OutOfOrderSequence, ProducerFenced, SequenceError, UnknownProducer
from planaria.actors.log.producers import Accept, Duplicate, ProducerStates
from planaria.transport.batch import SEQUENCE_LIMIT, BatchHeader


def header(
    sequence: int,
    base_offset: int = 0,
    *,
    count: int = 1,
    producer_id: int = 1,
    epoch: int = 0,
    timestamp_ms: int = NOW_MS,
) -> BatchHeader:
    return BatchHeader(
        base_offset, 0, 100, 0, 0, 1, 0, count, timestamp_ms, timestamp_ms, producer_id, epoch, sequence
    )


def filled(batches: int = 7, count: int = 10) -> ProducerStates:
    states = ProducerStates()
    for number in range(batches):
        states.apply(header(number * count, number * count + 1000, count=count))
    return states


def test_a_batch_without_producer_is_always_accepted() -> None:
    states = ProducerStates()
    for sequence in (-1, 5, 5):
        assert states.check(header(sequence, producer_id=-1)) == Accept()
        states.apply(header(sequence, producer_id=-1))
    assert len(states) == 0


@pytest.mark.parametrize(
    ("sequence", "epoch", "verdict"),
    [
        (70, 0, Accept()),
        (60, 0, Duplicate(1060)),
        (20, 0, Duplicate(1020)),
        (10, 0, OutOfOrderSequence),
        (71, 0, OutOfOrderSequence),
        (61, 0, OutOfOrderSequence),
        (0, 1, Accept()),
        (70, 1, OutOfOrderSequence),
        (70, -1, ProducerFenced),
    ],
)
def test_a_known_producer(
    sequence: int, epoch: int, verdict: Accept | Duplicate | type[SequenceError]
) -> None:
    states = filled()
    if isinstance(verdict, type):
        with pytest.raises(verdict) as caught:
            states.check(header(sequence, count=10, epoch=epoch))
        assert caught.value.code
    else:
        assert states.check(header(sequence, count=10, epoch=epoch)) == verdict


def test_a_repeat_must_be_exact() -> None:
    with pytest.raises(OutOfOrderSequence):
        filled().check(header(60, count=9))


def test_an_unknown_producer_begins_at_zero() -> None:
    states = ProducerStates()
    assert states.check(header(0)) == Accept()
    with pytest.raises(UnknownProducer):
        states.check(header(1))


def test_a_new_epoch_forgets_the_old_batches() -> None:
    states = filled()
    states.apply(header(0, 2000, epoch=1))
    assert states.check(header(0, epoch=1)) == Duplicate(2000)
    with pytest.raises(ProducerFenced):
        states.check(header(70, epoch=0))


def test_sequences_wrap() -> None:
    states = ProducerStates()
    states.apply(header(SEQUENCE_LIMIT - 3, 10, count=5))
    assert states.check(header(2, count=1)) == Accept()
    assert states.check(header(SEQUENCE_LIMIT - 3, count=5)) == Duplicate(10)
    states.apply(header(SEQUENCE_LIMIT - 1, 15, count=1, producer_id=2))
    assert states.check(header(0, producer_id=2)) == Accept()


def test_applying_again_changes_nothing() -> None:
    states = filled()
    before = states.get(1)
    states.apply(header(60, 1060, count=10))
    states.apply(header(30, 1030, count=10))
    assert states.get(1) == before


def test_the_one_silent_for_longest_makes_room() -> None:
    states = ProducerStates(limit=3)
    for offset, producer_id in enumerate((1, 2, 3, 1, 4)):
        states.apply(header(0 if offset != 3 else 1, offset, producer_id=producer_id))
    assert [states.get(producer_id) is not None for producer_id in (1, 2, 3, 4)] == [True, False, True, True]


def test_silent_producers_expire() -> None:
    states = ProducerStates(expiry_ms=1000)
    states.confirm([header(0, 0, timestamp_ms=0)], NOW_MS)
    states.expire(NOW_MS + 1000)
    assert states.get(1) is not None, "the broker's clock counts, not the producer's"
    states.expire(NOW_MS + 1001)
    assert states.get(1) is None


def test_reverting_takes_back_what_was_not_confirmed() -> None:
    states = ProducerStates(limit=2)
    states.confirm([header(0, 0), header(0, 1, producer_id=2)], NOW_MS)
    before = states.encode(2)
    for offset, (producer_id, sequence) in enumerate([(1, 1), (1, 2), (3, 0), (2, 1), (4, 0)], start=2):
        states.apply(header(sequence, offset, producer_id=producer_id))
    assert states.encode(2) == before or _loaded(states.encode(2), 2) == _loaded(before, 2)
    states.revert()
    assert _loaded(states.encode(2), 2) == _loaded(before, 2)
    assert states.check(header(1)) == Accept()


def _loaded(data: bytes, offset: int) -> dict[int, object]:
    states = ProducerStates()
    assert states.load(data, offset)
    return {producer_id: states.get(producer_id) for producer_id in range(5)}


def test_a_snapshot_is_taken_back_whole_or_not_at_all() -> None:
    states = ProducerStates()
    states.confirm([header(0, 5, producer_id=producer_id, count=3) for producer_id in range(3)], NOW_MS)
    data = states.encode(20)
    assert _loaded(data, 20)[2] == states.get(2)
    empty = ProducerStates()
    assert not empty.load(None, 20)
    assert not empty.load(data, 21), "a snapshot under another's name"
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        assert not empty.load(bytes(damaged), 20)
        assert not empty.load(data[:position], 20)
    assert len(empty) == 0


def test_a_producer_that_was_seen_in_the_future_expires_in_time() -> None:
    """The machine has since booted with a slow clock."""
    states = ProducerStates(expiry_ms=1_000)
    states.confirm([header(0, 0)], NOW_MS + 500_000)
    states.bound_times(NOW_MS)
    states.expire(NOW_MS + 1_000)
    assert states.get(1) is not None
    states.expire(NOW_MS + 1_001)
    assert states.get(1) is None
