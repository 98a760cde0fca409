"""The open transactions of a partition, and the batches that belong to aborted ones.

Pure: no file, no clock. Part of the producers' states, and with them a function of the log's batch headers: a
transactional batch opens its producer's transaction, the marker of the same producer and epoch ends it. A producer id
and an epoch name one transaction (KIP-890), and the next may begin before the marker of the last has arrived, so one
producer may have several open.

    offset   10   11   12   13   14
             a1   b7   a1   A!   b7        a1, b7: batches; A!: abort of a1
    open after 14: b7, from 11    the last stable offset is 11    aborted: a1, 10 to 13

The last stable offset is the start of the first transaction that is open, or whose marker is not visible yet. Readers
of committed records stop there; below it they omit the batches of aborted transactions.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from ...transport.batch import BatchHeader, is_commit
from ...transport.protocol.data import AbortedTransaction
from ...transport.protocol.transactions import TransactionId


class Aborted(NamedTuple):
    """An aborted transaction. Sorted by its last offset, the marker's."""

    last_offset: int
    first_offset: int
    producer_id: int
    producer_epoch: int
    stable_offset: int = -1
    """Lower bound of later aborts: the start of the earliest transaction then open (as in Kafka)."""


class _Opened(NamedTuple):
    key: TransactionId


class _Ended(NamedTuple):
    key: TransactionId
    first_offset: int
    marker_offset: int


class TransactionsSnapshot(Struct, frozen=True, array_like=True):
    open: list[tuple[int, int, int]] = []
    """Producer id, epoch and first offset of each open transaction."""
    aborted: list[Aborted] = []


class Transactions:
    def __init__(self) -> None:
        self._open: dict[TransactionId, int] = {}
        self._aborted: list[Aborted] = []
        self._ended: list[_Ended] = []
        """Ended transactions whose markers may not be visible yet."""
        self._undo: list[_Opened | _Ended] = []

    # -- queries

    def is_open(self, producer_id: int, producer_epoch: int) -> bool:
        return (producer_id, producer_epoch) in self._open

    def open(self) -> dict[TransactionId, int]:
        """Return the first offset of each open transaction."""
        return dict(self._open)

    def open_producers(self) -> set[int]:
        return {key.producer_id for key in self._open}

    def first_unstable_offset(self) -> int | None:
        """Return the first offset of the earliest transaction that is open, including undurable decisions."""
        return min(self._open.values()) if self._open else None

    def last_stable_offset(self, high_watermark: int) -> int:
        """Return the end for readers of committed records, when everything below `high_watermark` is visible."""
        if not self._open and not self._ended:
            return high_watermark
        self._ended = [ended for ended in self._ended if ended.marker_offset >= high_watermark]
        unstable = [*self._open.values(), *(ended.first_offset for ended in self._ended)]
        return min(high_watermark, *unstable) if unstable else high_watermark

    def aborted_between(self, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Return the aborted transactions that a reader of these offsets has to omit."""
        return [
            AbortedTransaction(each.producer_id, each.producer_epoch, each.first_offset)
            for each in self._overlapping(start_offset, end_offset)
        ]

    def is_aborted(self, header: BatchHeader) -> bool:
        """Return True if a batch of records belongs to an aborted transaction."""
        key = (header.producer_id, header.producer_epoch)
        overlapping = self._overlapping(header.base_offset, header.next_offset)
        return any((each.producer_id, each.producer_epoch) == key for each in overlapping)

    def _overlapping(self, start_offset: int, end_offset: int) -> Iterator[Aborted]:
        """Return the aborted transactions in a range; looks at few others, which ended while one of these was open."""
        for at in range(bisect_left(self._aborted, (start_offset,)), len(self._aborted)):
            each = self._aborted[at]
            if each.first_offset < end_offset:
                yield each
            if each.stable_offset >= end_offset:
                return

    # -- recording

    def apply(self, header: BatchHeader) -> None:
        """Record a transactional batch or a marker that has its base offset; each once, in order."""
        key = TransactionId(header.producer_id, header.producer_epoch)
        if not header.is_control:
            if key not in self._open:
                self._open[key] = header.base_offset
                self._undo.append(_Opened(key))
            return
        first_offset = self._open.pop(key, None)
        if first_offset is None:
            return
        ended = _Ended(key, first_offset, header.base_offset)
        self._ended.append(ended)
        self._undo.append(ended)
        if not is_commit(header):
            stable_offset = min(self._open.values(), default=header.next_offset)
            insort(self._aborted, Aborted(header.base_offset, first_offset, *key, stable_offset))

    def confirm(self) -> None:
        self._undo.clear()

    def revert(self) -> None:
        """Take back everything applied since the last `confirm`."""
        for change in reversed(self._undo):
            if isinstance(change, _Opened):
                del self._open[change.key]
                continue
            self._open[change.key] = change.first_offset
            self._ended.remove(change)
            at = bisect_left(self._aborted, (change.marker_offset,))
            if at < len(self._aborted) and self._aborted[at].last_offset == change.marker_offset:
                del self._aborted[at]
        self._undo.clear()

    def trim(self, log_start_offset: int) -> None:
        """Forget transactions below the log's start, which are no longer readable."""
        del self._aborted[: bisect_left(self._aborted, (log_start_offset,))]

    # -- snapshots

    def snapshot(self) -> TransactionsSnapshot:
        """Return a snapshot of the confirmed state."""
        confirmed = Transactions()
        confirmed._open, confirmed._aborted = dict(self._open), list(self._aborted)
        confirmed._ended, confirmed._undo = list(self._ended), list(self._undo)
        confirmed.revert()
        return TransactionsSnapshot(list(confirmed._rows()), confirmed._aborted)

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        return ((*key, first_offset) for key, first_offset in self._open.items())

    def load(self, snapshot: TransactionsSnapshot) -> None:
        self._open = {TransactionId(pid, epoch): first for pid, epoch, first in snapshot.open}
        self._aborted = list(snapshot.aborted)
        self._ended.clear()
        self._undo.clear()
