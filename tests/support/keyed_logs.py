"""Logs of keyed records, compacted: the written records, and the remaining ones according to a dictionary."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from log_batches import NOW_MS, unlimited
from planaria.actors.log.files import Files
from planaria.actors.log.log import PartitionLog
from planaria.actors.log.retention import LogConfig
from planaria.transport.batch import build, decode_records, parse_header, split, stamp

Written = dict[int, tuple[bytes | None, bytes | None]]
"""Key and value by offset."""
TIMEOUT_SLICES = 100_000


def append_keyed(
    log: PartitionLog,
    records: Sequence[tuple[bytes | None, bytes | None]],
    now_ms: int = NOW_MS,
    **fields: Any,
) -> Written:
    """Append one batch; return its records by offset."""
    base_offset = log.log_end_offset
    frame = build(
        [(key, value, 0, None) for key, value in records],
        first_timestamp_ms=now_ms,
        max_timestamp_ms=now_ms,
        **fields,
    )
    stamped = bytes(stamp(frame, base_offset, max(0, log.last_leader_epoch)))
    log.append([stamped], [parse_header(stamped)], now_ms)
    return dict(enumerate(records, base_offset))


def seal(log: PartitionLog, now_ms: int = NOW_MS) -> Written:
    """Make all records so far eligible for compaction: in sealed segments, below two snapshots of the producers."""
    written = {}
    for name in (b"seal-1", b"seal-2"):
        log.sync()
        if log._active.size_bytes:
            log._roll()
        written |= append_keyed(log, [(name, b"")], now_ms)
        log.checkpoint()
    return written


def compact(log: PartitionLog, now_ms: int = NOW_MS, budget_bytes: int = 1 << 20) -> int:
    """Compact until nothing is due; return the number of slices."""
    for count in range(TIMEOUT_SLICES):
        if not log.compact(now_ms, budget_bytes):
            return count
    raise AssertionError("compaction does not end")


def held(log: PartitionLog, offset: int | None = None, max_bytes: int = 1 << 20) -> Written:
    """Return the records a consumer gets that reads from `offset` on. Every read must make progress."""
    found: Written = {}
    offset = log.log_start_offset if offset is None else offset
    while offset < log.log_end_offset:
        before = offset
        run, offset = log.read(offset, max_bytes, log.log_end_offset)
        for header, frame in split(run):
            for at, (key, value, _, _) in enumerate(decode_records(frame, header), header.base_offset):
                if at >= before:
                    assert at not in found
                    found[at] = (key, value)
        assert offset > before, f"stuck at {before}"
    return found


def newest(written: Written, from_offset: int = 0, sealed_below: int | None = None) -> Written:
    """Return the records that must remain: below `sealed_below` the newest of each key, and all without a key."""
    sealed_below = max(written, default=-1) + 1 if sealed_below is None else sealed_below
    last = {key: offset for offset, (key, _) in sorted(written.items()) if offset < sealed_below}
    return {
        offset: record
        for offset, record in written.items()
        if offset >= from_offset
        and (offset >= sealed_below or record[0] is None or last[record[0]] == offset)
    }


def in_batches(
    records: Iterable[tuple[bytes | None, bytes | None]], count: int
) -> Iterable[list[tuple[bytes | None, bytes | None]]]:
    batch: list[tuple[bytes | None, bytes | None]] = []
    for record in records:
        batch.append(record)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


DAY_MS = 24 * 3600 * 1000


def config(**changed: Any) -> LogConfig:
    fields: dict[str, Any] = {"segment_bytes": 1_000, "is_compacting": True, "is_deleting": False}
    return unlimited(**fields | changed)


def opened(path: Path, files: Files | None = None, **changed: Any) -> PartitionLog:
    return PartitionLog.open(path, config(**changed), NOW_MS, files)


def filled(log: PartitionLog, count: int = 200, keys: int = 7, per_batch: int = 5) -> Written:
    written: Written = {}
    records = [(b"k%d" % (number * number % keys), b"v%d" % number) for number in range(count)]
    for batch in in_batches(records, per_batch):
        written |= append_keyed(log, batch)
    return written | seal(log)


def sealed_end(log: PartitionLog) -> int:
    """Return the end of the part that compaction has processed."""
    return log._compactor.cleaned.cleaned_offset


def expected(log: PartitionLog, written: Written) -> Written:
    return newest(written, log.log_start_offset, sealed_end(log))
