"""Reading of keys ahead of deliveries, for groups that look at them. Pure.

Owns the fetches, one at a time to each partition: from the end of the known records to the end of the log, as long as
no more than MAX_KNOWN are known. Offsets without a record are done at once; records that cannot be opened are known
without a key, and their members find the damage. Called by acquiring.py, with the answers by group.py.

    headers    priority: a whole number, 0 by default        expires-at-ms: ms since the epoch
"""

from msgspec import UNSET, Struct

from ....transport.addresses import TopicPartition
from ....transport.attributes import expires_ms_of, priority_of
from ....transport.fetched_records import decode_for_json, end_of_batch_at
from ....transport.machine import Answered, Failed, LoopEffect, SetTimer
from ....transport.protocol.data import FetchedRecord
from ....transport.protocol.errors import ErrorCode, ProtocolError
from .keyed import learn
from .partition import MAX_RUNS, SharePartition
from .partitions import SharePartitions
from .tails import RETRY_MS

MAX_KNOWN = 200_000
"""Records of a partition that are known and not done."""
FETCH_BYTES = 256 * 1024


class LookaheadCall(Struct, frozen=True):
    tp: TopicPartition


class LookaheadTimer(Struct, frozen=True):
    """The time of the next attempt after a failure."""

    tp: TopicPartition


class Lookahead:
    def __init__(self, partitions: SharePartitions) -> None:
        self._partitions = partitions
        self._in_flight: set[TopicPartition] = set()
        self._resting: set[TopicPartition] = set()

    def advance(self) -> list[LoopEffect]:
        """Request the next records of each partition whose known records end before its log."""
        return [effect for tp, part in self._partitions.items() for effect in self._request(tp, part)]

    def is_behind(self, tp: TopicPartition) -> bool:
        """Return True if records already in the log may still be unknown."""
        return tp in self._in_flight

    def _request(self, tp: TopicPartition, part: SharePartition) -> list[LoopEffect]:
        queue = part.queue
        if queue is None or not part.is_verified or tp in self._in_flight or tp in self._resting:
            return []
        if (
            queue.end >= part.tail
            or len(queue) >= MAX_KNOWN
            or (len(part.spans) >= MAX_RUNS and queue.end >= part.end)
        ):
            return []
        self._in_flight.add(tp)
        return [part.reader(tp, queue.end).fetch(LookaheadCall(tp), max_bytes=FETCH_BYTES)]

    def on_rested(self, tp: TopicPartition) -> None:
        self._resting.discard(tp)

    def on_outcome(self, tp: TopicPartition, event: Answered | Failed, now: int) -> list[LoopEffect]:
        self._in_flight.discard(tp)
        part = self._partitions.get(tp)
        if part is None or part.queue is None:
            return []
        if isinstance(event, Failed):
            if event.error.code == ErrorCode.CORRUPT_LOG and event.error.next_offset is not UNSET:
                self._learn_unreadable(tp, part, event.error.next_offset, now)
                return []
            self._resting.add(tp)
            return [SetTimer(LookaheadTimer(tp), now + RETRY_MS)]
        if event.reply.topic_id not in (UNSET, part.topic_id):
            return []
        first = part.queue.end
        batches = event.payload[0] if len(event.payload) == 1 else b"".join(event.payload)
        aborted = () if event.reply.aborted is UNSET else event.reply.aborted
        try:
            found, end = decode_for_json(
                batches, first, 1 << 30, 1 << 30, max(event.reply.next_offset, first), aborted
            )
        except ProtocolError:
            self._learn_unreadable(tp, part, end_of_batch_at(batches, first) or first + 1, now)
            return []
        learn(part, {record.offset: attributes_of(record) for record in found}, max(end, first), now)
        self._partitions.mark(tp)
        return []

    def _learn_unreadable(self, tp: TopicPartition, part: SharePartition, end: int, now: int) -> None:
        assert part.queue is not None
        learn(part, dict.fromkeys(range(part.queue.end, end), (None, 0, 0)), end, now)
        self._partitions.mark(tp)


def attributes_of(record: FetchedRecord) -> tuple[bytes | None, int, int]:
    """Return the key, the priority and the time of expiry; headers that are no numbers count as absent."""
    headers = record.headers
    if not headers:
        return record.key, 0, 0
    return record.key, priority_of(headers), expires_ms_of(headers)
