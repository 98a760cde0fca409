"""Options whose names end with `_ms` take milliseconds or a timedelta. Pure; called before options are checked."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

MILLISECOND = timedelta(milliseconds=1)


def in_milliseconds(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with each timedelta of a `*_ms` option as milliseconds, rounded up."""
    return {name: _plain(value) if name.endswith("_ms") else value for name, value in given.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return -(-value // MILLISECOND)
    return [_plain(each) for each in value] if isinstance(value, list) else value
