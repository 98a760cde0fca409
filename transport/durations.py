"""Durations: options whose names end with `_ms` take milliseconds or a timedelta, and people type `15m`. Pure."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

MILLISECOND = timedelta(milliseconds=1)
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int | None:
    """Return the milliseconds of a duration such as 500ms, 90s, 15m, 2h or 3d; None if `text` is not one."""
    found = _DURATION.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS_MS[found[2]]


def in_milliseconds(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with each timedelta of a `*_ms` option as milliseconds, rounded up."""
    return {name: _plain(value) if name.endswith("_ms") else value for name, value in given.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return -(-value // MILLISECOND)
    return [_plain(each) for each in value] if isinstance(value, list) else value
