"""What a group has done beyond its committed offset, as a commit's metadata carries it. Pure.

    metadata    "done ahead (epoch 3): 2-4,9" on the committed offset 100: 102 to 104 and 109 are done too, 100 is not

That holds for records of leader epochs up to the one that is named. Those of a later one have been given the offsets of
records that a power cut took (partition/divergence.py), and nobody has handled them.
Bounded by MAX_CHARS: of more ranges than that holds the lowest are told, and a successor repeats the others. What was
told once is told until the offset has passed it. Whatever else stands in the metadata of a commit, a program's own words,
tells nothing.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""First offset and end, of each range, in order and apart."""
MAX_CHARS = 4_000
"""The coordinator keeps 4,096 bytes."""

_RANGE = r"\d{1,19}(?:-\d{1,19})?"
_FORM = re.compile(rf"done ahead \(epoch (\d{{1,10}})\): ({_RANGE}(?:,{_RANGE})*)")
_PREFIX_CHARS = len("done ahead (epoch 4294967295): ")


class Ahead(Struct, frozen=True):
    """What is done beyond a committed offset."""

    ranges: Ranges = ()
    leader_epoch: int = 0
    """Records of a later one are others."""

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def has(self, offset: int, leader_epoch: int) -> bool:
        return leader_epoch <= self.leader_epoch and is_in(offset, self.ranges)


NOTHING_AHEAD = Ahead()


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


def to_metadata(offset: int, ahead: Ranges, before: Ranges = (), leader_epoch: int = 0) -> tuple[str, Ranges]:
    """The text, and the ranges that had room in it: all that were told `before`, and the lowest of the others."""
    told = _told(offset, ahead, beyond(before, offset))
    text = ",".join(_text(offset, each) for each in told)
    return (f"done ahead (epoch {leader_epoch}): {text}" if told else "", told)


def _told(offset: int, ahead: Ranges, before: Ranges) -> Ranges:
    """The most ranges of `ahead` that there is room for, from the first on, and of `before` what lies behind them."""
    room = MAX_CHARS - _PREFIX_CHARS + 1
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


def from_metadata(offset: int, metadata: str) -> Ahead:
    """What `to_metadata` has written; nothing when it was something else."""
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
