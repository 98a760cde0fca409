"""Times and durations as people type them: `2026-01-31T12:00`, `yesterday`, `1790000000000ms`, `24h`. Pure."""

import re
from datetime import UTC, datetime, timedelta

from .durations import duration_ms

_EPOCH = re.compile(r"([0-9]{12,15})ms")


def time_ms(text: str) -> int | None:
    """Return milliseconds since the epoch for an ISO 8601 time, local unless it names a zone; None if `text` is not one.

    Also accepts milliseconds since the epoch with the suffix `ms`, of at least twelve digits to rule out a duration.
    """
    if text.isdigit():
        return None
    if found := _EPOCH.fullmatch(text):
        return int(found[1])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(at.timestamp() * 1000)


def past_ms(text: str, now_ms: int) -> int | None:
    """Parse as `time_ms`, and also `today`, `yesterday` (their beginning, local) and a duration (that long ago)."""
    if text in {"today", "yesterday"}:
        day = datetime.fromtimestamp(now_ms / 1000).date() - timedelta(days=text == "yesterday")
        return time_ms(day.isoformat())
    at_ms = time_ms(text)
    if at_ms is not None:
        return at_ms
    ago_ms = duration_ms(text)
    return None if ago_ms is None else now_ms - ago_ms


def utc_text(milliseconds: int) -> str:
    """Format as UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
