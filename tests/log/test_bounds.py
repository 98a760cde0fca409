"""Retention and compaction stop at the high watermark: a record beyond it may still be cut."""

from pathlib import Path

import pytest

from keyed_logs import append_keyed, held, seal
from log_batches import NOW_MS, abandon, append, open_log, unlimited
from planaria.actors.log.log import PartitionLog

AGE_MS = 1_000


@pytest.mark.parametrize("up_to_offset", [0, 3, 7, 12])
def test_retention_deletes_nothing_beyond(tmp_path: Path, up_to_offset: int) -> None:
    log = open_log(tmp_path, segment_bytes=150, retention_ms=AGE_MS)
    for number in range(12):
        append(log, [b"%d" % number * 20])
    start = log.apply_retention(NOW_MS + 10 * AGE_MS, None, up_to_offset)
    assert start <= up_to_offset
    assert start == max(base for base in (0, *range(1, 13)) if base <= up_to_offset and _is_bound(log, base))
    abandon(log)


def _is_bound(log: PartitionLog, offset: int) -> bool:
    """Return True if a segment begins at this offset, or the log does, or ends there."""
    bases = {segment.base_offset for segment in log._segments.all}
    return offset in bases | {log.log_start_offset, log.log_end_offset}


def test_a_record_that_may_be_cut_displaces_no_older_one(tmp_path: Path) -> None:
    config = unlimited(segment_bytes=150, is_compacting=True, is_deleting=False)
    log = PartitionLog.open(tmp_path, config, NOW_MS)
    committed = append_keyed(log, [(b"k", b"committed")])
    high_watermark = log.log_end_offset
    append_keyed(log, [(b"k", b"to be cut")])
    for _ in range(3):
        seal(log)
    while log.compact(NOW_MS, 1 << 20, NOW_MS, high_watermark):
        pass
    assert held(log).items() >= committed.items()
    log.truncate_to(high_watermark, NOW_MS)
    assert held(log) == committed
    while log.compact(NOW_MS, 1 << 20, NOW_MS, log.log_end_offset):
        pass
    abandon(log)
