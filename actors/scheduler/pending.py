"""Which messages are pending and when they are due; which ended a short while ago. Pure, and without their contents.

Owns the index by id and the heap by time. A message is one number here, `due << 63 | offset`: the heap's order is that
of the due times, and of the offsets where they are equal. The number is in the index and in the heap, one object for
both: with its id's hash some 170 bytes a message. Ids are kept by 128 bits of BLAKE2b, so no two are taken for one.

    add -> waiting in the heap --take_due--> taken --put_back--> waiting
    any of them --withdraw--> decided to be cancelled: neither found nor delivered any more
    any of them --end--> ended, remembered for ENDED_KEPT_MS

What was cancelled stays in the heap until it is due, or until the heap is half of such.
"""

from collections.abc import Container, Iterable, Iterator
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import chain

from .records import Ending

PENDING_LIMIT = 500_000
"""Messages a scheduler holds, some 85 MB; beyond, scheduling is refused OVERLOADED."""
ENDED_LIMIT = 100_000
"""Ids of delivered and cancelled messages that are remembered; beyond, the oldest are forgotten."""
ENDED_KEPT_MS = 600_000
"""How long: a repeat whose answer was lost does not come later."""
STALE_SLACK = 1_000

_OFFSET_BITS = 63
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1


def entry_of(due_ms: int, offset: int) -> int:
    return due_ms << _OFFSET_BITS | offset


def due_of(entry: int) -> int:
    return entry >> _OFFSET_BITS


def offset_of(entry: int) -> int:
    return entry & _OFFSET_MASK


def digest_of(scheduled_id: str) -> bytes:
    return blake2b(scheduled_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Pending:
    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}
        self._withdrawn: dict[bytes, int] = {}
        self._heap: list[int] = []
        self._ended: dict[bytes, tuple[int, Ending]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, digest: bytes, entry: int) -> None:
        self._entries[digest] = entry
        self._ended.pop(digest, None)
        heappush(self._heap, entry)

    def restore(self, digest: bytes, entry: int) -> None:
        """Add while the log is read; the heap follows by `arrange`."""
        self._entries[digest] = entry
        self._ended.pop(digest, None)

    def arrange(self, taken: Container[int] = ()) -> None:
        """Make the heap of all that is pending but `taken`."""
        self._heap = [entry for entry in self._entries.values() if entry not in taken]
        heapify(self._heap)

    def find(self, digest: bytes) -> int | None:
        return self._entries.get(digest)

    def is_live(self, digest: bytes, entry: int) -> bool:
        """Whether this is the message that is pending under its id."""
        return self._entries.get(digest) == entry

    def withdraw(self, digest: bytes) -> None:
        """It is cancelled, as soon as that is durable."""
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
        """How the message of an id ended, if that was a short while ago."""
        self._forget(now)
        found = self._ended.get(digest)
        return None if found is None else found[1]

    def next_due_ms(self) -> int | None:
        return due_of(self._heap[0]) if self._heap else None

    def take_due(self, now: int, limit: int) -> list[int]:
        taken: list[int] = []
        while self._heap and len(taken) < limit and due_of(self._heap[0]) <= now:
            taken.append(heappop(self._heap))
        return taken

    def put_back(self, entries: Iterable[int]) -> None:
        for entry in entries:
            heappush(self._heap, entry)

    def sweep(self) -> None:
        """Rid the heap of the cancelled, if they are many."""
        if len(self._heap) > 2 * len(self._entries) + STALE_SLACK:
            live = frozenset(self._entries.values())
            self._heap = [entry for entry in self._heap if entry in live]
            heapify(self._heap)

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Of all that has not ended."""
        return chain(self._entries.items(), self._withdrawn.items())

    def endings(self) -> Iterator[tuple[bytes, tuple[int, Ending]]]:
        """The oldest first."""
        return iter(self._ended.items())

    def _forget(self, now: int) -> None:
        while self._ended:
            digest, (ended_ms, _) = next(iter(self._ended.items()))
            if ended_ms > now - ENDED_KEPT_MS:
                return
            del self._ended[digest]
