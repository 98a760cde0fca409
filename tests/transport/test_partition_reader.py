"""The position of a reader: the offset that its next fetch names, and the batches that a reply returns."""

from typing import Any

import pytest

from planaria.transport.addresses import TopicPartition
from planaria.transport.batch import InvalidBatch, build, stamp
from planaria.transport.log_access.reader import REQUEST_TIMEOUT_MS, Fetched, PartitionReader
from planaria.transport.protocol.data import (
    AbortedTransaction,
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
)
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

TP = TopicPartition("ORDERS", 3)


def stored(base_offset: int, count: int, leader_epoch: int = 0) -> bytearray:
    records = [(b"key", b"value", 0, None)] * count
    return stamp(build(records, first_timestamp_ms=0, max_timestamp_ms=0), base_offset, leader_epoch)


def fetched(reader: PartitionReader, next_offset: int, *frames: bytes | bytearray, **reply: Any) -> Fetched:
    known = {"topic": "ORDERS", "partition": 3, "log_start_offset": 0, "high_watermark": 100}
    return reader.on_fetched(FetchReply(**(known | reply), next_offset=next_offset), frames)


def request_of(reader: PartitionReader) -> Fetch:
    request = reader.fetch("key", max_bytes=100).request
    assert isinstance(request, Fetch)
    return request


def test_the_next_fetch_names_the_topic_and_the_leader_epoch_of_the_last_reply() -> None:
    reader = PartitionReader(TP, 5)
    assert (request_of(reader).topic_id, request_of(reader).leader_epoch) == (None, None)
    fetched(reader, 9, topic_id="t1", leader_epoch=4)
    request = request_of(reader)
    assert (request.offset, request.topic_id, request.leader_epoch) == (9, "t1", 4)


def test_a_reply_without_batches_moves_the_position_past_a_gap() -> None:
    reader = PartitionReader(TP, 5)
    assert fetched(reader, 9).has_moved
    assert not fetched(reader, 9).has_moved
    assert reader.offset == 9


@pytest.mark.parametrize(
    ("first", "found"), [((3, 2), [(5, 3), (8, 0)]), ((4, 4), [(4, 3), (8, 0)])], ids=["before", "around"]
)
def test_batches_before_the_position_are_left_out_and_one_around_it_is_not(
    first: tuple[int, int], found: list[tuple[int, int]]
) -> None:
    reader = PartitionReader(TP, 5)
    own = stored(*first, leader_epoch=3)
    middle = stored(5, 3, leader_epoch=3) if first == (3, 2) else b""
    run = fetched(reader, 9, own + middle, stored(8, 1))
    assert [(batch.header.base_offset, batch.header.leader_epoch) for batch in run.batches()] == found


@pytest.mark.parametrize("at", [8, 30, 70], ids=["offset", "body's description", "record"])
def test_a_damaged_batch_is_returned_unopened_and_refuses_to_be_opened(at: int) -> None:
    frame = stored(5, 2)
    frame[at] ^= 1
    [batch] = fetched(PartitionReader(TP, 5), 7, frame).batches()
    with pytest.raises(InvalidBatch):
        batch.verify()
    with pytest.raises(InvalidBatch):
        batch.records()


def test_a_whole_batch_is_the_leader_s_byte_by_byte() -> None:
    frame = stored(5, 2, leader_epoch=7)
    [batch] = fetched(PartitionReader(TP, 5), 7, frame).batches()
    batch.verify()
    assert bytes(batch.frame) == bytes(frame)
    assert batch.records() == [(b"key", b"value", 0, None)] * 2


@pytest.mark.parametrize(("isolation", "is_at_end"), [("read_committed", True), ("read_uncommitted", False)])
def test_the_log_ends_where_the_isolation_lets_a_reader_see(isolation: Any, is_at_end: bool) -> None:
    reader = PartitionReader(TP, 5, isolation=isolation)
    assert fetched(reader, 9, high_watermark=12, last_stable_offset=9).is_at_end == is_at_end
    assert fetched(reader, 12, high_watermark=12, last_stable_offset=9).is_at_end


def test_a_log_that_begins_with_an_open_transaction_ends_there_for_committed_readers() -> None:
    assert fetched(PartitionReader(TP, 0), 0, high_watermark=5, last_stable_offset=0).is_at_end


def test_aborted_transactions_are_named_by_producer_and_epoch() -> None:
    aborted = [AbortedTransaction(7, 2, 5), AbortedTransaction(7, 2, 8)]
    assert fetched(PartitionReader(TP, 5), 9, aborted=aborted).aborted == {(7, 2)}


def test_a_position_that_was_not_reached_by_reading_has_no_leader_epoch() -> None:
    reader = PartitionReader(TP, 5, "t1", 4)
    reader.seek(20)
    assert (reader.offset, reader.topic_id, reader.leader_epoch) == (20, "t1", None)


def test_after_a_truncation_the_records_that_replaced_the_lost_ones_are_read() -> None:
    reader = PartitionReader(TP, 5, "t1", 4)
    lost = ErrorBody(ErrorCode.LOG_TRUNCATED, "cut", next_offset=3)
    assert reader.on_truncated(lost) == 5
    assert (reader.offset, reader.topic_id, reader.leader_epoch) == (3, "t1", None)


def test_a_located_position_keeps_the_topic_that_it_belongs_to() -> None:
    reader = PartitionReader(TP, topic_id="t1")
    request = reader.locate("key", "earliest").request
    assert isinstance(request, ListOffsets)
    assert request.at == "earliest"
    assert reader.on_located(ListOffsetsReply(offset=7, topic_id="t2", leader_epoch=1)) == 7
    assert (reader.offset, reader.topic_id, reader.leader_epoch) == (7, "t1", 1)


def test_each_request_names_the_reply_it_takes_and_waits_for_it_beyond_its_own_wait() -> None:
    reader = PartitionReader(TP, 5)
    fetch, locate = reader.fetch("key", max_bytes=1, max_wait_ms=700), reader.locate("key", "latest")
    assert (fetch.reply_type, fetch.timeout_ms) == (FetchReply, REQUEST_TIMEOUT_MS + 700)
    assert (locate.reply_type, locate.timeout_ms) == (ListOffsetsReply, REQUEST_TIMEOUT_MS)
