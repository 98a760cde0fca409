"""The API group of delayed messages: list and cancel those that `publish` has delayed (data.py).

    list_scheduled(topic?, limit, after?)      -> messages, next          a page; `next` is the following one's `after`
    cancel_scheduled(scheduled_id)             -> done                    UNKNOWN_SCHEDULED_ID: no longer pending
    schedule(records)                          -> one result a record     sent to a scheduler by the gateway alone

Each message is held by one scheduler, `crc32(scheduled_id) % schedulers`; the gateway finds it.
"""

from typing import Annotated
from zlib import crc32

from msgspec import Meta, Struct

from .data import MAX_DELAY_MS, TimestampMilliseconds
from .errors import ErrorBody, ErrorCode, ProtocolError
from .message import InternalRequest, Reply, Request

MAX_SCHEDULED_ID_BYTES = 256


class ScheduleRecord(Struct, frozen=True, kw_only=True):
    """A record as the gateway passes it on: checked, with an id, and with a time of day or a delay, never both."""

    scheduled_id: str
    topic: str
    deliver_at_ms: TimestampMilliseconds | None = None
    delay_ms: Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] | None = None
    partition: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: dict[str, str] | None = None
    timestamp_ms: int | None = None


class Schedule(InternalRequest, tag="schedule", frozen=True):
    records: list[ScheduleRecord]


class ScheduleResult(Struct, frozen=True):
    duplicate: bool = False
    """A message of this id is pending, or was delivered shortly before; nothing was written."""
    error: ErrorBody | None = None


class ScheduleReply(Reply):
    results: list[ScheduleResult]


class ListScheduled(Request, tag="list_scheduled", frozen=True):
    topic: str | None = None
    """None: messages of all topics."""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: str | None = None
    """The `next` of the previous page; None begins."""


class ScheduledMessage(Struct, frozen=True, kw_only=True):
    scheduled_id: str
    topic: str
    partition: int | None = None
    """None: decided when the message is due."""
    key: bytes | None = None
    key_text: str | None = None
    """The key, if it is UTF-8."""
    deliver_at_ms: int
    """By the present clock: the time of a delay moves with steps of the time of day."""
    scheduled_at_ms: int
    size_bytes: int
    """Size of key and value."""
    reason: str | None = None
    """The reason why a due message has not been delivered."""


class ListScheduledReply(Reply):
    messages: list[ScheduledMessage]
    """In the order in which they were scheduled, one scheduler after another. A page may have few or none."""
    next: str | None = None
    """None: this was the last page."""


class CancelScheduled(Request, tag="cancel_scheduled", frozen=True):
    scheduled_id: str


def scheduler_of(scheduled_id: str, schedulers: int) -> int:
    """Return the scheduler that holds a message."""
    return crc32(scheduled_id.encode("utf-8", "surrogatepass")) % schedulers


def scheduled_id_fault(scheduled_id: str) -> str | None:
    """Return the fault of an id."""
    size_bytes = len(scheduled_id.encode("utf-8", "replace"))
    if 1 <= size_bytes <= MAX_SCHEDULED_ID_BYTES:
        return None
    return f"scheduled_id: must have 1 to {MAX_SCHEDULED_ID_BYTES} bytes, not {size_bytes}"


def page_after(scheduler: int, offset: int) -> str:
    return f"{scheduler}:{offset}"


def page_of(after: str | None) -> tuple[int, int]:
    """Return the scheduler and offset where a page begins. Raises ProtocolError for a value that no reply has
    contained."""
    if after is None:
        return 0, 0
    scheduler, colon, offset = after.partition(":")
    if not (colon and _is_number(scheduler) and _is_number(offset)):
        raise ProtocolError(ErrorCode.INVALID_REQUEST, f"after: {after[:100]!r} is not the `next` of a page")
    return int(scheduler), int(offset)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
