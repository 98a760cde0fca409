"""Answers to `list_offsets`: by position from memory, by time from a search of the log. Pure. Called by machine.py."""

from ...transport.machine import Effect, Received, Reply
from ...transport.protocol.data import ListOffsets, ListOffsetsReply
from .effects import LookedUp, LookUp
from .fetches import Fetches
from .replication import Watermarks

OFFSET_UNKNOWN = -1


class OffsetQueries:
    def __init__(self, topic_id: str, leader_epoch: int, watermarks: Watermarks, fetches: Fetches) -> None:
        self._topic_id = topic_id
        self._leader_epoch = leader_epoch
        self._watermarks = watermarks
        self._fetches = fetches

    def on_list_offsets(self, asked: Received, request: ListOffsets) -> list[Effect]:
        if request.at == "earliest":
            return [self._located(asked, self._watermarks.log_start_offset)]
        if request.at == "latest":
            return [self._located(asked, self._end_for(request))]
        return [LookUp(asked, request.at, request.isolation == "read_committed")]

    def on_looked_up(self, found: LookedUp) -> list[Effect]:
        assert isinstance(found.asked.request, ListOffsets)
        if found.offset is not None and found.offset < self._end_for(found.asked.request):
            return [self._located(found.asked, found.offset, found.timestamp_ms)]
        return [self._located(found.asked, OFFSET_UNKNOWN)]

    def _located(self, asked: Received, offset: int, timestamp_ms: int = -1) -> Reply:
        return Reply(asked.sender, ListOffsetsReply(offset, timestamp_ms, self._topic_id, self._leader_epoch))

    def _end_for(self, request: ListOffsets) -> int:
        if request.isolation == "read_committed":
            return self._fetches.last_stable_offset
        return self._watermarks.high_watermark
