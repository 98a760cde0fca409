"""The watermarks of a partition's log: its start, its written and its durable end, the end of the visible part.

Written by the partition's role: `leader.py` moves the high watermark as `in_sync.py` decides, `follower.py` as its
leader tells it. Read by the views and by everything that answers a request.
"""

from ...transport.protocol.data import Acks


class Watermarks:
    def __init__(self, log_start_offset: int, log_end_offset: int, high_watermark: int) -> None:
        """Take a log that is durable up to its end."""
        self.log_start_offset = log_start_offset
        self.high_watermark = high_watermark
        """The end of the committed part. It never goes back: visible records stay visible."""
        self.durable_offset = log_end_offset
        """The end of the part that this replica holds as durably as the topic requires."""
        self.written_offset = log_end_offset
        """The end of the log."""
        self.epoch_start_offset = log_end_offset
        """The end of the log when the present leader began: no high watermark of an earlier one lies beyond."""

    @property
    def known_offset(self) -> int:
        """Return the highest offset that a reader may have: one between the high watermark and it waits."""
        return max(self.high_watermark, self.epoch_start_offset)

    def held(self, acks: Acks) -> int:
        """Return the offset below which as many replicas as `acks` requires hold every record."""
        return self.high_watermark if acks == "all" else self.durable_offset
