"""The part of a topic's configuration that its logs need."""

from ...transport.protocol.topics import TopicConfig
from ..log.retention import LogConfig


def log_config(config: TopicConfig, *, is_mirrored: bool = False) -> LogConfig:
    """Return the part of a topic's configuration that its logs need. The batches of a mirrored one are its source's."""
    return LogConfig(
        segment_bytes=config.segment_bytes,
        segment_ms=config.segment_ms,
        retention_ms=config.retention_ms,
        retention_bytes=config.retention_bytes,
        is_deleting="delete" in config.cleanup,
        is_compacting="compact" in config.cleanup,
        delete_retention_ms=config.delete_retention_ms,
        min_compaction_lag_ms=config.min_compaction_lag_ms,
        min_cleanable_ratio=config.min_cleanable_ratio,
        retain_max_bytes=config.retain_max_bytes,
        retain_max_ms=config.retain_max_ms,
        dedup_window_ms=config.dedup_window_ms,
        dedup_window_count=config.dedup_window_count,
        keeps_key_versions=config.key_versions,
        has_source_epochs=is_mirrored,
    )
