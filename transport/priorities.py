"""The priority of a message within a share group: its header `priority`, 0 to 9. Pure.

Written by `publish` (`client/publish_arguments.py`), read by share groups (`actors/coordinator/share/lookahead.py`).
"""

from collections.abc import Mapping

PRIORITY_HEADER = "priority"
HIGHEST_PRIORITY = 9


def priority_of(headers: Mapping[str, str]) -> int:
    """Return the priority of the header; 0 if it is missing or not a number."""
    text = headers.get(PRIORITY_HEADER, "")
    return min(int(text), HIGHEST_PRIORITY) if text.isascii() and text.isdigit() else 0
