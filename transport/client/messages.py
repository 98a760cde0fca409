"""Decode batches into the messages of a consumer, as cheaply as Python can. Pure.

The only code of the client that runs once per consumed message; the rest handles batches.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from ..addresses import TopicPartition
from ..attributes import is_expired
from ..batch import (
    LOG_APPEND_TIME,
    BatchHeader,
    Headers,
    InvalidBatch,
    decode_fields,
    verify_stored,
)
from ..compression import Buffer, CodecUnavailable
from .content import decode_value
from .errors import CorruptData

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHOWN_BYTES = 40
"""Bytes of a key or value that a message's `repr` contains."""


class StoredMessage(Struct, frozen=True, gc=False):
    """The fields of a message as its batch has them: `headers` is None if it has none.

    A dict for each message without headers would cost a third of the time in which messages are made.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    """Milliseconds since the epoch."""
    headers: Headers | None = None
    leader_epoch: int = 0
    """Leader epoch of its batch. It increases when a power failure lost a record with the same offset."""


stored_headers: Callable[[StoredMessage], Headers | None] = StoredMessage.__dict__["headers"].__get__
"""The headers as stored: None for a message without."""


class Message(StoredMessage, frozen=True, gc=False):
    """One message of a partition: `topic`, `partition`, `offset`, `key`, `value`, `timestamp` (ms), `headers`."""

    @property  # type: ignore[misc]
    def headers(self) -> Headers:
        """The headers of the message; empty if it was published without."""
        found = stored_headers(self)
        return {} if found is None else found

    @property
    def data(self) -> Any:
        """The value as published: JSON is decoded if the headers declare it, other values are bytes."""
        headers = stored_headers(self)
        return self.value if headers is None else decode_value(self.value, headers)

    @property
    def time(self) -> datetime:
        """The timestamp as a datetime in UTC. Raises OverflowError after the year 9999."""
        return _EPOCH + timedelta(milliseconds=self.timestamp)

    @property
    def topic_partition(self) -> TopicPartition:
        """The topic and partition, as `commit`, `pause` and `committed` take them."""
        return TopicPartition(self.topic, self.partition)

    def __repr__(self) -> str:
        shown = f"{self.topic}/{self.partition} at {self.offset}, key={_shown(self.key)}"
        return f"<{type(self).__name__} {shown}, value={_shown(self.value)}>"


def _shown(data: bytes | None) -> str:
    if data is None or len(data) <= SHOWN_BYTES:
        return repr(data)
    return f"{data[:SHOWN_BYTES]!r}... ({len(data):,} bytes)"


class MessageBatch(Struct, frozen=True):
    """A whole batch, verified and not decoded, for programs that count bytes or forward data."""

    topic: str
    partition: int
    header: BatchHeader
    frame: Buffer


def verify_batch(topic: str, partition: int, frame: Buffer, expected_offset: int) -> BatchHeader:
    """Check a fetched batch end to end. Raises CorruptData with its location."""
    try:
        return verify_stored(frame)
    except InvalidBatch as error:
        raise CorruptData(topic, partition, expected_offset, str(error)) from error


def messages_of(
    topic: str, partition: int, header: BatchHeader, frame: Buffer, from_offset: int
) -> Sequence[Message]:
    """Return the messages of a verified batch from an offset on. Raises CorruptData."""
    try:
        records = decode_fields(frame, header)
    except (InvalidBatch, CodecUnavailable) as error:
        raise CorruptData(topic, partition, max(from_offset, header.base_offset), str(error)) from error
    first, epoch = header.base_offset, header.leader_epoch
    if from_offset > first:
        records = records[from_offset - first :]
        first = from_offset
    if header.attributes & LOG_APPEND_TIME:
        time_ms = header.max_timestamp_ms
        return [
            Message(topic, partition, offset, each.key, each.value, time_ms, each.headers, epoch)
            for offset, each in enumerate(records, first)
        ]
    time_ms = header.first_timestamp_ms
    return [
        Message(topic, partition, offset, each.key, each.value, time_ms + each.delta_ms, each.headers, epoch)
        for offset, each in enumerate(records, first)
    ]


def unexpired(messages: list[Message], wall_ms: int) -> list[Message]:
    """Return the messages without those whose time is over."""
    return [message for message in messages if not is_expired(stored_headers(message), wall_ms)]
