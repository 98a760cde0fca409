"""The dialog of delayed messages: `publish` holds them back (data.py), here they are found and called off.

    list_scheduled(topic?, limit, after?)      -> messages, next          a page; `next` is the following one's `after`
    cancel_scheduled(scheduled_id)             -> done                    UNKNOWN_SCHEDULED_ID: not pending any more
    schedule(records)                          -> one result a record     asked of a scheduler by the gateway alone

Each message is held by one scheduler, `crc32(scheduled_id) % schedulers`; the gateway finds it.
"""

from typing import Annotated
from zlib import crc32

from msgspec import Meta, Struct

from .data import MAX_DELAY_MS, TimestampMilliseconds
from .errors import ErrorBody, ErrorCode, ProtocolError
from .message import Reply, Request

MAX_SCHEDULED_ID_BYTES = 256


class ScheduleRecord(Struct, frozen=True, kw_only=True):
    """A record as the gateway hands it over: named, checked, with a time of day or a delay, never both."""

    scheduled_id: str
    topic: str
    deliver_at_ms: TimestampMilliseconds | None = None
    delay_ms: Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] | None = None
    partition: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: dict[str, str] | None = None
    timestamp_ms: int | None = None


class Schedule(Request, tag="schedule", frozen=True):
    records: list[ScheduleRecord]


class ScheduleResult(Struct, frozen=True):
    duplicate: bool = False
    """A message of this id is pending, or was delivered a short while ago; nothing was written."""
    error: ErrorBody | None = None


class ScheduleReply(Reply):
    results: list[ScheduleResult]


class ListScheduled(Request, tag="list_scheduled", frozen=True):
    topic: str | None = None
    """None: of all topics."""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: str | None = None
    """The `next` of the page before; None begins."""


class ScheduledMessage(Struct, frozen=True, kw_only=True):
    scheduled_id: str
    topic: str
    partition: int | None = None
    """None: decided when it is due."""
    key: bytes | None = None
    key_text: str | None = None
    """The key, when it is UTF-8."""
    deliver_at_ms: int
    """As the clock goes now: that of a delay moves with steps of the time of day."""
    scheduled_at_ms: int
    size_bytes: int
    """Of key and value."""
    reason: str | None = None
    """Why it has not been delivered, when it is due."""


class ListScheduledReply(Reply):
    messages: list[ScheduledMessage]
    """In the order in which they were scheduled, scheduler after scheduler; a page may have few or none."""
    next: str | None = None
    """None: this was the last page."""


class CancelScheduled(Request, tag="cancel_scheduled", frozen=True):
    scheduled_id: str


def scheduler_of(scheduled_id: str, schedulers: int) -> int:
    """Which scheduler holds a message."""
    return crc32(scheduled_id.encode("utf-8", "surrogatepass")) % schedulers


def scheduled_id_fault(scheduled_id: str) -> str | None:
    """What is wrong with an id."""
    size_bytes = len(scheduled_id.encode("utf-8", "replace"))
    if 1 <= size_bytes <= MAX_SCHEDULED_ID_BYTES:
        return None
    return f"scheduled_id: must have 1 to {MAX_SCHEDULED_ID_BYTES} bytes, not {size_bytes}"


def page_after(scheduler: int, offset: int) -> str:
    return f"{scheduler}:{offset}"


def page_of(after: str | None) -> tuple[int, int]:
    """Scheduler and offset where a page begins. Raises ProtocolError for what no reply has said."""
    if after is None:
        return 0, 0
    scheduler, colon, offset = after.partition(":")
    if not (colon and _is_number(scheduler) and _is_number(offset)):
        raise ProtocolError(ErrorCode.INVALID_REQUEST, f"after: {after[:100]!r} is no page's `next`")
    return int(scheduler), int(offset)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
