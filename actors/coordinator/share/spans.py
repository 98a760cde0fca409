"""The offsets of a share group's partition: contiguous runs of equal state, in order. Pure.

Owns the runs and their order, not members' requests or time. A run stands for any number of records, so that a thousand
records acquired and accepted at once cost as much as one. Called by partition.py.

    [start ... end)     offsets delivered at least once; all below `start` are done
    available   may be delivered, from `until` on           acquired    `member` has it, until `until`
    done        accepted, or its dead letter is written     dead        its dead letter is to be written, or it is parked
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from enum import IntEnum
from operator import attrgetter

from msgspec import Struct


class State(IntEnum):
    AVAILABLE = 0
    ACQUIRED = 1
    DONE = 2
    DEAD = 3


class Span(Struct, frozen=True):
    first: int
    end: int
    """Offset after the last one."""
    state: State
    deliveries: int = 0
    until: int = 0
    member: str = ""
    since: int = 0
    """Time at which the member acquired it."""

    @property
    def count(self) -> int:
        return self.end - self.first

    def cut(self, first: int, end: int) -> "Span":
        return Span(first, end, self.state, self.deliveries, self.until, self.member, self.since)

    def continues(self, before: "Span") -> bool:
        return (
            self.state == before.state
            and self.deliveries == before.deliveries
            and self.until == before.until
            and self.member == before.member
            and self.since == before.since
        )


_first = attrgetter("first")


class Spans:
    def __init__(self, start: int) -> None:
        self.start = start
        self._spans: list[Span] = []
        self.watcher: Callable[[Span], None] | None = None
        """Called for each state that is put."""

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def end(self) -> int:
        """Return the first offset that was never delivered."""
        return self._spans[-1].end if self._spans else self.start

    def append(self, span: Span) -> None:
        assert span.first == self.end, "runs are contiguous"
        if self._spans and span.continues(self._spans[-1]):
            self._spans[-1] = self._spans[-1].cut(self._spans[-1].first, span.end)
        else:
            self._spans.append(span)

    def within(self, first: int, end: int) -> list[Span]:
        """Return the runs of [first, end), cut to it; fewer where offsets were never delivered."""
        found: list[Span] = []
        for span in self._spans[max(0, bisect_right(self._spans, first, key=_first) - 1) :]:
            if span.first >= end:
                break
            if span.end > first:
                found.append(span.cut(max(first, span.first), min(end, span.end)))
        return found

    def put(self, span: Span) -> None:
        """Replace the state of these offsets, which have been delivered."""
        low = max(0, bisect_right(self._spans, span.first, key=_first) - 1)
        high = bisect_right(self._spans, span.end - 1, key=_first)
        before = self._spans[low]
        if before.first == span.first and before.end == span.end and not self._merges(span, low):
            self._spans[low] = span
        else:
            self._replace(span, low, high)
        self._drop_done()
        if self.watcher is not None:
            self.watcher(span)

    def _merges(self, span: Span, at: int) -> bool:
        """Return True if a run in the place of another one would continue a neighbour of it, or be continued."""
        spans = self._spans
        return (at > 0 and span.continues(spans[at - 1])) or (
            at + 1 < len(spans) and spans[at + 1].continues(span)
        )

    def _replace(self, span: Span, low: int, high: int) -> None:
        """Put a run in the place of parts of the runs from `low` to `high`, and merge it with equal neighbours."""
        before, after = self._spans[low], self._spans[high - 1]
        pieces = [before.cut(before.first, span.first), span, after.cut(span.end, after.end)]
        # The neighbours on both sides may merge with the new run.
        low, high = max(0, low - 1), min(len(self._spans), high + 1)
        edge_before = [self._spans[low]] if self._spans[low].end <= before.first else []
        edge_after = [self._spans[high - 1]] if self._spans[high - 1].first >= after.end else []
        joined: list[Span] = []
        for piece in [*edge_before, *(piece for piece in pieces if piece.count), *edge_after]:
            if joined and piece.continues(joined[-1]):
                joined[-1] = joined[-1].cut(joined[-1].first, piece.end)
            else:
                joined.append(piece)
        self._spans[low:high] = joined

    def skip_to(self, start: int) -> None:
        """Mark all offsets below `start` as done."""
        while self._spans and self._spans[0].end <= start:
            del self._spans[0]
        if self._spans and self._spans[0].first < start:
            self._spans[0] = self._spans[0].cut(start, self._spans[0].end)
        self.start = max(self.start, start)
        self._drop_done()

    def cut_at(self, end: int) -> None:
        """Mark the offsets from `end` on as never delivered."""
        while self._spans and self._spans[-1].first >= end:
            self._spans.pop()
        if self._spans and self._spans[-1].end > end:
            self._spans[-1] = self._spans[-1].cut(self._spans[-1].first, end)
        self.start = min(self.start, end)

    def _drop_done(self) -> None:
        while self._spans and self._spans[0].state == State.DONE:
            self.start = self._spans.pop(0).end
