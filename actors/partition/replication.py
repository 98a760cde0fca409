"""The watermarks of a partition's log: its start, the end of each replica, and the end of the visible part.

Owns the log end of each in-sync replica, the leader among them, and the high watermark that follows from them. Does
not decide which replicas are in sync. Today a partition has one replica, so the high watermark is the leader's own
durable end; a follower's fetches will report its end through `advance`, with no other change. Called by the machine.
"""

from ...transport.protocol.data import Acks

LEADER = 0
"""The replica id of the partition's own log."""


class Watermarks:
    """The watermarks of a log. The high watermark never goes back: visible records stay visible."""

    def __init__(self, log_start_offset: int, log_end_offset: int) -> None:
        self.log_start_offset = log_start_offset
        self.high_watermark = log_end_offset
        self._ends: dict[int, int] = {LEADER: log_end_offset}

    def advance(self, replica: int, end_offset: int) -> None:
        """Note that a replica holds everything below `end_offset`, as durably as the topic requires."""
        assert end_offset >= self._ends[replica], "a replica's log was cut below what it had confirmed"
        self._ends[replica] = end_offset
        self.high_watermark = max(self.high_watermark, min(self._ends.values()))

    def held(self, acks: Acks) -> int:
        """Return the offset below which as many replicas as `acks` requires hold every record."""
        return self.high_watermark if acks == "all" else self._ends[LEADER]
