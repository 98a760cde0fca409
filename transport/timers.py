"""Timers by key: setting one replaces the one before. Pure bookkeeping; the loop asks what is due."""

import heapq
from collections.abc import Hashable


class Timers:
    """A heap of (time, turn, key) with stale entries skipped when they surface."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Hashable]] = []
        self._current: dict[Hashable, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._current)

    def set(self, key: Hashable, at: int) -> None:
        self._turn += 1
        self._current[key] = self._turn
        heapq.heappush(self._heap, (at, self._turn, key))

    def cancel(self, key: Hashable) -> None:
        self._current.pop(key, None)

    def next_at(self) -> int | None:
        """When the earliest timer is due, None when there is none."""
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: int) -> list[Hashable]:
        """The keys that are due at `now`, earliest first; they are gone afterwards."""
        due: list[Hashable] = []
        while (at := self.next_at()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._current[key]
            due.append(key)
        return due
