"""The records of one batch, encoded a few at a time while the batch is open.

Publishers append to the newest records without a lock. When these have grown to some tens of KB, a publisher encodes
those before the last one into the batch as it will travel, which forgets them:

    | header, blank | part | part, and its records | part |      newest records  | <- append

So a batch of thousands of records is never thousands of objects. Those would have left the processor's cache when the
network thread encodes them, on another processor, and their memory would return to the publisher from there. With keys
and three partitions that took a fifth of the time of publishing.

The batch is sent from the memory into which its records were encoded. An encoding that was interrupted by an exception of
a signal handler may have damaged the last bytes of the part before it, which therefore keeps a copy of them.

A Delivery finds its message's offset by the identity of its record. A part keeps its records if one of them is referred
to from elsewhere; a program that drops its deliveries keeps nothing.

Called by the accumulator with its lock. Appends, and exceptions of signal handlers, may come between any two steps.
"""

from sys import getrefcount

from ..batch import ARRAY_HEAD_BYTES, BLANK_TAIL, RECORDS_START, RecordFields, add_records, blank_batch

_REFERENCES = 3
"""References to a record in two lists, and that of the call that counts."""


class _Part:
    """Consecutive records."""

    __slots__ = ("end", "end_bytes", "first", "kept", "latest_delta_ms", "start", "tail")

    def __init__(
        self,
        start: int,
        end: int,
        first: RecordFields,
        latest_delta_ms: int,
        end_bytes: int,
        tail: bytes,
        kept: list[RecordFields],
    ) -> None:
        self.start = start
        self.end = end
        self.first = first
        self.latest_delta_ms = latest_delta_ms
        self.end_bytes = end_bytes
        self.tail = tail
        """The last bytes before the end."""
        self.kept = kept
        """All of them, or none."""


class GatheredRecords:
    """Records in the order of their appends."""

    __slots__ = ("_batch", "_is_taken", "_newest", "_parts", "_positions", "append", "has_own_times")

    def __init__(self) -> None:
        self._newest: list[RecordFields] = []
        self._batch = blank_batch()
        self._is_taken = False
        self._parts: list[_Part] = []
        self._positions: dict[int, int] | None = None
        self.append = self._newest.append
        self.has_own_times = False
        """Set before the first append of a record with a time of its own."""

    def __len__(self) -> int:
        # `_encoded`, without its call: this is asked several times for each batch.
        return (self._parts[-1].end if self._parts else 0) + len(self._newest)

    @property
    def _encoded(self) -> int:
        return self._parts[-1].end if self._parts else 0

    def encode_previous(self) -> None:
        """Encode all records but the last, which its publisher refers to while it is here."""
        self._encode(self._newest[:-1])

    def close(self) -> None:
        """Encode all records. Those that are appended later do not belong to the batch."""
        self._encode(self._newest[:])
        self._newest = []

    def _encode(self, records: list[RecordFields]) -> None:
        parts, start = self._parts, self._encoded
        if records and parts and records[0] is parts[-1].first:
            # An exception of a signal handler came before the last step.
            done = parts[-1].end - parts[-1].start
            del self._newest[:done], records[:done]
        if not records:
            return
        batch = self._batch
        if parts:
            add_records(batch, parts[-1].end_bytes, parts[-1].tail, records)
        else:
            add_records(batch, RECORDS_START, BLANK_TAIL, records)
        is_kept = sum(map(getrefcount, records)) > len(records) * _REFERENCES
        times_ms = [each.delta_ms for each in records] if self.has_own_times else [records[-1].delta_ms]
        parts.append(
            _Part(
                start,
                start + len(records),
                records[0],
                max(times_ms),
                len(batch),
                bytes(batch[-ARRAY_HEAD_BYTES:]),
                records if is_kept else [],
            )
        )
        del self._newest[: len(records)]

    def take(self) -> bytearray:
        """Return a closed batch, to be completed. The next time it is a copy, because the first may be on its way."""
        if self._is_taken:
            return bytearray(self._batch)
        self._is_taken = True
        return self._batch

    def forget(self) -> None:
        """Drop the encoded records, once the batch is done: a program may keep its deliveries."""
        self._batch = bytearray()

    @property
    def latest_delta_ms(self) -> int:
        """The latest timestamp in a closed batch."""
        return max([part.latest_delta_ms for part in self._parts])

    def __contains__(self, record: RecordFields) -> bool:
        """Return True if a closed batch has this record, which the caller has appended."""
        return any(candidate is record for part in reversed(self._parts) for candidate in part.kept)

    def position_of(self, record: RecordFields) -> int:
        """Return the position in a closed batch of a record that a Delivery refers to."""
        if self._positions is None:
            self._positions = {
                id(each): position
                for part in self._parts
                for position, each in enumerate(part.kept, part.start)
            }
        return self._positions[id(record)]
