"""A log line for messages that failed while nothing waited for their deliveries.

A program that publishes and never looks at a Delivery would otherwise lose messages without a sign. Called by the
producer's half on the network thread.
"""

import logging

from .delivery import ProducerBatch

INTERVAL_MS = 1_000
"""Least time between two lines of a producer."""
_log = logging.getLogger(__name__)


class UnawaitedFailures:
    def __init__(self) -> None:
        self._next_ms = 0
        self._unreported = 0

    def note(self, batch: ProducerBatch, error: Exception, now: int) -> None:
        """Count a failed batch, unless a thread, a task or a callback waits for one of its deliveries."""
        if batch.is_awaited:
            return
        self._unreported += batch.record_count
        if now < self._next_ms:
            return
        _log.warning(
            "%d messages failed, and nothing waits for their deliveries; the last ones to %s/%d: %s",
            self._unreported,
            batch.topic,
            batch.partition,
            error,
        )
        self._unreported = 0
        self._next_ms = now + INTERVAL_MS
