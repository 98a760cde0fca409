"""Failed deliveries of a partition's records: the time of the first, and the reason of the last. Pure.

Owns notes for operators, and the lost deliveries (losses.py); a record's run (spans.py) holds its deliveries and the time
of its next one. Notes are not recorded: after a restart of the coordinator a record's failures are counted, but their
reasons are unknown. Called by partition.py.
"""

from collections.abc import Iterator

from msgspec import Struct

from ....transport.protocol.operations import RETRY_ALARM_MS, retry_alarm, shown_reason
from ....transport.protocol.shares import MAX_RETRYING_RANGES, RetryingRange
from .losses import Losses
from .spans import Span, Spans, State

MAX_NOTES = 1_000
"""Most notes of a partition; the reasons of further failing records are not kept."""


class Note(Struct, frozen=True):
    first_failed_ms: int
    reason: str


class Retries:
    def __init__(self, losses: Losses) -> None:
        self.losses = losses
        self._notes: dict[int, Note] = {}
        """Notes by offset, in the order of their first failures."""
        self.failed_count = 0
        """Failed deliveries after which another one follows, since the coordinator's start."""

    @property
    def has_notes(self) -> bool:
        return bool(self._notes)

    def failed(self, span: Span, reason: str, now: int) -> None:
        self.failed_count += span.count
        text = shown_reason(reason)
        for offset in range(span.first, span.end):
            before = self._notes.get(offset)
            if before is not None:
                self._notes[offset] = Note(before.first_failed_ms, text)
            elif len(self._notes) < MAX_NOTES:
                self._notes[offset] = Note(now, text)
            else:
                return

    def ended(self, first: int, end: int) -> None:
        """Remove the notes and the losses of records that are done or dead."""
        self.losses.ended(first, end)
        if not self._notes:
            return
        gone = range(first, end) if end - first < len(self._notes) else list(self._notes)
        for offset in gone:
            if first <= offset < end:
                self._notes.pop(offset, None)

    def next_alarm(self, now: int) -> int | None:
        """Return the time at which another record will have been failing for too long."""
        if not self._notes:
            return None
        times = (note.first_failed_ms + RETRY_ALARM_MS for note in self._notes.values())
        return next((at for at in times if at > now), None)

    def alarm(self, tp: str, spans: Spans, now: int) -> str | None:
        """Return one line for all records that have been failing for too long, with the first of them."""
        late: list[int] = []
        for offset, note in self._notes.items():
            if note.first_failed_ms + RETRY_ALARM_MS > now:
                break
            late.append(offset)
        if not late:
            return None
        [span] = spans.within(late[0], late[0] + 1)
        where = f"{tp} offset {late[0]}" + (f" (and {len(late) - 1} more)" if len(late) > 1 else "")
        return retry_alarm(where, RETRY_ALARM_MS, span.deliveries, self._notes[late[0]].reason)

    def ranges(self, spans: Spans, ahead_ms: int) -> list[RetryingRange]:
        """Return up to MAX_RETRYING_RANGES ranges of records waiting for their next delivery, by offset.

        Their times are on a clock that is `ahead_ms` ahead of this one.
        """
        found: list[RetryingRange] = []
        for span in spans:
            if span.state != State.AVAILABLE or not span.deliveries:
                continue
            for part in self._alike(span):
                if len(found) == MAX_RETRYING_RANGES:
                    return found
                note = self._notes.get(part.first)
                found.append(
                    RetryingRange(
                        first_offset=part.first,
                        last_offset=part.end - 1,
                        delivery_count=part.deliveries,
                        reason=note.reason if note is not None else None,
                        first_failed_ms=note.first_failed_ms + ahead_ms if note is not None else None,
                        next_try_ms=part.until and part.until + ahead_ms,
                    )
                )
        return found

    def _alike(self, span: Span) -> Iterator[Span]:
        """Return the parts of the run that have the same note."""
        noted = sorted(at for at in self._notes if span.first <= at < span.end)
        edges = sorted({span.first, span.end, *noted, *(at + 1 for at in noted)})
        first = span.first
        for edge in edges[1:]:
            if edge == span.end or self._notes.get(edge) != self._notes.get(first):
                yield span.cut(first, edge)
                first = edge
