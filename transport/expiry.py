"""The time after which a message is of no use: its header `expires-at-ms`, ms since the epoch. Pure.

Read by share groups that look at keys (`actors/coordinator/share/lookahead.py`) and by consumers with `skip_expired`.
"""

from collections.abc import Mapping

EXPIRES_HEADER = "expires-at-ms"
MAX_DIGITS = 15


def expires_ms_of(headers: Mapping[str, str] | None) -> int:
    """Return the time of the header; 0, which is never, if it is missing or not a number."""
    text = headers.get(EXPIRES_HEADER, "") if headers else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0


def is_expired(headers: Mapping[str, str] | None, wall_ms: int) -> bool:
    return 0 < expires_ms_of(headers) <= wall_ms
