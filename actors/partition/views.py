"""The part of the log that each kind of reader may see: one view for each kind, with the fetches that wait for more.

    kind               ends at                 wakes by
    read_uncommitted   the high watermark      bytes below the high watermark
    read_committed     the last stable offset  bytes below it, as far as they are known
    replica            the end of the log      any batch that is written

The kind is chosen here, by `Views.of`, and nowhere else; everything that depends on it is received of the view. Owns the
parked fetches. Pure; called by `fetches.py` and `offset_queries.py`.
"""

from ...transport.machine import Received
from ...transport.protocol.data import AbortedTransaction, Isolation
from ..log.transactions import Transactions
from .parked import MAX_PARKED_FETCHES, ParkedFetches
from .replication import Watermarks


class View:
    """The log as one kind of reader sees it."""

    hides_aborted = False
    """True if records of aborted transactions are not delivered."""

    def __init__(self, watermarks: Watermarks, limit: int) -> None:
        self.parked = ParkedFetches(limit)
        self.visible_bytes = 0
        """Total bytes that have become visible to these readers, the count by which parked fetches wake."""
        self._watermarks = watermarks

    @property
    def end_offset(self) -> int:
        """Return the offset at which reads end."""
        raise NotImplementedError

    @property
    def known_offset(self) -> int:
        """Return the highest offset that is not out of range: a fetch between the end and this one waits."""
        return self._watermarks.known_offset

    def advance(self, visible_bytes: int) -> list[Received]:
        """Note that the high watermark has moved to `visible_bytes` in total; take out the fetches to be answered."""
        raise NotImplementedError

    def aborted_between(self, offset: int, next_offset: int) -> list[AbortedTransaction]:
        """Return the aborted transactions whose records a reader of this range has to skip."""
        return []


class UncommittedView(View):
    @property
    def end_offset(self) -> int:
        return self._watermarks.high_watermark

    def advance(self, visible_bytes: int) -> list[Received]:
        self.visible_bytes = visible_bytes
        return self.parked.wake(visible_bytes)


class CommittedView(View):
    hides_aborted = True

    def __init__(self, watermarks: Watermarks, limit: int, transactions: Transactions) -> None:
        super().__init__(watermarks, limit)
        self._transactions = transactions
        self._stable_offset = self.end_offset

    @property
    def end_offset(self) -> int:
        """Return the last stable offset."""
        stable_offset = self._transactions.last_stable_offset(self._watermarks.high_watermark)
        # Retention may have deleted the beginning of an open transaction: readers still start at the log's start.
        return max(stable_offset, self._watermarks.log_start_offset)

    def advance(self, visible_bytes: int) -> list[Received]:
        before, self._stable_offset = self._stable_offset, self.end_offset
        if self._stable_offset == self._watermarks.high_watermark:
            self.visible_bytes = visible_bytes
            return self.parked.wake(visible_bytes)
        # Below an open transaction the number of visible bytes is unknown: all are read.
        return self.parked.drain() if self._stable_offset > before else []

    def aborted_between(self, offset: int, next_offset: int) -> list[AbortedTransaction]:
        return self._transactions.aborted_between(offset, next_offset)


class ReplicaView(View):
    """A follower reads everything that the leader has written, so that both disks sync at once."""

    @property
    def end_offset(self) -> int:
        return self._watermarks.written_offset

    def advance(self, visible_bytes: int) -> list[Received]:
        return self.parked.drain()


class Views:
    """The views of the clients of one partition."""

    def __init__(
        self, watermarks: Watermarks, transactions: Transactions, limit: int = MAX_PARKED_FETCHES
    ) -> None:
        """Start without fetches. At most `limit` are parked in each view."""
        self.uncommitted = UncommittedView(watermarks, limit)
        self.committed = CommittedView(watermarks, limit, transactions)
        self.all: tuple[View, ...] = (self.uncommitted, self.committed)
        self._by_isolation: dict[Isolation, View] = {
            "read_uncommitted": self.uncommitted,
            "read_committed": self.committed,
        }

    def of(self, isolation: Isolation) -> View:
        return self._by_isolation[isolation]
