"""Timers by key: setting one replaces the previous one. Pure bookkeeping; the loop takes the due timers."""

import heapq
from collections.abc import Callable, Hashable, Iterator

STALE_ALLOWANCE = 256
"""Stale entries, beyond the number of timers, at which the heap is swept."""


class Timers:
    """A heap of (time, turn, key) with stale entries skipped when they surface."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Hashable]] = []
        self._current: dict[Hashable, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._current)

    def __iter__(self) -> Iterator[Hashable]:
        """Iterate over the keys."""
        return iter(self._current)

    def set(self, key: Hashable, at: int) -> None:
        self._turn += 1
        self._current[key] = self._turn
        heapq.heappush(self._heap, (at, self._turn, key))
        # A distant timer that is set again and again would otherwise fill the heap with its earlier
        # entries.
        if len(self._heap) > 2 * len(self._current) + STALE_ALLOWANCE:
            self._heap = [entry for entry in self._heap if self._current.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def cancel(self, key: Hashable) -> None:
        self._current.pop(key, None)

    def discard(self, is_gone: Callable[[Hashable], bool]) -> None:
        """Cancel every timer whose key satisfies `is_gone`, and keep no reference to it."""
        self._current = {key: turn for key, turn in self._current.items() if not is_gone(key)}
        self._heap = [entry for entry in self._heap if not is_gone(entry[2])]
        heapq.heapify(self._heap)

    def next_at(self) -> int | None:
        """Return the time of the earliest timer, None if there is none."""
        heap = self._heap
        while heap:
            at, turn, key = heap[0]
            if self._current.get(key) == turn:
                return at
            heapq.heappop(heap)
        return None

    def has_due(self, now: int) -> bool:
        """Return False if no timer is due. A stale entry may be: this check is for the many turns without one."""
        return bool(self._heap) and self._heap[0][0] <= now

    def pop_due(self, now: int) -> Iterator[Hashable]:
        """Yield the keys due at `now`, earliest first; each is removed when it is yielded.

        Keys cancelled meanwhile are not yielded; timers set meanwhile wait for the next call.
        """
        last_turn = self._turn
        while (at := self.next_at()) is not None and at <= now and self._heap[0][1] <= last_turn:
            key = heapq.heappop(self._heap)[2]
            del self._current[key]
            yield key
