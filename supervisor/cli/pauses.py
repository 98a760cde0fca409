"""The pause of a group, as the commands print it."""

from ...transport.client.descriptions import GroupPause
from ...transport.times import utc_text
from .output import note


def pause_text(pause: GroupPause) -> str:
    until = "" if pause.until_ms is None else f" until {utc_text(pause.until_ms)}"
    reason = f": {' '.join(pause.reason.split())}" if pause.reason else ""
    return f"since {utc_text(pause.since_ms)}{until}{reason}"


def print_pause(pause: GroupPause | None) -> None:
    if pause is not None:
        note(f'\npaused {pause_text(pause)}; "planaria group resume" ends it')
