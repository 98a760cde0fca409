"""Runs of consecutive offsets. Pure."""

from collections.abc import Iterable


def runs_in(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive offsets among rising ones, each with the offset after it."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found
