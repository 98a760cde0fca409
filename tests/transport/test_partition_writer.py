"""The request for a batch, and its one result: an offset, or the error of the batch or of the request."""

from planaria.transport.addresses import TopicPartition
from planaria.transport.log_access.writer import append_call, result_of
from planaria.transport.machine import Answered, Failed
from planaria.transport.protocol.data import Produce, ProducedBatch, ProduceReply
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

TP = TopicPartition("ORDERS", 3)
FENCED = ErrorBody(ErrorCode.PRODUCER_FENCED, "a newer producer writes")


def test_a_batch_is_for_its_partition_and_its_topic() -> None:
    call = append_call("key", TP, b"batch", topic_id="t1", acks=1)
    assert call.address == "partition/ORDERS/3"
    assert call.request == Produce(topic="ORDERS", partition=3, acks=1, topic_id="t1")
    assert (call.payload, call.reply_type) == ((b"batch",), ProduceReply)


def test_the_result_is_the_offset_of_the_batch() -> None:
    written = ProducedBatch(7, duplicate=True)
    assert result_of(Answered("key", ProduceReply(batches=[written], high_watermark=8))) == written


def test_the_result_is_the_error_of_the_batch_or_of_the_request() -> None:
    refused = ProducedBatch(-1, error=FENCED)
    assert result_of(Answered("key", ProduceReply(batches=[refused], high_watermark=8))) == refused
    assert result_of(Failed("key", FENCED)) == refused
