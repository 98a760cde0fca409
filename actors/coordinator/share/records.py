"""A share group's records in `__offsets`: its settings, and its progress in each partition. Pure.

Owns the two values and their limits. Their keys and encoding are the coordinator's (`coordinator/records.py`);
partition.py defines the meaning of the runs.

    settings  = {lock_ms, max_deliveries, dead_letter, start, fair, max_in_flight_per_key, rate_per_key, weights,
                 coalesce, max_wait_ms, expired}
    progress  = {topic_id, start, runs: [[records, state, deliveries, until], ...], reasons: {offset: text}, written_ms,
                 leader_epoch, losses: [[first, records, losses], ...]}

One progress record holds the whole state of a partition, and the newest counts. Lock holders are not in it: a restarted
coordinator finds acquired records available, with their deliveries counted.
"""

from typing import Literal

from msgspec import Struct, structs

from ....transport.protocol.shares import Coalesce, ConfigureShareGroupReply, Expired
from .fair_queue import KeyRules
from .losses import LossRun
from .spans import Span, Spans, State

DEFAULT_LOCK_MS = 30_000
DEFAULT_MAX_DELIVERIES = 5

Run = tuple[int, int, int, int]


class ShareSettings(Struct, frozen=True):
    """Settings of a share group; a group that has them is a share group."""

    lock_ms: int = DEFAULT_LOCK_MS
    max_deliveries: int = DEFAULT_MAX_DELIVERIES
    dead_letter: str | None = None
    start: Literal["earliest", "latest"] = "earliest"
    fair: bool = False
    max_in_flight_per_key: int = 0
    rate_per_key: float = 0
    weights: dict[str, int] = {}
    coalesce: Coalesce = "none"
    max_wait_ms: int = 0
    expired: Expired = "deliver"

    @property
    def rules(self) -> KeyRules | None:
        """The limits by key; None if the group does not look at keys."""
        is_looking = self.fair or self.max_in_flight_per_key or self.rate_per_key or self.weights
        if not is_looking and self.coalesce == "none" and self.expired == "deliver":
            return None
        return KeyRules(
            max_in_flight=self.max_in_flight_per_key,
            rate=self.rate_per_key,
            weights=self.weights,
            is_coalescing=self.coalesce == "latest",
            max_wait_ms=self.max_wait_ms,
        )

    @property
    def reply(self) -> ConfigureShareGroupReply:
        return ConfigureShareGroupReply(
            lock_ms=self.lock_ms,
            max_deliveries=self.max_deliveries,
            dead_letter=self.dead_letter,
            start=self.start,
            fair=self.fair,
            max_in_flight_per_key=self.max_in_flight_per_key,
            rate_per_key=self.rate_per_key,
            weights=self.weights,
            coalesce=self.coalesce,
            max_wait_ms=self.max_wait_ms,
            expired=self.expired,
        )


class ShareProgress(Struct, frozen=True):
    topic_id: str
    start: int
    runs: list[Run] = []
    reasons: dict[int, str] = {}
    """Reasons of dead records, where given."""
    written_ms: int = 0
    """Time of writing, on the same clock as every `until`."""
    leader_epoch: int | None = None
    """Leader epoch of the partition from which all these records were known."""
    losses: list[LossRun] = []
    """Lost deliveries of records that are not done (`losses.py`)."""


def by_this_clock(progress: ShareProgress, now: int) -> ShareProgress:
    """Return the progress with each delay bounded by its remaining time when it was written.

    The clock of an earlier process may have been hours ahead of this one's, if the machine has booted since.
    """
    remaining = [(run, run[3] - progress.written_ms) for run in progress.runs]
    runs = [
        (*run[:3], min(run[3], now + remaining_ms)) if remaining_ms > 0 else run
        for run, remaining_ms in remaining
    ]
    return structs.replace(progress, runs=runs, written_ms=now)


def runs_of(spans: Spans) -> list[Run]:
    """Return the runs in their stored form: acquired records count as available."""
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
