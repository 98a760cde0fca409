"""When a message is to be delivered, as programs say it: checked, and named. Used by `publish`."""

import math
from datetime import datetime, timedelta
from uuid import uuid4

from ..protocol.data import MAX_DELAY_MS
from ..protocol.delayed import scheduled_id_fault
from .delayed import Schedule
from .options import InvalidOption


def schedule(
    deliver_at: datetime | int | None,
    delay: timedelta | float | None,
    scheduled_id: str | None,
    dedup_id: str | None,
) -> Schedule:
    """What a program said of a message's time. Raises InvalidOption."""
    if dedup_id is not None:
        raise InvalidOption("dedup_id: a delayed message is recognised by its scheduled_id")
    if deliver_at is not None and delay is not None:
        raise InvalidOption("deliver_at and delay are both given")
    fault = None if scheduled_id is None else scheduled_id_fault(scheduled_id)
    if fault is not None:
        raise InvalidOption(fault)
    name = scheduled_id or uuid4().hex
    if delay is not None:
        return Schedule(name, None, _delay_ms(delay))
    if deliver_at is None:
        raise InvalidOption("scheduled_id: is for messages with deliver_at or delay")
    at_ms = int(deliver_at.timestamp() * 1000) if isinstance(deliver_at, datetime) else deliver_at
    if at_ms < 0:
        raise InvalidOption(f"deliver_at: must be a time after 1970, not {deliver_at}")
    return Schedule(name, at_ms, None)


def _delay_ms(delay: timedelta | float) -> int:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not (math.isfinite(seconds) and 0 <= seconds * 1000 <= MAX_DELAY_MS):
        raise InvalidOption(f"delay: must be 0 to {MAX_DELAY_MS // 1000} seconds, not {delay}")
    return math.ceil(seconds * 1000)
