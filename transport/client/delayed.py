"""Delayed messages: the requests that make the broker hold them until they are due. Pure.

They go to the gateway in `publish` requests, under ids made by the client, so a request may be retried until
it has a reply. A delay counts from the call of `publish`, independent of the clocks of the two machines.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ..addresses import GATEWAY, TopicPartition
from ..protocol.data import ProducedBatch, Publish, PublishRecord, PublishReply
from .identified import Question, RequestKind

ANY_PARTITION = -1
"""Stands for the partition in a lane's key: decided when the message is due."""


class Schedule(Struct, frozen=True):
    """The delivery time of a message, and its id until then. One of the times is None."""

    scheduled_id: str
    deliver_at_ms: int | None
    delay_ms: int | None


def delayed_dialog(record_of: Callable[[Any], PublishRecord]) -> RequestKind:
    """Return the kind for delayed messages.

    `record_of(batch)` returns a batch's only record without its time. A batch has a `schedule` and `created_ms`.
    """

    def question(tp: TopicPartition, batches: Sequence[Any], now: int) -> Question:
        topic, partition = tp
        records = [_timed(record_of(batch), batch.schedule, now - batch.created_ms) for batch in batches]
        chosen = None if partition == ANY_PARTITION else partition
        return Question(GATEWAY, Publish(topic=topic, partition=chosen, records=records), PublishReply)

    return RequestKind("delayed", question, _results)


def _timed(record: PublishRecord, when: Schedule, age_ms: int) -> PublishRecord:
    return PublishRecord(
        key=record.key,
        value=record.value,
        headers=record.headers,
        timestamp_ms=record.timestamp_ms,
        scheduled_id=when.scheduled_id,
        deliver_at_ms=when.deliver_at_ms,
        delay_ms=None if when.delay_ms is None else max(0, when.delay_ms - age_ms),
    )


def _results(reply: PublishReply) -> list[ProducedBatch]:
    return [ProducedBatch(each.offset, each.duplicate, each.error) for each in reply.records]
