"""Lost deliveries of a partition's records: how often a connection was lost while its member held them. Pure.

A lost delivery is no failure, because usually the member did not die of the record. But a record that kills its member
would be delivered without end, so a record is dead once as many of its deliveries are lost as may fail. Recorded with the
progress of the partition (`records.py`). Called by partition.py.
"""

from typing import NamedTuple

from .runs import runs_in
from .spans import Span

MAX_NOTED = 10_000
"""Records whose lost deliveries are counted; of further ones the deliveries count as failed."""

LossRun = tuple[int, int, int]
"""First offset, records, lost deliveries of each."""


class Loss(NamedTuple):
    """The loss of a member."""

    limit: int
    """Deliveries of a record that may be lost, or fail."""
    is_charged: bool
    """True if its deliveries count as failed."""


class Losses:
    def __init__(self, runs: list[LossRun]) -> None:
        self._counts = {
            offset: count for first, number, count in runs for offset in range(first, first + number)
        }

    def lost(self, span: Span) -> list[tuple[Span, int]]:
        """Count the loss of a delivery; return the parts of the span, each with its number of losses.

        It is 0 for records that there is no room to count."""
        counts: dict[int, list[int]] = {}
        for offset in range(span.first, span.end):
            count = self._counts.get(offset, 0)
            if count or len(self._counts) < MAX_NOTED:
                count = self._counts[offset] = count + 1
            counts.setdefault(count, []).append(offset)
        return [
            (span.cut(first, end), count)
            for count, offsets in counts.items()
            for first, end in runs_in(offsets)
        ]

    def has(self, span: Span) -> bool:
        """Return True if a delivery of one of the records was lost."""
        return bool(self._counts) and any(at in self._counts for at in range(span.first, span.end))

    def ended(self, first: int, end: int) -> None:
        """Forget the records that are done or dead."""
        if not self._counts:
            return
        gone = range(first, end) if end - first < len(self._counts) else list(self._counts)
        for offset in gone:
            if first <= offset < end:
                self._counts.pop(offset, None)

    @property
    def runs(self) -> list[LossRun]:
        if not self._counts:
            return []
        by_count: dict[int, list[int]] = {}
        for offset in sorted(self._counts):
            by_count.setdefault(self._counts[offset], []).append(offset)
        return sorted(
            (first, end - first, count)
            for count, offsets in by_count.items()
            for first, end in runs_in(offsets)
        )
