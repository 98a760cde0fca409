"""A log line for failed messages whose deliveries are not waited for.

A program that publishes and never looks at a Delivery would otherwise lose messages without a sign. Called by the
producer's half on the network thread.

A message may fail before its publisher had the time to wait: between `publish` and `result` its thread may be kept from
running. So a failed batch is judged between one and two periods after its failure, or when its producer closes.
"""

import logging
from typing import Final

from ..machine import Effect, SetTimer
from .producer_batch import ProducerBatch

PERIOD_MS = 1_000
"""Time between two judgements, and so the least between two lines of a producer."""
MAX_HELD = 100
"""Most failed batches that wait for their judgement. When there are more, the older ones are judged early."""
JUDGE: Final = "unawaited failures"
"""The key of the timer that `judge` waits for."""
_log = logging.getLogger(__name__)

_Failed = list[tuple[ProducerBatch, Exception]]


class UnawaitedFailures:
    def __init__(self) -> None:
        self._is_timed = False
        self._new: _Failed = []
        self._old: _Failed = []
        self._unreported = 0
        self._last: tuple[ProducerBatch, Exception] | None = None

    def note(self, batch: ProducerBatch, error: Exception, now: int) -> list[Effect]:
        """Take a failed batch, unless a thread, a task or a callback waits for one of its deliveries already."""
        if batch.is_awaited:
            return []
        if len(self._new) == MAX_HELD:
            self._age()
        self._new.append((batch, error))
        if self._is_timed:
            return []
        self._is_timed = True
        return [SetTimer(JUDGE, now + PERIOD_MS)]

    def judge(self, now: int) -> list[Effect]:
        """Report the failures of more than a period ago for which nothing waits."""
        self._age()
        self._report()
        self._is_timed = bool(self._old)
        return [SetTimer(JUDGE, now + PERIOD_MS)] if self._is_timed else []

    def close(self) -> None:
        """Report all failures for which nothing waits."""
        self._age()
        self._age()
        self._report()

    def _age(self) -> None:
        for batch, error in self._old:
            if not batch.is_awaited:
                self._unreported += batch.record_count
                self._last = (batch, error)
        self._old, self._new = self._new, []

    def _report(self) -> None:
        if self._last is None:
            return
        batch, error = self._last
        _log.warning(
            "%d messages failed, and the program did not check their deliveries; the last ones to %s/%d: %s",
            self._unreported,
            batch.topic,
            batch.partition,
            error,
        )
        self._unreported = 0
        self._last = None
