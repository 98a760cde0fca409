"""Fetches that wait for data: bounded, woken by bytes, ended by time.

Owns the waiting and nothing else: it reads no log and writes no reply. The machine parks a fetch that found too little,
asks who is awake after every advance of the high watermark, and who has expired when its timer fires. When full, the
fetch that has waited longest makes room and is answered with what there is: a fetch that waits is often a ghost whose
client has gone, and an early, empty answer is never wrong.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from ...transport.machine import Received, Sender

MAX_PARKED_FETCHES = 10_000


class ParkedFetches:
    """Waiting fetches in the order they came."""

    def __init__(self, limit: int = MAX_PARKED_FETCHES) -> None:
        self.limit = limit
        self._serial = 0
        self._waiting: dict[int, Received] = {}
        # Both heaps may name a fetch that is gone; such entries are skipped when they surface.
        self._by_bytes: list[tuple[int, int]] = []
        self._by_deadline: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def park(self, asked: Received, deadline: int, wake_at_bytes: int) -> Received | None:
        """Let a fetch wait until `wake_at_bytes` bytes have become visible in all, or until `deadline`.

        Returns the fetch that had to make room for it, if any.
        """
        evicted = self._evict_longest_waiting() if len(self._waiting) >= self.limit else None
        self._serial += 1
        self._waiting[self._serial] = asked
        heappush(self._by_bytes, (wake_at_bytes, self._serial))
        heappush(self._by_deadline, (deadline, self._serial))
        return evicted

    def wake(self, visible_bytes: int) -> list[Received]:
        """Take out those whose bytes are there."""
        return self._take(self._by_bytes, visible_bytes)

    def expire(self, now: int) -> list[Received]:
        """Take out those whose time is up."""
        return self._take(self._by_deadline, now)

    def forget(self, is_gone: Callable[[Sender], bool]) -> None:
        """Drop those that nobody waits for any more."""
        for serial in [serial for serial, asked in self._waiting.items() if is_gone(asked.sender)]:
            del self._waiting[serial]

    def drain(self) -> list[Received]:
        """Take out all."""
        drained = list(self._waiting.values())
        self._waiting.clear()
        self._by_bytes.clear()
        self._by_deadline.clear()
        return drained

    def next_deadline(self) -> int | None:
        self._drop_gone(self._by_deadline)
        return self._by_deadline[0][0] if self._by_deadline else None

    def _take(self, heap: list[tuple[int, int]], limit: int) -> list[Received]:
        if not self._waiting:
            return self.drain()
        taken: list[Received] = []
        while heap and heap[0][0] <= limit:
            asked = self._waiting.pop(heappop(heap)[1], None)
            if asked is not None:
                taken.append(asked)
        # A fetch woken by data leaves its deadline behind; dropping those keeps both heaps as small as the list.
        self._drop_gone(self._by_bytes)
        self._drop_gone(self._by_deadline)
        return taken

    def _drop_gone(self, heap: list[tuple[int, int]]) -> None:
        while heap and heap[0][1] not in self._waiting:
            heappop(heap)
        if len(heap) > 2 * len(self._waiting) + 16:
            # In place: whoever holds the heap must see it shrink. A sorted list is a heap.
            heap[:] = sorted(entry for entry in heap if entry[1] in self._waiting)

    def _evict_longest_waiting(self) -> Received:
        return self._waiting.pop(next(iter(self._waiting)))
