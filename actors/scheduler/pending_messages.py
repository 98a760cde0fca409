"""The pending messages and their due times, and the recently ended ones. Pure, and without contents.

Owns the index by id and two heaps by time. A message is one number here, `due << 64 | is_delay << 63 | offset`: a
heap's order is that of the due times, and of the offsets where they are equal. The number is in the index and in a
heap, one object for both: with its id's hash some 170 bytes a message. Ids are stored as 128 bits of BLAKE2b, so two
are never confused.

One heap holds wall-clock times, the other one the ends of delays. They are compared with two clocks (`Clocks`), so a
step of the wall clock shifts one kind against the other.

    add -> waiting in a heap --take_due--> taken --put_back--> waiting
    any of them --withdraw--> decided to be cancelled: neither found nor delivered any more
    any of them --end--> ended, remembered for ENDED_KEPT_MS

A cancelled message stays in its heap until it is due, or until half of the heaps' entries are cancelled.
"""

from collections.abc import Container, Iterable, Iterator
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import NamedTuple

from .records import Ending

PENDING_LIMIT = 500_000
"""Maximum messages of a scheduler, about 85 MB; beyond it scheduling is refused OVERLOADED."""
ENDED_LIMIT = 100_000
"""Maximum remembered ids of delivered and cancelled messages; beyond it the oldest are forgotten."""
ENDED_KEPT_MS = 600_000
"""The time for which ids are remembered: a repeat after a lost answer does not come later."""
STALE_SLACK = 1_000

_DUE_SHIFT = 64
_DELAY_BIT = 1 << 63
_OFFSET_MASK = _DELAY_BIT - 1


class Clocks(NamedTuple):
    """The clocks that due times are compared with, in the order of the heaps."""

    wall_ms: int
    """The wall clock."""
    elapsed_ms: int
    """The clock of delays: it never steps, and continues while the machine sleeps."""


def entry_of(due_ms: int, offset: int, is_delay: bool) -> int:
    return due_ms << _DUE_SHIFT | (_DELAY_BIT if is_delay else 0) | offset


def due_of(entry: int) -> int:
    return entry >> _DUE_SHIFT


def is_delay(entry: int) -> bool:
    return bool(entry & _DELAY_BIT)


def wait_ms(entry: int, clocks: Clocks) -> int:
    """Return the time until the entry is due; negative when overdue."""
    return due_of(entry) - clocks[is_delay(entry)]


def offset_of(entry: int) -> int:
    return entry & _OFFSET_MASK


def digest_of(scheduled_id: str) -> bytes:
    return blake2b(scheduled_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class PendingMessages:
    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}
        self._withdrawn: dict[bytes, int] = {}
        self._heaps: tuple[list[int], list[int]] = ([], [])
        """Wall-clock times, and delays."""
        self._ended: dict[bytes, tuple[int, Ending]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, digest: bytes, entry: int) -> None:
        self._entries[digest] = entry
        self._ended.pop(digest, None)
        self._push(entry)

    def restore(self, digest: bytes, entry: int) -> None:
        """Add an entry during the replay; `arrange` builds the heaps later."""
        self._entries[digest] = entry
        self._ended.pop(digest, None)

    def arrange(self, taken: Container[int] = ()) -> None:
        """Build the heaps of all pending entries except `taken`."""
        self._fill(entry for entry in self._entries.values() if entry not in taken)

    def find(self, digest: bytes) -> int | None:
        return self._entries.get(digest)

    def is_live(self, digest: bytes, entry: int) -> bool:
        """Return True if this message is the pending one under its id."""
        return self._entries.get(digest) == entry

    def withdraw(self, digest: bytes) -> None:
        """Take out a message whose cancellation is being made durable."""
        self._withdrawn[digest] = self._entries.pop(digest)

    def is_withdrawn(self, digest: bytes) -> bool:
        return digest in self._withdrawn

    def end(self, digest: bytes, ended_ms: int, ending: Ending) -> None:
        self._entries.pop(digest, None)
        self._withdrawn.pop(digest, None)
        self._ended.pop(digest, None)
        self._ended[digest] = (ended_ms, ending)
        while len(self._ended) > ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]

    def ending(self, digest: bytes, now: int) -> Ending | None:
        """Return how the message with this id ended, if it ended recently."""
        self._forget(now)
        found = self._ended.get(digest)
        return None if found is None else found[1]

    def wait_ms(self, clocks: Clocks) -> int | None:
        """Return the time until the next message is due, 0 or less when one is; None without messages."""
        return min((wait_ms(heap[0], clocks) for heap in self._heaps if heap), default=None)

    def take_due(self, clocks: Clocks, limit: int) -> list[int]:
        """Take due messages, longest overdue first."""
        taken: list[int] = []
        while len(taken) < limit:
            heap = min(filter(None, self._heaps), key=lambda heap: wait_ms(heap[0], clocks), default=None)
            if heap is None or wait_ms(heap[0], clocks) > 0:
                break
            taken.append(heappop(heap))
        return taken

    def put_back(self, entries: Iterable[int]) -> None:
        for entry in entries:
            self._push(entry)

    def sweep(self) -> None:
        """Remove cancelled entries from the heaps, if they are many."""
        if sum(map(len, self._heaps)) > 2 * len(self._entries) + STALE_SLACK:
            live = frozenset(self._entries.values())
            self._fill([entry for entry in chain(*self._heaps) if entry in live])

    def _push(self, entry: int) -> None:
        heappush(self._heaps[is_delay(entry)], entry)

    def _fill(self, entries: Iterable[int]) -> None:
        self._heaps = ([], [])
        for entry in entries:
            self._heaps[is_delay(entry)].append(entry)
        for heap in self._heaps:
            heapify(heap)

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Return the entries of all messages that have not ended."""
        return chain(self._entries.items(), self._withdrawn.items())

    def settle_endings(self, now: int) -> None:
        """Limit all endings to now: after a clock that was set back before the boot, ids would stay taken too long."""
        for digest, (ended_ms, ending) in self._ended.items():
            if ended_ms > now:
                self._ended[digest] = (now, ending)

    def endings(self) -> Iterator[tuple[bytes, tuple[int, Ending]]]:
        """Return the endings, oldest first."""
        return iter(self._ended.items())

    def _forget(self, now: int) -> None:
        while self._ended:
            digest, (ended_ms, _) = next(iter(self._ended.items()))
            if ended_ms > now - ENDED_KEPT_MS:
                return
            del self._ended[digest]
