"""A bounded read ends at its offsets, with or without records there, and returns nothing from beyond them."""

import pytest

from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import CONTROL, build, stamp
from planaria.transport.client.bounded import BoundedRead, Span
from planaria.transport.client.commits import AutoCommit
from planaria.transport.client.consuming import Consuming
from planaria.transport.client.errors import CorruptData, TopicReplaced
from planaria.transport.client.fetching import Chunk, Located, StopFetching, Trouble
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

P, Q = TopicPartition("T", 0), TopicPartition("T", 1)


def batch(first: int, count: int, attributes: int = 0) -> bytes:
    records = [(None, b"%d" % offset, 0, None) for offset in range(first, first + count)]
    frame = build(records, first_timestamp_ms=5, max_timestamp_ms=5, attributes=attributes)
    return bytes(stamp(frame, first, 0))


class Reading:
    """A bounded read and the machine of its consumer."""

    def __init__(self, spans: dict[TopicPartition, Span]) -> None:
        self.read = BoundedRead(spans)
        self.machine = Consuming(
            group=None, is_member=False, auto_commit=AutoCommit(False, 0.0, 0.0), request_timeout_ms=1_000
        )
        self.machine.begin(self.read.starts)
        for tp, start in self.read.starts.items():
            self.machine.reader.accept(Located(tp, self.machine.reader.epochs()[tp], start or 0))

    def fetched(
        self, tp: TopicPartition, *frames: bytes, next_offset: int, topic_id: str | None = None
    ) -> None:
        size, epoch = sum(map(len, frames)), self.machine.reader.epochs()[tp]
        self.machine.reader.accept(Chunk(tp, epoch, frames, size, next_offset, topic_id=topic_id))

    def poll(self) -> list[tuple[list[int], bool]] | None:
        found = self.machine.found(lambda: self.read.take(self.machine), 0.0)
        if found is None:
            return None
        return [([message.offset for message in part.messages], part.is_last) for part in found]


def test_what_lies_beyond_the_end_is_not_returned() -> None:
    reading = Reading({P: Span(2, 5), Q: Span(None, 0)})
    assert reading.poll() is None
    reading.fetched(P, batch(0, 4), next_offset=4)
    assert reading.poll() == [([2, 3], False)]
    reading.fetched(P, batch(4, 4), next_offset=8)
    assert reading.poll() == [([4], True)]
    assert StopFetching((P,)) in reading.machine.posts


def test_a_tail_without_records_for_it_ends_the_read() -> None:
    reading = Reading({P: Span(None, 6), Q: Span(None, 9)})
    reading.fetched(P, batch(0, 2), batch(5, 1, CONTROL), next_offset=6)
    assert reading.poll() == [([0, 1], False)]
    reading.fetched(Q, next_offset=9)  # compaction has left nothing
    assert reading.poll() == [([], True)]


def test_one_partition_goes_on_when_another_is_finished() -> None:
    reading = Reading({P: Span(None, 1), Q: Span(None, 2)})
    reading.fetched(P, batch(0, 3), next_offset=3)
    reading.fetched(Q, batch(0, 1), next_offset=1)
    assert reading.poll() == [([0, 0], False)]
    reading.fetched(Q, batch(1, 9), next_offset=10)
    assert reading.poll() == [([1], True)]


def test_damage_beyond_the_end_is_no_error() -> None:
    reading = Reading({P: Span(None, 2), Q: Span(None, 2)})
    damage = ErrorBody(ErrorCode.CORRUPT_LOG, "bad")
    reading.fetched(P, batch(0, 3), next_offset=3)
    reading.machine.reader.accept(Trouble(P, reading.machine.reader.epochs()[P], 3, damage))
    assert reading.poll() == [([0, 1], False)]
    reading.machine.reader.accept(Trouble(Q, reading.machine.reader.epochs()[Q], 0, damage))
    with pytest.raises(CorruptData):
        reading.poll()


def test_records_that_a_power_failure_has_taken_are_not_waited_for() -> None:
    reading = Reading({P: Span(None, 10)})
    reading.fetched(P, batch(0, 4), next_offset=4)
    assert reading.poll() == [([0, 1, 2, 3], False)]
    assert reading.poll() is None
    reading.read.lower({P: 4})
    assert reading.poll() == [([], True)]


def test_a_topic_that_was_created_again_is_not_read() -> None:
    reading = Reading({P: Span(None, 10, "old")})
    reading.fetched(P, batch(0, 4), next_offset=4, topic_id="new")
    with pytest.raises(TopicReplaced):
        reading.poll()
