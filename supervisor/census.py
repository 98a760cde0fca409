"""The children of one group by state: how many are in each, and which wait for a launch, in start order. Pure.

Each change of a thousand children would otherwise walk over all of them. `Child.become` keeps it up to date; read by
tree.py and, for all groups together, by admission.py.
"""

from collections.abc import Iterator
from heapq import nsmallest
from typing import TYPE_CHECKING

from .changes import Changes
from .states import State

if TYPE_CHECKING:
    from .children import Child


class Census:
    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._counts = dict.fromkeys(State, 0)
        self._waiting: dict[int, Child] = {}
        """By position in the start order."""

    def count(self, state: State) -> int:
        return self._counts[state]

    def first_waiting(self, limit: int) -> Iterator["Child"]:
        """Return at most `limit` waiting children, in start order."""
        if limit > 0 and self._waiting:
            yield from (self._waiting[position] for position in nsmallest(limit, self._waiting))

    def enter(self, child: "Child") -> None:
        self._counts[child.state] += 1
        if child.state is State.WAITING:
            self._waiting[child.position] = child
        self._changes.note(child.address)

    def leave(self, child: "Child") -> None:
        self._counts[child.state] -= 1
        self._waiting.pop(child.position, None)
        self._changes.note_removal(child.address)

    def move(self, child: "Child", before: State) -> None:
        """Record a change of state; called after it."""
        self._counts[before] -= 1
        self._counts[child.state] += 1
        self._changes.note(child.address)
        if before is State.WAITING:
            self._waiting.pop(child.position, None)
        if child.state is State.WAITING:
            self._waiting[child.position] = child
