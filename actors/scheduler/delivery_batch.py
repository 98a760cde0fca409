"""The batch in which due messages are delivered. Pure: messages in, bytes out."""

from collections.abc import Sequence

from ...transport.batch import Headers, Record, build
from .reading import ReadMessage
from .records import Message

SCHEDULED_ID_HEADER = "scheduled-id"
SCHEDULED_AT_HEADER = "scheduled-at"
SCHEDULED_FOR_HEADER = "scheduled-for"


def delivery_batch(
    batch: Sequence[ReadMessage], now: int, producer_id: int, epoch: int, base_sequence: int, latest_ms: int
) -> bytes:
    """Build the batch. A record without a timestamp gets the delivery time; `latest_ms` is the topic's maximum."""
    records: list[Record] = []
    for _, scheduled_id, message in batch:
        time_ms = now if message.timestamp_ms is None else min(message.timestamp_ms, latest_ms)
        records.append((message.key, message.value, time_ms - now, _headers(scheduled_id, message)))
    return build(
        records,
        first_timestamp_ms=now,
        max_timestamp_ms=now + max(record[2] for record in records),
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=base_sequence,
    )


def _headers(scheduled_id: str, message: Message) -> Headers:
    return {
        **(message.headers or {}),
        SCHEDULED_ID_HEADER: scheduled_id,
        SCHEDULED_AT_HEADER: str(message.scheduled_at_ms),
        SCHEDULED_FOR_HEADER: str(message.announced_ms),
    }
