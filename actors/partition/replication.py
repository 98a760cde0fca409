"""Where a partition's log starts, how far each replica holds it, and how much of it readers may see.

Owns the log end of each in-sync replica, the leader among them, and the high watermark that follows from them. Decides
nothing about who is in sync. Today a partition has one replica, so the high watermark is the leader's own durable end; a
follower's fetches will report its end through `advance`, and nothing else has to change. Called by the machine.
"""

from ...transport.protocol.data import Acks

LEADER = 0
"""The replica id of the partition's own log."""


class Watermarks:
    """The high watermark never goes back: what was visible stays visible."""

    def __init__(self, log_start_offset: int, log_end_offset: int) -> None:
        self.log_start_offset = log_start_offset
        self.high_watermark = log_end_offset
        self._ends: dict[int, int] = {LEADER: log_end_offset}

    def advance(self, replica: int, end_offset: int) -> None:
        """A replica holds everything below `end_offset`, as durably as the topic asks."""
        assert end_offset >= self._ends[replica], "a replica's log was cut below what it had confirmed"
        self._ends[replica] = end_offset
        self.high_watermark = max(self.high_watermark, min(self._ends.values()))

    def held(self, acks: Acks) -> int:
        """Everything below this offset is held by as many replicas as `acks` asks for."""
        return self.high_watermark if acks == "all" else self._ends[LEADER]
