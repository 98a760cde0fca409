"""What a group has done beyond its committed offset, as a commit's metadata carries it. Pure.

    metadata    "done ahead: 2-4,9" on the committed offset 100: 102 to 104 and 109 are done too, 100 is not

Bounded by MAX_CHARS: of more ranges than that holds the lowest are told, and a successor repeats the others. What was
told once is told until the offset has passed it. Whatever else stands in the metadata of a commit, a program's own words,
tells nothing.
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


def to_metadata(offset: int, ahead: Ranges, before: Ranges = ()) -> tuple[str, Ranges]:
    """The text, and the ranges that had room in it: all that were told `before`, and the lowest of the others."""
    told = _told(offset, ahead, beyond(before, offset))
    return (_PREFIX + ",".join(_text(offset, each) for each in told) if told else "", told)


def _told(offset: int, ahead: Ranges, before: Ranges) -> Ranges:
    """The most ranges of `ahead` that there is room for, from the first on, and of `before` what lies behind them."""
    room = MAX_CHARS - len(_PREFIX) + 1
    lengths = [len(_text(offset, each)) + 1 for each in ahead]
    if sum(lengths) <= room:
        return ahead
    left = list(before)
    taken = sum(len(_text(offset, each)) + 1 for each in left)
    told = before
    for count, length in enumerate(lengths, 1):
        taken += length
        while left and left[0][0] < ahead[count - 1][1]:
            taken -= len(_text(offset, left.pop(0))) + 1
        if taken <= room:
            told = (*ahead[:count], *left)
    return told


def _text(offset: int, part: tuple[int, int]) -> str:
    first, end = part
    return str(first - offset) if end == first + 1 else f"{first - offset}-{end - 1 - offset}"


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
