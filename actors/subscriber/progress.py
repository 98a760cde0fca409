"""A group's progress beyond its committed offset, carried in the commit's metadata. Pure.

    metadata    "done ahead (epoch 3): 2-4,9" on the committed offset 100: 102 to 104 and 109 are done too, 100 is not

That holds for records of leader epochs up to the one named. Records of a later epoch have been given the offsets of
records that a power failure destroyed (partition/divergence.py), and have not been handled. Bounded by MAX_CHARS: if
there are more ranges, the lowest are recorded, and a successor repeats the others. A recorded range stays recorded
until the offset has passed it. Any other metadata, such as a program's own text, records no progress.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""First offset and end of each range, ordered and disjoint."""
MAX_CHARS = 4_000
"""Longest metadata; the coordinator keeps 4,096 bytes."""

_RANGE = r"\d{1,19}(?:-\d{1,19})?"
_FORM = re.compile(rf"done ahead \(epoch (\d{{1,10}})\): ({_RANGE}(?:,{_RANGE})*)")
_PREFIX_CHARS = len("done ahead (epoch 4294967295): ")


class Ahead(Struct, frozen=True):
    """The progress beyond a committed offset."""

    ranges: Ranges = ()
    leader_epoch: int = 0
    """Highest leader epoch for which it holds; records of a later one are different records."""

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def has(self, offset: int, leader_epoch: int) -> bool:
        return leader_epoch <= self.leader_epoch and is_in(offset, self.ranges)


NOTHING_AHEAD = Ahead()


def gaps(outstanding: Iterable[int], end: int) -> Ranges:
    """Return the ranges between these offsets, which are in order, and before `end`; none precedes the first offset."""
    found: list[tuple[int, int]] = []
    after: int | None = None
    for offset in [*outstanding, end]:
        if after is not None and offset > after:
            found.append((after, offset))
        after = offset + 1
    return tuple(found)


def beyond(ranges: Ranges, offset: int) -> Ranges:
    """Return the parts of these ranges at or beyond this offset."""
    return tuple((max(first, offset), end) for first, end in ranges if end > offset)


def to_metadata(offset: int, ahead: Ranges, before: Ranges = (), leader_epoch: int = 0) -> tuple[str, Ranges]:
    """Return the text and its ranges: all recorded `before`, and as many of the others, lowest first."""
    recorded = _recorded(offset, ahead, beyond(before, offset))
    text = ",".join(_text(offset, each) for each in recorded)
    return (f"done ahead (epoch {leader_epoch}): {text}" if recorded else "", recorded)


def _recorded(offset: int, ahead: Ranges, before: Ranges) -> Ranges:
    """Return the longest prefix of `ahead` that fits, together with the ranges of `before` that lie behind it."""
    room = MAX_CHARS - _PREFIX_CHARS + 1
    lengths = [len(_text(offset, each)) + 1 for each in ahead]
    if sum(lengths) <= room:
        return ahead
    left = list(before)
    taken = sum(len(_text(offset, each)) + 1 for each in left)
    recorded = before
    for count, length in enumerate(lengths, 1):
        taken += length
        while left and left[0][0] < ahead[count - 1][1]:
            taken -= len(_text(offset, left.pop(0))) + 1
        if taken <= room:
            recorded = (*ahead[:count], *left)
    return recorded


def _text(offset: int, part: tuple[int, int]) -> str:
    first, end = part
    return str(first - offset) if end == first + 1 else f"{first - offset}-{end - 1 - offset}"


def from_metadata(offset: int, metadata: str) -> Ahead:
    """Parse the text of `to_metadata`; any other text yields no progress."""
    found = _FORM.fullmatch(metadata)
    if found is None:
        return NOTHING_AHEAD
    ranges: list[tuple[int, int]] = []
    for part in found[2].split(","):
        first, _, last = part.partition("-")
        ranges.append((offset + int(first), offset + int(last or first) + 1))
    return Ahead(tuple(ranges), int(found[1]))


def is_in(offset: int, ranges: Ranges) -> bool:
    return any(first <= offset < end for first, end in ranges)
