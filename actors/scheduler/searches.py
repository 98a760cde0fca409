"""The searches for batches that cannot simply be repeated, one in the log of each target. Pure.

Owns the searches in progress; scan.py reads a log. Called by moves.py, which acts on the result.
"""

from typing import Literal

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.machine import Answered, Call, Failed, LoopEffect
from ...transport.protocol.data import ListOffsetsReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.topics import CatalogTopic
from .scan import Scan, Wanted
from .target_queue import TargetQueue


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
