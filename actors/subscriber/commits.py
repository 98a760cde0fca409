"""When finished records are committed: soon, together, one commit at a time. Pure.

A commit of its own for every record would cost a round trip and a sync each; so finished records wait up to COMMIT_MS for
company, unless there are COMMIT_RECORDS of them.

A commit is ordered only between two polls, never behind one: a poll may let a partition go and get it back, and a commit
ordered before that would take the group back to where it was.
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
        self.is_due = False
        """To be made as soon as no poll is under way."""
        self.held_back: Sequence[Record] = ()
        """Polled, and not to be handled before the commit under way has been answered."""
        self._is_planned = False
        self._finished = 0

    @property
    def can_plan(self) -> bool:
        return not (
            (self._is_planned and self._finished < COMMIT_RECORDS) or self.is_under_way or self.is_due
        )

    def count(self, finished: int) -> None:
        self._finished += finished

    def plan(self, offsets: Offsets, now: int, delay_ms: int = COMMIT_MS) -> list[Effect]:
        """There may be something to commit."""
        if not offsets or not self.can_plan:
            return []
        if self._finished >= COMMIT_RECORDS:
            self.is_due = True
            return []
        self._is_planned = True
        return [SetTimer(TIMER, now + delay_ms)]

    def fire(self) -> None:
        """The timer has."""
        self._is_planned = False
        self.is_due |= not self.is_under_way

    def hurry(self) -> None:
        """Somebody waits for the next commit."""
        self.is_due = True

    def commit(self, order: Commit, held_back: Sequence[Record] = ()) -> list[Effect]:
        assert not self.is_under_way
        self.is_under_way = True
        self.is_due = False
        self.held_back = held_back
        self._finished = 0
        return [order]

    def answered(self) -> Sequence[Record]:
        """The commit under way was answered; returns what was held back for it."""
        self.is_under_way = False
        records, self.held_back = self.held_back, ()
        return records
