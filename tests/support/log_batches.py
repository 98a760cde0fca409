"""Stamped batches to append to a log, and a log's contents as a list."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from planaria.actors.log import segment as segments
from planaria.actors.log.errors import CorruptLog
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.retention import UNLIMITED, LogConfig
from planaria.transport.batch import BatchHeader, build, decode_records, parse_header, split, stamp

NOW_MS = 1_700_000_000_000
BIG = 2**62


def batch(
    base_offset: int,
    values: Sequence[bytes],
    *,
    epoch: int = 0,
    timestamps_ms: Sequence[int] | None = None,
    **fields: Any,
) -> tuple[bytes, BatchHeader]:
    times = list(timestamps_ms or [NOW_MS] * len(values))
    frame = build(
        [(None, value, time - times[0], None) for value, time in zip(values, times, strict=True)],
        first_timestamp_ms=times[0],
        max_timestamp_ms=max(times),
        **fields,
    )
    stamped = bytes(stamp(frame, base_offset, epoch))
    return stamped, parse_header(stamped)


def append(log: PartitionLog, values: Sequence[bytes], now_ms: int = NOW_MS, **fields: Any) -> BatchHeader:
    """Append one batch of these values at the log's end."""
    frame, header = batch(log.log_end_offset, values, **fields)
    log.append([frame], [header], now_ms)
    return header


def make_room_early(patch: pytest.MonkeyPatch, room_bytes: int) -> None:
    """Make segments preallocate this much from their first append on."""
    patch.setattr(segments, "SMALL_APPENDS_BEFORE_ROOM", 0)
    patch.setattr(segments, "_ZEROS", bytes(room_bytes))


def unlimited(**limits: float) -> LogConfig:
    """Return a configuration with only these limits."""
    return LogConfig(
        **{
            "segment_bytes": UNLIMITED,
            "segment_ms": UNLIMITED,
            "retention_ms": UNLIMITED,
            "retention_bytes": UNLIMITED,
            "is_deleting": True,
            "is_compacting": False,
            "delete_retention_ms": 24 * 3600 * 1000,
            "min_compaction_lag_ms": 0,
            "min_cleanable_ratio": 0.5,
        }
        | limits
    )


def open_log(path: Path, files: Files | None = None, now_ms: int = NOW_MS, **config: int) -> PartitionLog:
    """Open the log as its only replica does, which leads in the next epoch."""
    log = PartitionLog.open(path, unlimited(**config), now_ms, files)
    log.lead(log.highest_leader_epoch + 1)
    return log


def abandon(log: PartitionLog) -> None:
    """Simulate SIGKILL: descriptors are closed, nothing else happens."""
    log.close(clean=False)


def contents(
    log: PartitionLog, offset: int | None = None, max_bytes: int = 1 << 20
) -> list[tuple[int, bytes]]:
    """Return (offset, value) of all readable records, skipping damage."""
    found: list[tuple[int, bytes]] = []
    offset = log.log_start_offset if offset is None else offset
    while offset < log.log_end_offset:
        try:
            run, _ = log.read(offset, max_bytes, log.log_end_offset)
        except CorruptLog as damage:
            offset = max(offset + 1, damage.next_offset)
            continue
        assert run
        for header, frame in split(run):
            for index, (_, value, _, _) in enumerate(decode_records(frame, header)):
                if header.base_offset + index >= offset:
                    found.append((header.base_offset + index, value or b""))
            offset = header.next_offset
    return found


def segment(directory: Path, base_offset: int = 0) -> Path:
    return directory / f"{base_offset:020d}.log"


def flip(path: Path, position: int, mask: int = 1) -> None:
    """Flip bits of one byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(bytes(data))


def last_batch_position(data: bytes) -> int:
    return len(data) - split(data)[-1][0].size_bytes


UNCLEAN = [(0, b"first"), (1, b"first"), (2, b"second"), (3, b"second"), (4, b"third"), (5, b"third")]
"""Contents of the log of the fixture `unclean`."""
