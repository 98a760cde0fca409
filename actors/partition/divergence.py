"""The offset at which a log begins to differ from the records that a reader has seen. Pure.

A partition that was started again may lack records that readers have seen: with `flush = os` a power cut loses data
that the kernel had not written. Their offsets are assigned again, to other records. Leader epochs distinguish the two
(as in KIP-320): every start takes an epoch above all earlier ones and stamps its batches with it, so every record
that a reader saw in epoch E has an epoch up to E, and its replacement has a later one.

A reader that has read up to `position` in epoch E has missed no record when no batch before its position has a later
epoch and the log is at least that long. Otherwise it continues at the first batch of a later epoch.
"""

from collections.abc import Callable

from ...transport.batch import BatchHeader


def divergence(
    header_at: Callable[[int], BatchHeader | None],
    log_start_offset: int,
    log_end_offset: int,
    position: int,
    leader_epoch: int,
) -> int | None:
    """Return the first offset that differs from the reader's view; None when there is none before its position.

    `header_at` finds the batch that holds an offset, or the next existing one: compaction leaves holes, also just
    before the reader's position. Epochs rise with offsets, so the number of calls is logarithmic.
    """
    end = min(position, log_end_offset)

    def has_diverged(offset: int) -> bool:
        """Return True from the first batch of a later epoch on, and where no batch remains before `end`."""
        header = header_at(offset)
        return header is None or header.base_offset >= end or header.leader_epoch > leader_epoch

    found = None
    if end > log_start_offset and has_diverged(end - 1):
        low, high = log_start_offset, end - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if has_diverged(middle) else (middle + 1, high)
        found = header_at(low)
    if found is not None and found.base_offset < end:
        return max(found.base_offset, log_start_offset)
    return log_end_offset if position > log_end_offset else None
