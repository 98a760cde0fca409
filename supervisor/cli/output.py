"""Output of results: tables (tables.py) for people, JSON for programs, sizes and times as text.

Results go to standard output and everything else to standard error, so that a pipe carries results alone. Called by every
command; decides nothing about the content.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .tables import VISIBLE, Listing

UNKNOWN = "-"
PIPE_COLUMNS = 10_000
"""Wider than any table, which takes no more than its contents need."""


class PlainConsole(Console):
    """Console that replaces control characters in the printed text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(VISIBLE), segment.style)


def console() -> Console:
    """Return standard output as a console; created per call, since a test or a pipe may have replaced the file.

    Outside a terminal the width is unlimited: a line of a table stays one line for its reader.
    """
    made = PlainConsole(highlight=False, emoji=False, markup=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_COLUMNS
    return made


def error_console() -> Console:
    return PlainConsole(stderr=True, highlight=False, emoji=False, markup=False)


def note(text: str) -> None:
    """Print one line for a person about a completed action. Never wrapped, so that it stays one line in a log."""
    show(text)


def print_json(value: Any, *, is_compact: bool = False) -> None:
    """Print `value` as JSON: a struct without its `id`, or plain values. Compact is one line, for streams."""
    plain = msgspec.to_builtins(value)
    if isinstance(value, msgspec.Struct) and isinstance(plain, dict):
        plain.pop("id", None)
    encoded = msgspec.json.encode(plain)
    if not is_compact:
        encoded = msgspec.json.format(encoded, indent=2)
    # JSON is UTF-8, also where the locale is not.
    sys.stdout.flush()
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.buffer.flush()


def print_table(made: Listing, rows: Iterable[Sequence[str | Text]] = (), *, empty: str = "") -> None:
    made.add_rows(rows)
    if not made.rows and empty:
        error_console().print(empty, soft_wrap=True)
        return
    show(made)


def show(renderable: RenderableType) -> None:
    """Print to standard output in full; the terminal wraps lines wider than the screen."""
    console().print(renderable, soft_wrap=True)


def bytes_text(size: int | None) -> str:
    """Return a size as text: `0 B`, `1.5 MiB`."""
    if size is None:
        return UNKNOWN
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration_text(milliseconds: int) -> str:
    """Return a time span as text, in its two largest units: `230ms`, `12s`, `3m 4s`, `2d 5h`."""
    if milliseconds < 0:
        return UNKNOWN
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds // 1000
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount}{unit}" for amount, unit in parts[first : first + 2] if amount)


def rate_text(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f} a second" if seconds > 0 else UNKNOWN


def number_text(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
