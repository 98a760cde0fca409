"""Fetches that wait for data: bounded, woken by bytes, ended by time.

Owns only the waiting: it reads no log and writes no reply. The machine parks a fetch that found too little, takes out
the woken ones after every advance of the high watermark, and the expired ones when its timer fires. When the list is
full, one of the oldest fetches of the connection with the most parked fetches is answered with the available data: an
early, empty answer is never wrong, and no connection can force others to poll.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from ...transport.machine import Received

MAX_PARKED_FETCHES = 10_000


class ParkedFetches:
    """Waiting fetches in the order of arrival."""

    def __init__(self, limit: int = MAX_PARKED_FETCHES) -> None:
        self.limit = limit
        self._serial = 0
        self._waiting: dict[int, Received] = {}
        self._of_connection: dict[bytes, dict[tuple[bytes, ...], dict[int, None]]] = {}
        """Serials by connection and by the whole route; each call of another actor has its own route."""
        self._counts: Counter[bytes] = Counter()
        # Both heaps may name a fetch that is no longer parked; such entries are skipped when they surface.
        self._by_bytes: list[tuple[int, int]] = []
        self._by_deadline: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def park(self, received: Received, deadline: int, wake_at_bytes: int) -> Received | None:
        """Park a fetch until `wake_at_bytes` bytes have become visible in total, or until `deadline`.

        Return the fetch that had to make room for it, if any.
        """
        evicted = self._evict() if len(self._waiting) >= self.limit else None
        self._serial += 1
        self._enter(self._serial, received)
        heappush(self._by_bytes, (wake_at_bytes, self._serial))
        heappush(self._by_deadline, (deadline, self._serial))
        return evicted

    def wake(self, visible_bytes: int) -> list[Received]:
        """Take out the fetches whose bytes have become visible."""
        return self._take(self._by_bytes, visible_bytes) if self._by_bytes else []

    def expire(self, now: int) -> list[Received]:
        """Take out the fetches whose deadline has passed."""
        return self._take(self._by_deadline, now)

    def forget_connection(self, connection: bytes) -> list[Received]:
        """Take out the fetches of a closed connection."""
        routes = self._of_connection.get(connection, {})
        return [self._leave(serial) for serial in [each for serials in routes.values() for each in serials]]

    def take_out(self, is_chosen: Callable[[Received], bool]) -> list[Received]:
        """Take out the fetches for which it holds."""
        chosen = [serial for serial, received in self._waiting.items() if is_chosen(received)]
        return [self._leave(serial) for serial in chosen]

    def waiting(self) -> Iterable[Received]:
        return self._waiting.values()

    def cancel(self, cancel: Received) -> list[Received]:
        """Take out the fetches that their requester has cancelled."""
        route = cancel.sender.route
        serials = self._of_connection.get(route[0], {}).get(route, ())
        gone = [each for each in serials if cancel.cancels(self._waiting[each].sender)]
        return [self._leave(serial) for serial in gone]

    def drain(self) -> list[Received]:
        """Take out all fetches."""
        drained = list(self._waiting.values())
        self._waiting.clear()
        self._of_connection.clear()
        self._counts.clear()
        self._by_bytes.clear()
        self._by_deadline.clear()
        return drained

    def next_deadline(self) -> int | None:
        self._drop_gone(self._by_deadline)
        return self._by_deadline[0][0] if self._by_deadline else None

    def _take(self, heap: list[tuple[int, int]], limit: int) -> list[Received]:
        if not self._waiting:
            self._by_bytes.clear()
            self._by_deadline.clear()
            return []
        taken: list[Received] = []
        while heap and heap[0][0] <= limit:
            serial = heappop(heap)[1]
            if serial in self._waiting:
                taken.append(self._leave(serial))
        # A fetch woken by data leaves its deadline behind; dropping those keeps both heaps as small as the list.
        self._drop_gone(self._by_bytes)
        self._drop_gone(self._by_deadline)
        return taken

    def _drop_gone(self, heap: list[tuple[int, int]]) -> None:
        while heap and heap[0][1] not in self._waiting:
            heappop(heap)
        if len(heap) > 2 * len(self._waiting) + 16:
            # In place: every holder of the heap must see it shrink. A sorted list is a heap.
            heap[:] = sorted(entry for entry in heap if entry[1] in self._waiting)

    def _evict(self) -> Received:
        largest = self._counts.most_common(1)[0][0]
        return self._leave(
            min(serial for serials in self._of_connection[largest].values() for serial in serials)
        )

    def _enter(self, serial: int, received: Received) -> None:
        route = received.sender.route
        self._waiting[serial] = received
        self._of_connection.setdefault(route[0], {}).setdefault(route, {})[serial] = None
        self._counts[route[0]] += 1

    def _leave(self, serial: int) -> Received:
        received = self._waiting.pop(serial)
        route = received.sender.route
        routes = self._of_connection[route[0]]
        del routes[route][serial]
        if not routes[route]:
            del routes[route]
        self._counts[route[0]] -= 1
        if not routes:
            del self._of_connection[route[0]], self._counts[route[0]]
        return received
