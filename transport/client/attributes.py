"""Write the arguments of `publish` that travel as headers: the time of expiry and the priority."""

from datetime import datetime
from typing import TypeAlias

from ..batch import Headers
from ..expiry import EXPIRES_HEADER
from ..priorities import HIGHEST_PRIORITY, PRIORITY_HEADER
from ..protocol.data import MAX_TIMESTAMP_MS
from .content import copy_headers, is_number
from .options import InvalidOption
from .schedule import milliseconds_at

ExpiresAt: TypeAlias = datetime | int
"""A time, or milliseconds since the epoch."""


def with_attributes(
    headers: Headers | None, expires_at: ExpiresAt | None, priority: int | None
) -> Headers | None:
    """Return the headers with those of the arguments that are given. Raises InvalidOption."""
    if expires_at is None and priority is None:
        return headers
    added: Headers = {}
    if expires_at is not None:
        at_ms = milliseconds_at(expires_at)
        if not (is_number(at_ms) and 0 < at_ms <= MAX_TIMESTAMP_MS):
            raise InvalidOption(
                f"expires_at: must be a datetime or milliseconds since 1970, not {expires_at!r}"
            )
        added[EXPIRES_HEADER] = str(at_ms)
    if priority is not None:
        if not (is_number(priority) and 0 <= priority <= HIGHEST_PRIORITY):
            raise InvalidOption(f"priority: must be a number from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
        added[PRIORITY_HEADER] = str(int(priority))
    return added if headers is None else {**copy_headers(headers), **added}
