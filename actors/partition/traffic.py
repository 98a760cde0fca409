"""Counters of a partition's records since its start, for its report. Pure.

A record in a transaction that aborts counts, the markers of transactions do not. Records are read in whole batches, and
counted by their offsets: those that compaction has removed count as well. Called by process.py, once for each write and
each read.
"""

from collections.abc import Sequence

from ...transport.batch import CONTROL, HEAD_BYTES, BatchHeader
from ...transport.protocol.data import Fetch
from .backlog import BACKLOG
from .effects import Alarm, Read


class Traffic:
    def __init__(self) -> None:
        self._records_in = self._record_bytes_in = 0
        self._records_copied = self._record_bytes_copied = 0
        self._records_out = self._record_bytes_out = 0
        self.leaderships = 0
        """Number of times that this replica of a cluster was made the leader."""
        self._refused_ms = 0
        self._refusing_since: int | None = None

    def on_alarm(self, alarm: Alarm, now: int) -> None:
        """Note that producers are refused from now on, because of a slow group, or no longer."""
        if alarm.about != BACKLOG:
            return
        if self._refusing_since is not None:
            self._refused_ms += now - self._refusing_since
        self._refusing_since = now if alarm.alarms else None

    def on_appended(self, headers: Sequence[BatchHeader], *, is_leader: bool) -> None:
        """Count batches of producers, or of the leader that this replica follows."""
        for header in headers:
            if header.attributes & CONTROL:
                continue
            if is_leader:
                self._records_in += header.record_count
                self._record_bytes_in += HEAD_BYTES + header.length
            else:
                self._records_copied += header.record_count
                self._record_bytes_copied += HEAD_BYTES + header.length

    def on_read(self, read: Read, next_offset: int, size_bytes: int) -> None:
        """Count the records of a consumer's fetch."""
        request = read.received.request
        if isinstance(request, Fetch) and size_bytes:
            self._records_out += next_offset - request.offset
            self._record_bytes_out += size_bytes

    def counters(self, now: int) -> dict[str, int]:
        refusing_ms = 0 if self._refusing_since is None else now - self._refusing_since
        return {
            "records_in": self._records_in,
            "record_bytes_in": self._record_bytes_in,
            "records_copied": self._records_copied,
            "record_bytes_copied": self._record_bytes_copied,
            "records_out": self._records_out,
            "record_bytes_out": self._record_bytes_out,
            "leaderships": self.leaderships,
            "backpressure_ms": self._refused_ms + refusing_ms,
        }
