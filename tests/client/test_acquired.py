"""Reading of acquired ranges: all available records, within the limits."""

from typing import Any

import pytest

from planaria.transport.batch import build, parse_header, stamp
from planaria.transport.client.acquired import RangeReading, Read, Stretches, is_unreadable
from planaria.transport.client.errors import CorruptData
from planaria.transport.compression import CodecUnavailable
from planaria.transport.machine import Answered
from planaria.transport.protocol.data import FetchReply
from planaria.transport.protocol.errors import ErrorCode, ProtocolError
from planaria.transport.protocol.shares import AcquiredRange

MIB = 1024 * 1024


class OnePartition:
    """A network to one log, complete batches of two records each."""

    def __init__(self, batches: int, record_bytes: int) -> None:
        records = [(None, b"x" * record_bytes, 0, None)] * 2
        frame = build(records, first_timestamp_ms=1, max_timestamp_ms=1)
        self.batches = [bytes(stamp(frame, 2 * number, 0)) for number in range(batches)]
        self.fetches = 0
        self.at_once = 1
        self.topic_id = "t1"
        self.leader_epoch = 3

    def exchange(self, ask: Any) -> Answered:
        self.fetches += 1
        if ask.request.topic_id not in (None, self.topic_id):
            raise ProtocolError(ErrorCode.UNKNOWN_TOPIC_ID, "created again")
        found = [each for each in self.batches if parse_header(each).next_offset > ask.request.offset]
        found = found[: self.at_once]
        reply = FetchReply(
            topic="T",
            partition=0,
            log_start_offset=0,
            high_watermark=2 * len(self.batches),
            next_offset=parse_header(found[-1]).next_offset,
            topic_id=self.topic_id,
            leader_epoch=self.leader_epoch,
        )
        return Answered(None, reply, (b"".join(found),))


class RangeReader:
    """Reads ranges one after the other, from one network."""

    def __init__(self, network: OnePartition) -> None:
        self._network = network
        self._stretches = Stretches(1_000)

    def read(self, wanted: AcquiredRange, room_bytes: int, *, is_first: bool) -> Read:
        reading = RangeReading(self._stretches, wanted, room_bytes, is_first=is_first)
        while not isinstance(step := reading.advance(), Read):
            try:
                reading.handle(self._network.exchange(step))
            except ProtocolError as error:
                reading.handle(error)
        return step


def offsets(network: OnePartition, room_bytes: int, *, is_first: bool = True) -> tuple[list[int], int]:
    reader = RangeReader(network)
    wanted = AcquiredRange("T", 0, 1, 8, 1)
    found = reader.read(wanted, room_bytes, is_first=is_first)
    return [message.offset for message in found.messages], found.end


def test_all_of_a_range_is_read_where_there_is_room() -> None:
    assert offsets(OnePartition(5, 10), 1_000) == ([*range(1, 9)], 9)


def test_reading_ends_where_the_room_does() -> None:
    network = OnePartition(5, MIB)
    assert offsets(network, 3 * MIB) == ([1, 2, 3], 4)
    assert network.fetches == 3
    assert offsets(network, 3 * MIB - 1) == ([1, 2], 3)


def test_one_record_is_read_however_large() -> None:
    assert offsets(OnePartition(5, MIB), 10) == ([1], 2)
    assert offsets(OnePartition(5, MIB), 10, is_first=False) == ([], 1)


@pytest.mark.parametrize("at_once", [1, 5])
def test_what_lies_before_something_damaged_is_read_first(at_once: int) -> None:
    network = OnePartition(5, 10)
    network.at_once = at_once
    damaged = bytearray(network.batches[2])
    damaged[-1] ^= 1
    network.batches[2] = bytes(damaged)
    assert offsets(network, 1_000) == ([1, 2, 3], 4)
    reader = RangeReader(network)
    with pytest.raises(CorruptData) as told:
        reader.read(AcquiredRange("T", 0, 4, 8, 1), 1_000, is_first=True)
    assert told.value.offset == 4
    assert is_unreadable(told.value)
    found = reader.read(AcquiredRange("T", 0, 6, 8, 1), 1_000, is_first=True)
    assert [message.offset for message in found.messages] == [6, 7, 8]


def test_what_can_be_read_elsewhere_is_not_unreadable() -> None:
    error = CorruptData("T", 0, 4, "compressed")
    error.__cause__ = CodecUnavailable("no zstd")
    assert not is_unreadable(error)
    assert not is_unreadable(ProtocolError(ErrorCode.PARTITION_OFFLINE, "down", retriable=True))
    assert is_unreadable(ProtocolError(ErrorCode.CORRUPT_LOG, "rot"))


def test_what_was_read_serves_ranges_of_the_same_topic_and_of_no_later_epoch() -> None:
    """Otherwise a member would receive records of the previous topic, and accept those of the new one unseen."""
    network = OnePartition(2, 10)
    network.at_once = 2
    reader = RangeReader(network)

    def fetches(topic_id: str, leader_epoch: int) -> int:
        before = network.fetches
        wanted = AcquiredRange("T", 0, 1, 2, 1, topic_id, leader_epoch)
        assert len(reader.read(wanted, 1_000, is_first=True).messages) == 2
        return network.fetches - before

    assert [fetches("t1", 3), fetches("t1", 3), fetches("t1", 2)] == [1, 0, 0]
    network.leader_epoch = 4
    assert [fetches("t1", 4), fetches("t1", 3)] == [1, 0]
    network.topic_id = "t2"
    assert [fetches("t2", 0), fetches("t2", 4)] == [1, 0]
    with pytest.raises(ProtocolError) as told:
        fetches("t1", 4)
    assert told.value.retriable, "the group hears of it, and gives out what is there"
