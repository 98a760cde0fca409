"""Check the delivery time and id that a program gives for a message. Used by `publish`, and to delay the
retry of a failed record in a work queue."""

import math
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from ..protocol.data import MAX_DELAY_MS, MAX_TIMESTAMP_MS
from ..protocol.delayed import scheduled_id_fault
from .identified import Schedule
from .options import InvalidOption, check_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def schedule(
    deliver_at: datetime | int | None,
    delay: timedelta | float | None,
    scheduled_id: str | None,
    dedup_id: str | None,
) -> Schedule:
    """Return the schedule of a message from the program's arguments. Raises InvalidOption."""
    if dedup_id is not None:
        raise InvalidOption("dedup_id: a delayed message is recognised by its scheduled_id")
    if deliver_at is not None and delay is not None:
        raise InvalidOption("deliver_at and delay are both given")
    if scheduled_id is not None:
        _check_id(scheduled_id)
    name = scheduled_id or uuid4().hex
    if delay is not None:
        return Schedule(name, None, milliseconds_of(delay))
    if deliver_at is None:
        raise InvalidOption("scheduled_id: is for messages with deliver_at or delay")
    return Schedule(name, _time_ms(deliver_at), None)


def milliseconds_of(delay: object) -> int:
    """Return a delay in seconds, or as a timedelta, as milliseconds. Raises InvalidOption for any other
    type, a negative or too long one."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidOption(f"delay: must be seconds or a timedelta, not {delay!r}")
    if not (math.isfinite(seconds) and 0 <= seconds * 1000 <= MAX_DELAY_MS):
        raise InvalidOption(f"delay: must be 0 to {MAX_DELAY_MS // 1000} seconds, not {delay}")
    return math.ceil(seconds * 1000)


def milliseconds_at(time: datetime | int) -> int:
    """Return a time in milliseconds since the epoch, rounded up; a datetime without a zone is local time."""
    if not isinstance(time, datetime):
        return time
    return -((_EPOCH - time.astimezone(UTC)) // timedelta(milliseconds=1))


def _time_ms(deliver_at: object) -> int:
    """Return the time as milliseconds. A datetime without a time zone is local time, as elsewhere in Python."""
    if isinstance(deliver_at, datetime):
        try:
            at_ms: object = int(deliver_at.timestamp() * 1000)
        except (OverflowError, ValueError) as error:
            raise InvalidOption(f"deliver_at: {deliver_at} cannot be used: {error}") from error
    else:
        at_ms = deliver_at
    if not isinstance(at_ms, int) or isinstance(at_ms, bool):
        raise InvalidOption(
            f"deliver_at: must be a datetime, or whole milliseconds since 1970, not {deliver_at!r}"
        )
    if at_ms < 0:
        raise InvalidOption(f"deliver_at: must be a time after 1970, not {deliver_at}")
    if at_ms > MAX_TIMESTAMP_MS:  # the broker's clock decides how far ahead it may be
        raise InvalidOption(f"deliver_at: must be a time within a year, not {deliver_at}")
    return at_ms


def _check_id(scheduled_id: str) -> None:
    check_text("scheduled_id:", scheduled_id)
    fault = scheduled_id_fault(scheduled_id)
    if fault is not None:
        raise InvalidOption(fault)
