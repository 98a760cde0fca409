"""Where a log begins to differ from what a reader knows of it. Pure.

A partition that was started again may lack records that readers have seen: with `flush = os` a power cut takes what the
kernel had not written. Their offsets are given again, to other records. Leader epochs tell the two apart (the idea is
KIP-320's): every start takes an epoch above all before it and stamps its batches with it, so whatever a reader saw
in epoch E is of an epoch up to E, and what replaced it is of a later one.

A reader that has read up to `position` in epoch E lacks nothing when no batch before its position is of a later epoch
and the log is at least so long. Otherwise the first batch of a later epoch is where it goes on.
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
    """The first offset that is not what the reader saw; None when everything before its position is.

    `header_at` finds the batch that holds an offset, or the next there is. Epochs rise with offsets, so this asks for the
    logarithm of their number.
    """
    end = min(position, log_end_offset)

    def is_later(offset: int) -> bool:
        header = header_at(offset)
        return header is not None and header.base_offset < end and header.leader_epoch > leader_epoch

    if end <= log_start_offset or not is_later(end - 1):
        return log_end_offset if position > log_end_offset else None
    low, high = log_start_offset, end - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_later(middle) else (middle + 1, high)
    header = header_at(low)
    assert header is not None
    return max(header.base_offset, log_start_offset)
