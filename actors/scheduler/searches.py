"""The search for a batch in the log of its target, used when the batch cannot simply be repeated. Pure.

Reads from the first possible offset of the batch to the end, and then once more: the partition handles every request
that this scheduler sent before its first fetch at the end in an earlier turn than the second fetch, so the batch is
durable by then or will never be. A batch of which compaction has left only a part counts as well.

    beginning --the log's start--> reading --at its end--> confirming --still at its end--> missing
                                   reading, confirming --a record of the batch--> found

Owns the searches in progress, one for each target. Called by moves.py, which acts on the result.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.batch import SEQUENCE_LIMIT, BatchHeader
from ...transport.compression import Buffer
from ...transport.log_access.reader import PartitionReader
from ...transport.machine import Answered, Call, Failed, LoopEffect
from ...transport.protocol.data import FetchReply, ListOffsetsReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import CatalogTopic
from .target_queue import TargetQueue

FETCH_BYTES = 1024 * 1024

Verdict = Literal["reading", "found", "missing"]


class Wanted(NamedTuple):
    producer_id: int
    epoch: int
    base_sequence: int
    record_count: int


class Scan:
    def __init__(self, key: Hashable, tp: TopicPartition, wanted: Wanted, from_offset: int) -> None:
        self._key = key
        self._wanted = wanted
        self._from_offset = from_offset
        # Deliveries are not transactional: an open transaction does not hide them.
        self._reader = PartitionReader(tp, isolation="read_uncommitted")
        self._is_confirming = False

    def begin(self) -> Call:
        return self._reader.locate(self._key, "earliest")

    def on_begin(self, reply: ListOffsetsReply) -> Call:
        if self._reader.on_located(reply) < self._from_offset:
            self._reader.seek(self._from_offset)
        return self.fetch()

    def fetch(self) -> Call:
        return self._reader.fetch(self._key, max_bytes=FETCH_BYTES)

    def on_fetched(self, reply: FetchReply, payload: Sequence[Buffer]) -> Verdict:
        """Handle a reply; the state `reading` asks for another fetch."""
        fetched = self._reader.on_fetched(reply, payload)
        if any(self._is_of_batch(batch.header) for batch in fetched.batches()):
            return "found"
        if fetched.is_at_end and self._is_confirming:
            return "missing"
        self._is_confirming = fetched.is_at_end
        return "reading"

    def _is_of_batch(self, header: BatchHeader) -> bool:
        wanted = self._wanted
        is_ours = (header.producer_id, header.producer_epoch) == (wanted.producer_id, wanted.epoch)
        return (
            is_ours and (header.base_sequence - wanted.base_sequence) % SEQUENCE_LIMIT < wanted.record_count
        )


class SearchCall(Struct, frozen=True):
    """The request of a search, by the number of the queue's call."""

    tp: TopicPartition
    number: int


class Searches:
    def __init__(self) -> None:
        self._scans: dict[TopicPartition, Scan] = {}

    def begin(self, queue: TargetQueue, topic: CatalogTopic | None, producer_id: int) -> list[LoopEffect]:
        """Search for the batch of the queue's intent."""
        assert queue.target is not None
        assert queue.target.intent is not None
        queue.step = "searching"
        queue.call += 1
        intent = queue.target.intent
        wanted = Wanted(producer_id, queue.target.epoch, intent.base_sequence, len(intent.offsets))
        is_same = topic is not None and topic.topic_id == queue.target.topic_id
        from_offset = queue.target.from_offset if is_same else 0
        scan = Scan(SearchCall(queue.tp, queue.call), queue.tp, wanted, from_offset)
        self._scans[queue.tp] = scan
        return [scan.begin()]

    def on_outcome(
        self, tp: TopicPartition, event: Answered | Failed
    ) -> Call | ErrorBody | Literal["found", "missing"]:
        """Return the next request, the error that ended the search, or its result."""
        scan = self._scans[tp]
        if isinstance(event, Failed):
            del self._scans[tp]
            # The log ends before the batch could begin: it is another log.
            is_other_log = event.error.code == ErrorCode.OFFSET_OUT_OF_RANGE
            return "missing" if is_other_log else event.error
        if isinstance(event.reply, ListOffsetsReply):
            return scan.on_begin(event.reply)
        verdict = scan.on_fetched(event.reply, event.payload)
        if verdict == "reading":
            return scan.fetch()
        del self._scans[tp]
        return verdict
