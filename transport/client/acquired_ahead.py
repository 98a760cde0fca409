"""The records that a share consumer acquires with a flush, for the poll that follows it. Pure.

A program that alternates `poll` and `flush` needs two requests for each round of work: one acknowledges, the next one
acquires. Once a poll has come at once after a flush, the next flush acquires as well, as many records as the last poll
asked for. Only a program that holds no record does so: it takes no work that it would not take a moment later.

    poll soon after a flush       the next flush acquires
    poll later, or none           the next flush does not; records that wait for a poll are released after KEPT_MS

Owns the acquired ranges until a poll takes them. They are held, and never accepted unseen. Called by sharing.py.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import structs

from ..protocol.shares import AcquiredRange

SOON_MS = 100
KEPT_MS = 1_000


class Ahead:
    def __init__(self, *, is_allowed: bool) -> None:
        """`is_allowed`: each record is acknowledged by the program itself."""
        self._is_allowed = is_allowed
        self.kept_until: int | None = None
        """The time at which the ranges are released; None if there are none."""
        self._ranges: deque[AcquiredRange] = deque()
        self._count = 0
        self._is_wanted = False
        self._flushed_at: int | None = None

    def on_poll(self, count: int, now: int) -> None:
        self._count = count
        if self._flushed_at is not None:
            self._is_wanted = now - self._flushed_at <= SOON_MS
            self._flushed_at = None

    def on_flush(self, now: int) -> int:
        """Return the number of records that this flush acquires."""
        self._flushed_at = now
        return self._count if self._is_wanted and self._is_allowed and not self._ranges else 0

    def on_flushed(self, now: int) -> None:
        """Note that the flush has its outcome: the program goes on."""
        if self._flushed_at is not None:
            self._flushed_at = now

    def keep(self, ranges: Iterable[AcquiredRange], now: int) -> None:
        self._ranges.extend(ranges)
        self.kept_until = now + KEPT_MS if self._ranges else None

    def take(self, count: int) -> list[AcquiredRange]:
        """Return ranges of at most `count` offsets for a poll."""
        taken: list[AcquiredRange] = []
        while self._ranges and count > 0:
            each = self._ranges.popleft()
            end = min(each.last_offset, each.first_offset + count - 1)
            count -= end + 1 - each.first_offset
            taken.append(structs.replace(each, last_offset=end))
            if end < each.last_offset:
                self._ranges.appendleft(structs.replace(each, first_offset=end + 1))
        if not self._ranges:
            self.kept_until = None
        return taken

    def drop(self) -> list[AcquiredRange]:
        """Return the ranges that no poll has taken in time."""
        self._is_wanted = False
        left, self._ranges, self.kept_until = list(self._ranges), deque(), None
        return left
