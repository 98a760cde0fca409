"""What a group has done beyond its committed offset, as a commit's metadata carries it. Pure.

    metadata    "done ahead: 2-4,9" on the committed offset 100: 102 to 104 and 109 are done too, 100 is not

Bounded by MAX_CHARS: of more ranges than that holds the lowest are told, and a successor repeats the others. Whatever
else stands in the metadata of a commit, a program's own words, tells nothing.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""First offset and end, of each range, in order and apart."""
MAX_CHARS = 4_000
"""The coordinator keeps 4,096 bytes."""

_PREFIX = "done ahead: "
_FORM = re.compile(rf"{_PREFIX}\d{{1,19}}(-\d{{1,19}})?(,\d{{1,19}}(-\d{{1,19}})?)*")


def gaps(outstanding: Iterable[int], end: int) -> Ranges:
    """What lies between these offsets, which are in order, and before `end`. Before the first of them nothing does."""
    found: list[tuple[int, int]] = []
    after: int | None = None
    for offset in [*outstanding, end]:
        if after is not None and offset > after:
            found.append((after, offset))
        after = offset + 1
    return tuple(found)


def beyond(ranges: Ranges, offset: int) -> Ranges:
    """What of these lies at or beyond this offset."""
    return tuple((max(first, offset), end) for first, end in ranges if end > offset)


def to_metadata(offset: int, ahead: Ranges) -> tuple[str, Ranges]:
    """The text, and the ranges that had room in it."""
    parts: list[str] = []
    room = MAX_CHARS - len(_PREFIX)
    for first, end in ahead:
        part = str(first - offset) if end == first + 1 else f"{first - offset}-{end - 1 - offset}"
        room -= len(part) + 1
        if room < 0:
            break
        parts.append(part)
    return (_PREFIX + ",".join(parts) if parts else "", ahead[: len(parts)])


def from_metadata(offset: int, metadata: str) -> Ranges:
    """What `to_metadata` has written; nothing when it was something else."""
    if not _FORM.fullmatch(metadata):
        return ()
    found: list[tuple[int, int]] = []
    for part in metadata.removeprefix(_PREFIX).split(","):
        first, _, last = part.partition("-")
        found.append((offset + int(first), offset + int(last or first) + 1))
    return tuple(found)


def is_in(offset: int, ranges: Ranges) -> bool:
    return any(first <= offset < end for first, end in ranges)
