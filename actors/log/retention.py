"""Retention and rolling: the segments that have expired, and the age and size at which a segment is rolled.

Pure decisions over segments' sizes and newest timestamps; `log.py` acts on them.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec

from .dedup_index import DEDUP_WINDOW_COUNT, DEDUP_WINDOW_MS
from .segment import Segment

UNLIMITED = -1


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A topic's settings that concern its logs; -1 means without limit.

    `segment_bytes` and `segment_ms` decide when a new segment is begun; a single append is never divided, so a
    segment may exceed its size by one append. `retention_ms` counts from a segment's newest record (from its last
    append when that record's timestamp lies in the future), `retention_bytes` is the minimum that is kept (whole
    segments are deleted, the active one never for its size). Both count only where `is_deleting`;
    `delete_retention_ms` and the two after it only where `is_compacting` (`compaction.py`). `retain_max_bytes` and
    `retain_max_ms` bound the records retained for groups that have not consumed them. `dedup_window_ms` and
    `dedup_window_count` bound the age and the number of the remembered dedup ids. `keeps_key_versions` never changes.
    Where `has_source_epochs`, the batches are those of another broker with its leader epochs, which are no epochs of
    this log's leaders.
    """

    segment_bytes: int
    segment_ms: int
    retention_ms: int
    retention_bytes: int
    is_deleting: bool
    is_compacting: bool
    delete_retention_ms: int
    min_compaction_lag_ms: int
    min_cleanable_ratio: float
    retain_max_bytes: int = UNLIMITED
    retain_max_ms: int = UNLIMITED
    dedup_window_ms: int = DEDUP_WINDOW_MS
    dedup_window_count: int = DEDUP_WINDOW_COUNT
    keeps_key_versions: bool = False
    has_source_epochs: bool = False


def is_roll_due(config: LogConfig, size_bytes: int, more_bytes: int, age_ms: int) -> bool:
    """Return True if `more_bytes` belong in a new segment. An empty segment is never rolled."""
    if size_bytes == 0:
        return False
    if config.segment_bytes != UNLIMITED and size_bytes + more_bytes > config.segment_bytes:
        return True
    return config.segment_ms != UNLIMITED and age_ms >= config.segment_ms


def expired_count(
    config: LogConfig, segments: Sequence[Segment], now_ms: int, consumed_offset: int | None = None
) -> int:
    """Return how many of the first segments may be deleted. All only when even the newest record of the last is too
    old.

    Records from `consumed_offset` on are still to be read by some group: they stay, unless they are past
    `retain_max_bytes` or `retain_max_ms`. None: no group holds back retention.
    """
    if not config.is_deleting:
        return 0
    count = max(
        _dispensable(segments, config.retention_bytes), _too_old(segments, now_ms, config.retention_ms)
    )
    if consumed_offset is None:
        return count
    left = max(
        _too_many_bytes(segments, config.retain_max_bytes), _too_old(segments, now_ms, config.retain_max_ms)
    )
    return min(count, max(_consumed_count(segments, consumed_offset), left))


def _consumed_count(segments: Sequence[Segment], consumed_offset: int) -> int:
    return sum(1 for _ in takewhile(lambda segment: segment.next_offset <= consumed_offset, segments))


def _dispensable(segments: Sequence[Segment], kept_bytes: int) -> int:
    """Return how many of the first segments can be deleted so that at least `kept_bytes` remain."""
    excess_bytes = _excess_bytes(segments, kept_bytes)
    count = 0
    for segment in segments[:-1]:
        excess_bytes -= segment.size_bytes
        if excess_bytes < 0:
            break
        count += 1
    return count


def _too_many_bytes(segments: Sequence[Segment], max_bytes: int) -> int:
    """Return how many of the first segments must be deleted so that at most `max_bytes` remain; the active one stays."""
    excess_bytes = _excess_bytes(segments, max_bytes)
    count = 0
    for segment in segments[:-1]:
        if excess_bytes <= 0:
            break
        excess_bytes -= segment.size_bytes
        count += 1
    return count


def _excess_bytes(segments: Sequence[Segment], limit_bytes: int) -> int:
    return -1 if limit_bytes == UNLIMITED else sum(segment.size_bytes for segment in segments) - limit_bytes


def _too_old(segments: Sequence[Segment], now_ms: int, max_ms: int) -> int:
    if max_ms == UNLIMITED:
        return 0
    count = 0
    for index, since_ms in _beginnings_of_age(segments, now_ms):
        if since_ms >= now_ms - max_ms:
            break
        count = index + 1
    return count


def _beginnings_of_age(segments: Sequence[Segment], now_ms: int) -> Iterator[tuple[int, int]]:
    """Return the time from which each segment's age counts, by index.

    A segment without a readable batch is omitted, and is deleted together with a later one.
    """
    for index, segment in enumerate(segments):
        since_ms = segment.ages_from_ms(now_ms)
        if since_ms is not None:
            yield index, since_ms
