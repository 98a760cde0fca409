"""The plan of a pass of compaction: which segments may be rewritten, whether that is due, and which are merged.

Decides and changes nothing. Only sealed segments below the older of the two producer snapshots, and below the first
open transaction, may be rewritten: so no producer state and no dedup id is read from compacted segments. Called by
`compaction.py`.
"""

from collections.abc import Callable, Container, Sequence
from pathlib import Path

from .cleaned import Cleaned
from .files import Files
from .retention import LogConfig
from .segment import Segment
from .snapshots import SNAPSHOTS_KEPT, snapshot_offsets

GROUP_SEGMENTS = 32
"""Segments merged at once: one slice deletes them all."""


def cleanable(
    segments: Sequence[Segment],
    config: LogConfig,
    safe_offset: int,
    is_dirty: Callable[[Segment], bool],
    wall_ms: int,
) -> list[Segment]:
    """Return the first segments of a log, up to the first that lies above `safe_offset` or is too young."""
    found: list[Segment] = []
    for segment in segments[:-1]:
        if segment.next_offset > safe_offset:
            break
        if config.min_compaction_lag_ms > 0 and is_dirty(segment):
            newest_ms = segment.max_timestamp_ms
            if newest_ms is not None and newest_ms > wall_ms - config.min_compaction_lag_ms:
                break
        found.append(segment)
    return found


def safe_offset(directory: Path, files: Files, unstable_offset: int | None) -> int:
    """Return the offset below which segments may be rewritten. `unstable_offset` begins the first open transaction."""
    snapshots = snapshot_offsets(directory, files)
    offset = snapshots[0] if len(snapshots) >= SNAPSHOTS_KEPT else 0
    return offset if unstable_offset is None else min(offset, unstable_offset)


def is_due(
    segments: Sequence[Segment],
    config: LogConfig,
    cleaned: Cleaned,
    is_dirty: Callable[[Segment], bool],
    is_unfinished: bool,
    now_ms: int,
) -> bool:
    """Return True if enough of the segments is dirty, or the oldest tombstone may go.

    `is_unfinished` means that the last pass left dirty segments for the next one, whatever their share.
    """
    dirty_bytes = sum(segment.size_bytes for segment in segments if is_dirty(segment))
    all_bytes = sum(segment.size_bytes for segment in segments)
    least_bytes = 0 if is_unfinished else config.min_cleanable_ratio * all_bytes
    since_ms = cleaned.tombstones_since_ms
    is_expired = since_ms >= 0 and since_ms + config.delete_retention_ms <= now_ms
    return is_expired or (dirty_bytes > 0 and dirty_bytes >= least_bytes)


def groups(
    segments: Sequence[Segment], end_offset: int, excluded: Container[int], segment_bytes: int
) -> list[list[Segment]]:
    """Return groups of neighbouring segments below `end_offset` that fit into one.

    `excluded` has the base offsets of segments that are left unchanged.
    """
    found: list[list[Segment]] = []
    size_bytes = 0
    is_open = False
    for segment in segments:
        if segment.base_offset >= end_offset:
            break
        if segment.base_offset in excluded:
            is_open = False
            continue
        fits = size_bytes + segment.size_bytes <= segment_bytes
        if not is_open or not fits or len(found[-1]) >= GROUP_SEGMENTS:
            found.append([])
            size_bytes, is_open = 0, True
        found[-1].append(segment)
        size_bytes += segment.size_bytes
    return found
