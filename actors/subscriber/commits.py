"""When finished records are committed: soon, together, one commit at a time. Pure.

A commit of its own for every record would cost a round trip and a sync each; so finished records wait up to COMMIT_MS for
company, unless there are COMMIT_RECORDS of them.
"""

from collections.abc import Sequence

from ...transport.machine import Effect, SetTimer
from .effects import Commit, Offsets, Record

TIMER = "commit"
COMMIT_MS = 100
COMMIT_RECORDS = 20_000
RETRY_MS = 500
"""After a refusal. It is ordinary when a partition has just gone; what is still held is committed again."""


class Commits:
    """The commit under way, and the one planned."""

    def __init__(self) -> None:
        self.is_under_way = False
        self.held_back: Sequence[Record] = ()
        """Polled, and not to be handled before the commit under way has been answered."""
        self._is_planned = False
        self._finished = 0

    def count(self, finished: int) -> None:
        self._finished += finished

    def plan(self, offsets: Offsets, now: int, delay_ms: int = COMMIT_MS) -> list[Effect]:
        """There may be something to commit."""
        if not offsets or self.is_under_way:
            return []
        if self._finished >= COMMIT_RECORDS:
            return self.commit(offsets)
        if self._is_planned:
            return []
        self._is_planned = True
        return [SetTimer(TIMER, now + delay_ms)]

    def due(self, offsets: Offsets) -> list[Effect]:
        """The timer has fired."""
        self._is_planned = False
        return [] if self.is_under_way or not offsets else self.commit(offsets)

    def commit(self, offsets: Offsets, held_back: Sequence[Record] = ()) -> list[Effect]:
        assert not self.is_under_way
        self.is_under_way = True
        self.held_back = held_back
        self._finished = 0
        return [Commit(offsets)]

    def answered(self) -> Sequence[Record]:
        """The commit under way was answered; returns what was held back for it."""
        self.is_under_way = False
        records, self.held_back = self.held_back, ()
        return records
