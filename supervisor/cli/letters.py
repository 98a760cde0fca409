"""Dead letters on a terminal and as JSON: selection, rendering, results of trial runs.

Called by `planaria dlq`; sends nothing.
"""

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ...transport.durations import duration_ms
from ...transport.times import time_ms, utc_text
from .output import duration_text, note, plural, print_json, print_table
from .records import json_line
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.dead_letters import DeadLetter, LetterFilter
    from ...transport.client.redriving import RedriveReport

_TOPIC_PARTITION = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,18})")


def parse_position(text: str) -> tuple[int, int]:
    """Parse a partition and an offset; the partition defaults to 0. Raises BadParameter."""
    found = _TOPIC_PARTITION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not like 0:17", param_hint="OFFSET")
    return int(found[1] or 0), int(found[2])


def parse_since(text: str, now_ms: int) -> int:
    """Parse a time or an age. Raises BadParameter."""
    ago_ms = duration_ms(text)
    at_ms = time_ms(text) if ago_ms is None else now_ms - ago_ms
    if at_ms is None:
        raise typer.BadParameter(
            f"{text!r} is neither a time like 2026-01-31T12:00 nor like 90m", param_hint="--since"
        )
    return at_ms


def letter_filter(
    reason: str | None, group: str | None, since: str | None, offsets: Sequence[str] | None
) -> "LetterFilter":
    from ...transport.client.dead_letters import LetterFilter  # noqa: PLC0415

    return LetterFilter(
        reason=reason,
        group=group,
        since_ms=None if since is None else parse_since(since, int(time.time() * 1000)),
        positions=frozenset(map(parse_position, offsets)) if offsets else None,
    )


def plain(letter: "DeadLetter", *, is_whole: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "partition": letter.message.partition,
        "offset": letter.message.offset,
        "from": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp_ms": letter.timestamp_ms,
        },
        "group": letter.group,
        "failures": letter.failures,
        "deliveries": letter.deliveries,
        "first_failure_ms": letter.first_failure_ms,
        "last_failure_ms": letter.last_failure_ms,
        "reason": letter.reason,
        "exception": letter.exception,
        "exit": letter.exit,
        "redrives": letter.redrives,
    }
    if is_whole:
        plain |= {"traceback": letter.traceback, "message": json.loads(json_line(letter.message))}
    return plain


def _origin(letter: "DeadLetter") -> str:
    return "-" if letter.topic is None else f"{letter.topic}/{letter.partition}@{letter.offset}"


def print_histogram(reasons: Sequence[tuple[str, int]]) -> None:
    most = max(count for _, count in reasons)
    rows = [(str(count), "█" * max(1, round(20 * count / most)), text) for text, count in reasons]
    print_table(Listing("letters", "", "reason", numbers=["letters"], prose=["reason"]), rows)


def print_letters(letters: Sequence["DeadLetter"]) -> None:
    rows = [
        (
            f"{letter.message.partition}:{letter.message.offset}",
            _origin(letter),
            letter.group or "-",
            str(letter.failures),
            utc_text(letter.failed_ms),
            letter.reason,
        )
        for letter in letters
    ]
    columns = Listing(
        "letter", "from", "group", "failures", "last", "reason", numbers=["failures"], prose=["reason"]
    )
    print_table(columns, rows)


def print_letter(letter: "DeadLetter") -> None:
    last = utc_text(letter.failed_ms)
    lasted = duration_text(max(0, letter.last_failure_ms - letter.first_failure_ms))
    lines = [
        f"letter     {letter.message.topic}/{letter.message.partition}@{letter.message.offset}",
        f"from       {_origin(letter)}",
        f"group      {letter.group or '-'}",
        f"failed     {letter.failures} of {letter.deliveries} times within {lasted}, last at {last}",
        f"reason     {letter.reason}",
        f"exception  {letter.exception or '-'}",
        f"process    {letter.exit or '-'}",
        f"redrives   {letter.redrives}",
        f"key        {(letter.message.key or b'').decode(errors='backslashreplace')}",
        f"value      {(letter.message.value or b'').decode(errors='backslashreplace')}",
    ]
    for line in lines:
        note(line)
    if letter.traceback:
        note("\n" + letter.traceback.rstrip())


def print_report(report: "RedriveReport") -> None:
    note(f"{plural(report.moved, 'letter')} sent back")
    if report.already_moved:
        note(f"{report.already_moved} were sent by an earlier run that was killed")
    if report.held_back:
        note(f"{report.held_back} held back: already sent back too often; --max-redrives allows more")
    if report.no_origin:
        note(f"{report.no_origin} have no known origin; --to names a topic for them")
    if report.refused:
        note(f"{report.refused} refused by the broker; they stay")


def print_trials(
    letters: Sequence["DeadLetter"],
    left_out: "RedriveReport",
    to: str | None,
    handler: str | None,
    timeout_s: float,
    *,
    as_json: bool,
) -> bool:
    """Print the result of each trial, and their count."""
    from ..rehearsal import rehearse  # noqa: PLC0415

    rows = [
        {"partition": letter.message.partition, "offset": letter.message.offset, "to": to or letter.topic}
        for letter in letters
    ]
    is_good = True
    if handler is not None:
        paths = [os.getcwd(), *filter(None, sys.path)]
        messages = [letter.message for letter in letters]
        for row, trial in zip(rows, rehearse(handler, messages, timeout_s, paths), strict=True):
            is_good = is_good and trial.passed
            row |= {"passed": trial.passed, "reason": trial.reason, "traceback": trial.traceback}
    if as_json:
        print_json({"letters": rows, "held_back": left_out.held_back, "no_origin": left_out.no_origin})
        return is_good
    for row in rows:
        position = f"{row['partition']}:{row['offset']}"
        if handler is None:
            note(f"{position} would go to {row['to']}")
        elif row["passed"]:
            note(f"{position} passes")
        else:
            note(f"{position} fails: {row['reason']}")
            note("".join(f"    {line}\n" for line in str(row["traceback"]).splitlines()).rstrip())
    passed = sum(bool(row.get("passed")) for row in rows)
    note(f"{plural(len(rows), 'letter')}" + ("" if handler is None else f", {passed} would pass"))
    return is_good
