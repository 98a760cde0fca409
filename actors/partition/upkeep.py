"""The upkeep of a partition's log: retention, compaction and checkpoints, each by a timer of its own. Pure.

Owns the three timers, the size of the log, and whether anything is left to compact. It decides when, the log decides
how much. Called by the partition's machine.
"""

from ...transport.machine import CancelTimer, SetTimer
from ...transport.protocol.topics import TopicConfig
from .effects import ApplyRetention, Compacted, CompactSlice, Effect, Reconfigure, WriteCheckpoint
from .timers import CheckpointDue, CompactionDue, RetentionDue

CHECKPOINT_INTERVAL_MS = 5_000
COMPACTION_SLICE_BYTES = 128 * 1024
"""About a millisecond's work: the longest delay of a request."""
COMPACTION_PAUSE_MS = 2
"""Pause between two slices, so that compaction takes at most a third of a busy partition's time."""
RETENTION_CHECK_MS = 30_000
RETENTION_CHECK_MIN_MS = 100
COMPACTION_CHECK_MS = 15_000
MIN_SLEEP_MS = 60_000


class Upkeep:
    def __init__(self, config: TopicConfig, size_bytes: int) -> None:
        self._config = config
        self.size_bytes = size_bytes
        self._is_checkpoint_due = False
        self._is_compacted = False
        """True if compaction has run since the last write, and has no more to do."""

    @property
    def is_compacting(self) -> bool:
        return "compact" in self._config.cleanup and not self._is_compacted

    @property
    def longest_sleep_ms(self) -> int | None:
        return longest_sleep_ms(self._config, self.size_bytes)

    def start(self, now: int) -> list[Effect]:
        return [
            SetTimer(RetentionDue(), now + retention_check_ms(self._config)),
            SetTimer(CheckpointDue(), now + CHECKPOINT_INTERVAL_MS),
            self._next_compaction_check(now),
        ]

    def configure(self, config: TopicConfig, now: int) -> list[Effect]:
        self._config = config
        return [
            Reconfigure(config),
            SetTimer(RetentionDue(), now + retention_check_ms(config)),
            self._next_compaction_check(now),
        ]

    def on_appended(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._is_checkpoint_due = True
        self._is_compacted = False

    def retain(self, consumed_offset: int | None, high_watermark: int | None) -> Effect:
        """Delete the segments beyond retention, none beyond the high watermark.

        Some group still has to read the records from `consumed_offset` on.
        """
        return ApplyRetention(consumed_offset if self._config.retain_until_consumed else None, high_watermark)

    def next_retention(self, now: int) -> Effect:
        return SetTimer(RetentionDue(), now + retention_check_ms(self._config))

    def on_checkpoint_timer(self, high_watermark: int | None, now: int) -> list[Effect]:
        again = SetTimer(CheckpointDue(), now + CHECKPOINT_INTERVAL_MS)
        was_due, self._is_checkpoint_due = self._is_checkpoint_due, False
        return [WriteCheckpoint(high_watermark), again] if was_due else [again]

    def on_compaction_timer(self, high_watermark: int | None) -> list[Effect]:
        return [CompactSlice(COMPACTION_SLICE_BYTES, high_watermark)]

    def on_compacted(self, event: Compacted, now: int) -> list[Effect]:
        self.size_bytes = event.size_bytes
        self._is_compacted = not event.is_more
        if event.is_more:
            return [SetTimer(CompactionDue(), now + COMPACTION_PAUSE_MS)]
        return [self._next_compaction_check(now)]

    def _next_compaction_check(self, now: int) -> Effect:
        if "compact" not in self._config.cleanup:
            return CancelTimer(CompactionDue())
        return SetTimer(CompactionDue(), now + compaction_check_ms(self._config))


def retention_check_ms(config: TopicConfig) -> int:
    """Return a period short enough that a short retention or segment age is exceeded by at most half."""
    ages_ms = [age for age in (config.retention_ms, config.segment_ms) if age >= 0]
    return max(RETENTION_CHECK_MIN_MS, min([RETENTION_CHECK_MS, *(age // 2 for age in ages_ms)]))


def compaction_check_ms(config: TopicConfig) -> int:
    ages_ms = (config.segment_ms, config.delete_retention_ms)
    return max(RETENTION_CHECK_MIN_MS, min(COMPACTION_CHECK_MS, *(age // 2 for age in ages_ms)))


def longest_sleep_ms(config: TopicConfig, size_bytes: int) -> int | None:
    """Return how long a partition may sleep before it has to check its log; None if nothing in it ages."""
    ages_ms = [config.segment_ms] if config.retention_ms >= 0 or "compact" in config.cleanup else []
    if "delete" in config.cleanup:
        ages_ms.append(config.retention_ms)
    if "compact" in config.cleanup:
        ages_ms.append(config.delete_retention_ms)
    if config.retain_until_consumed:
        ages_ms.append(config.retain_max_ms)
    halves_ms = [age // 2 for age in ages_ms if age >= 0]
    return max(MIN_SLEEP_MS, min(halves_ms)) if size_bytes and halves_ms else None
