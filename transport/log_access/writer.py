"""A batch on its way to the log of one partition: its request, and the one result of it. Pure.

The sequence or the dedup id of a batch makes a repeat idempotent: the partition answers it with the first offset. So a
writer sends the same bytes until they are answered, and no outcome stays unknown. Called by the client's machines and the
actors'.
"""

from typing import Any

from ..addresses import TopicPartition, partition_address
from ..compression import Buffer
from ..machine import Answered, Call, Failed, Receipt
from ..protocol.data import Acks, Produce, ProducedBatch, ProduceReply

REQUEST_TIMEOUT_MS = 5_000


def append_call(
    key: Any,
    tp: TopicPartition,
    frame: Buffer,
    *,
    acks: Acks = "all",
    topic_id: str | None = None,
    timeout_ms: int = REQUEST_TIMEOUT_MS,
    is_endless: bool = False,
    has_reply: bool = True,
    receipt: Receipt | None = None,
) -> Call:
    """Return the request to append a batch; to a topic with this id, if one is given."""
    topic, partition = tp
    return Call(
        key,
        partition_address(topic, partition),
        Produce(topic=topic, partition=partition, acks=acks, topic_id=topic_id),
        ProduceReply,
        (frame,),
        timeout_ms,
        is_endless=is_endless,
        has_reply=has_reply,
        receipt=receipt,
    )


def result_of(event: Answered | Failed) -> ProducedBatch:
    """Return the result of the batch: its offset, or the error of the batch or of the request."""
    if isinstance(event, Failed):
        return ProducedBatch(-1, error=event.error)
    result: ProducedBatch = event.reply.batches[0]
    return result
