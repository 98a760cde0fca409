"""What a share group keeps in `__offsets`: its settings, and how far it is in each partition. Pure.

Owns the two values and their limits. The keys, and how they are encoded, are the coordinator's
(`coordinator/records.py`); what a partition's runs mean is partition.py's.

    settings  = {lock_ms, max_deliveries, dead_letter, start}
    progress  = {topic_id, start, runs: [[records, state, deliveries, until], ...], reasons: {offset: text}, written_ms,
                 leader_epoch}

One progress record says all of a partition, and the newest holds. Who holds a lock is not in it: a coordinator that comes
back finds what was acquired available, with its delivery counted.
"""

from typing import Literal

from msgspec import Struct, structs

from ....transport.protocol.shares import ConfigureShareGroupReply
from .spans import Span, Spans, State

DEFAULT_LOCK_MS = 30_000
DEFAULT_MAX_DELIVERIES = 5

Run = tuple[int, int, int, int]


class ShareSettings(Struct, frozen=True):
    """That there are some is what makes a group a share group."""

    lock_ms: int = DEFAULT_LOCK_MS
    max_deliveries: int = DEFAULT_MAX_DELIVERIES
    dead_letter: str | None = None
    start: Literal["earliest", "latest"] = "earliest"

    @property
    def reply(self) -> ConfigureShareGroupReply:
        return ConfigureShareGroupReply(
            lock_ms=self.lock_ms,
            max_deliveries=self.max_deliveries,
            dead_letter=self.dead_letter,
            start=self.start,
        )


class ShareProgress(Struct, frozen=True):
    topic_id: str
    start: int
    runs: list[Run] = []
    reasons: dict[int, str] = {}
    """Why records are dead, where somebody said so."""
    written_ms: int = 0
    """By the clock that every `until` is of."""
    leader_epoch: int | None = None
    """Of the partition's start that all these records were known from."""


def by_this_clock(progress: ShareProgress, now: int) -> ShareProgress:
    """With each delay bounded by what was left of it when it was written.

    The clock of an earlier process may have been hours ahead of this one's, if the machine has booted since.
    """
    left = [(run, run[3] - progress.written_ms) for run in progress.runs]
    runs = [(*run[:3], min(run[3], now + left_ms)) if left_ms > 0 else run for run, left_ms in left]
    return structs.replace(progress, runs=runs, written_ms=now)


def runs_of(spans: Spans) -> list[Run]:
    """As they are kept: what is acquired counts as available."""
    runs: list[Run] = []
    for span in spans:
        is_acquired = span.state == State.ACQUIRED
        state = State.AVAILABLE if is_acquired else span.state
        kept = (int(state), span.deliveries, 0 if is_acquired else span.until)
        if runs and runs[-1][1:] == kept:
            runs[-1] = (runs[-1][0] + span.count, *kept)
        else:
            runs.append((span.count, *kept))
    return runs


def spans_of(progress: ShareProgress) -> Spans:
    spans = Spans(progress.start)
    for count, state, deliveries, until in progress.runs:
        spans.append(Span(spans.end, spans.end + count, State(state), deliveries, until))
    return spans
