"""The search for a batch in a partition's log, used when the batch cannot simply be repeated. Pure.

Reads from the first possible offset of the batch to the end, and then once more: the partition handles every request
that this scheduler sent before its first fetch at the end in an earlier turn than the second fetch, so the batch is
durable by then or will never be. A batch of which compaction has left only a part counts as well. Called by searches.py.

    beginning --the log's start--> reading --at its end--> confirming --still at its end--> missing
                                   reading, confirming --a record of the batch--> found
"""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

from ...transport.addresses import TopicPartition, partition_address
from ...transport.batch import SEQUENCE_LIMIT, BatchHeader, split
from ...transport.compression import Buffer
from ...transport.machine import Call
from ...transport.protocol.data import Fetch, FetchReply, ListOffsets, ListOffsetsReply

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
        self._tp = tp
        self._wanted = wanted
        self._position = from_offset
        self._is_confirming = False
        self._address = partition_address(*tp)

    def begin(self) -> Call:
        topic, partition = self._tp
        request = ListOffsets(topic=topic, partition=partition, at="earliest")
        return Call(self._key, self._address, request, ListOffsetsReply)

    def on_begin(self, reply: ListOffsetsReply) -> Call:
        self._position = max(self._position, reply.offset)
        return self.fetch()

    def fetch(self) -> Call:
        topic, partition = self._tp
        request = Fetch(
            topic=topic,
            partition=partition,
            offset=self._position,
            max_bytes=FETCH_BYTES,
            format="batches",
        )
        return Call(self._key, self._address, request, FetchReply)

    def on_fetched(self, reply: FetchReply, payload: Sequence[Buffer]) -> Verdict:
        """Handle a reply; the state `reading` asks for another fetch."""
        for frame in payload:
            for header, _ in split(frame):
                if self._is_of_batch(header):
                    return "found"
        is_at_end = reply.next_offset >= reply.high_watermark
        self._position = max(self._position, reply.next_offset)
        if is_at_end and self._is_confirming:
            return "missing"
        self._is_confirming = is_at_end
        return "reading"

    def _is_of_batch(self, header: BatchHeader) -> bool:
        wanted = self._wanted
        is_ours = (header.producer_id, header.producer_epoch) == (wanted.producer_id, wanted.epoch)
        return (
            is_ours and (header.base_sequence - wanted.base_sequence) % SEQUENCE_LIMIT < wanted.record_count
        )
