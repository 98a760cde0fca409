"""The attributes of a message that travel as headers: the time after which it is of no use, and its priority. Pure.

    expires-at-ms    ms since the epoch
    priority         0 to 9, within a share group

Written by `publish` (`client/publish_arguments.py`). Read by share groups that look at keys
(`actors/coordinator/share/lookahead.py`); the first one also by consumers with `skip_expired`, and by subscribers.
"""

from collections.abc import Mapping

EXPIRES_HEADER = "expires-at-ms"
MAX_DIGITS = 15
PRIORITY_HEADER = "priority"
HIGHEST_PRIORITY = 9


def expires_ms_of(headers: Mapping[str, str] | None) -> int:
    """Return the time of the header; 0, which is never, if it is missing or not a number."""
    text = headers.get(EXPIRES_HEADER, "") if headers else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0


def is_expired(headers: Mapping[str, str] | None, wall_ms: int) -> bool:
    return 0 < expires_ms_of(headers) <= wall_ms


def priority_of(headers: Mapping[str, str]) -> int:
    """Return the priority of the header; 0 if it is missing or not a number."""
    text = headers.get(PRIORITY_HEADER, "")
    return min(int(text), HIGHEST_PRIORITY) if text.isascii() and text.isdigit() else 0
