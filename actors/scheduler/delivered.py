"""The batch in which due messages arrive. Pure: messages in, bytes out."""

from collections.abc import Sequence

from ...transport.batch import Headers, Record, build
from ...transport.protocol.delayed import ScheduleRecord
from .reading import Found
from .records import Message

SCHEDULED_ID_HEADER = "scheduled-id"
SCHEDULED_AT_HEADER = "scheduled-at"
SCHEDULED_FOR_HEADER = "scheduled-for"

RECORD_OVERHEAD_BYTES = 128
"""More than MessagePack needs around a record, and for the names and times of the three headers."""
STRING_OVERHEAD_BYTES = 10


def delivered_bytes(scheduled_id: str, message: Message | ScheduleRecord) -> int:
    """Never less than what the message adds to a batch."""
    size = RECORD_OVERHEAD_BYTES + len(scheduled_id.encode())
    size += len(message.key or b"") + len(message.value or b"")
    for name, text in (message.headers or {}).items():
        size += STRING_OVERHEAD_BYTES + len(name.encode()) + len(text.encode())
    return size


def delivery_batch(
    batch: Sequence[Found], now: int, producer_id: int, epoch: int, base_sequence: int, latest_ms: int
) -> bytes:
    """A record without a time of its own has that of its delivery; `latest_ms` is the last that the topic takes."""
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
        SCHEDULED_FOR_HEADER: str(message.deliver_at_ms),
    }
