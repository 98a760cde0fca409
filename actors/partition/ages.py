"""The intervals at which a partition checks its log for expired segments and records. Pure. Called by machine.py."""

from ...transport.protocol.topics import TopicConfig

RETENTION_CHECK_MS = 30_000
RETENTION_CHECK_MIN_MS = 100
COMPACTION_CHECK_MS = 15_000
MIN_SLEEP_MS = 60_000


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
