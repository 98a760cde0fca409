"""The commit schedule: finished records are committed soon, in batches, one commit at a time. Pure.

A commit for every record would cost a round trip and a sync each; so finished records wait up to COMMIT_MS for a batch,
unless there are COMMIT_RECORDS of them.

A commit is ordered only between two polls, never behind one: during a poll a partition may be revoked and assigned
again, and a commit ordered before that would set the group's offset back.
"""

from collections.abc import Sequence

from ...transport.machine import SetTimer
from .effects import Commit, Effect, Offsets, Record
from .timers import CommitDue

COMMIT_MS = 100
COMMIT_RECORDS = 20_000
RETRY_MS = 500
"""Delay after a refused commit. A refusal is common just after a revocation; the partitions still assigned are
committed again.
"""


class Commits:
    """The commit in flight, and the planned one."""

    def __init__(self) -> None:
        self.is_in_flight = False
        self.is_due = False
        """True if a commit is to be made as soon as no poll is in flight."""
        self.held_back: Sequence[Record] = ()
        """Polled records that must not be handled before the commit in flight has been answered."""
        self._is_planned = False
        self._finished = 0

    @property
    def can_plan(self) -> bool:
        return not (
            (self._is_planned and self._finished < COMMIT_RECORDS) or self.is_in_flight or self.is_due
        )

    def count(self, finished: int) -> None:
        self._finished += finished

    def plan(self, offsets: Offsets, now: int, delay_ms: int = COMMIT_MS) -> list[Effect]:
        """Plan a commit of these offsets."""
        if not offsets or not self.can_plan:
            return []
        if self._finished >= COMMIT_RECORDS:
            self.is_due = True
            return []
        self._is_planned = True
        return [SetTimer(CommitDue(), now + delay_ms)]

    def fire(self) -> None:
        """Mark the planned commit as due: its timer has fired."""
        self._is_planned = False
        self.is_due |= not self.is_in_flight

    def hurry(self) -> None:
        """Make the next commit as early as possible, because a request waits for it."""
        self.is_due = True

    def commit(self, order: Commit, held_back: Sequence[Record] = ()) -> list[Effect]:
        assert not self.is_in_flight
        self.is_in_flight = True
        self.is_due = False
        self.held_back = held_back
        self._finished = 0
        return [order]

    def answered(self) -> Sequence[Record]:
        """End the commit in flight; return the records that were held back for it."""
        self.is_in_flight = False
        records, self.held_back = self.held_back, ()
        return records
