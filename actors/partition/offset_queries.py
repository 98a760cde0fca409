"""Answers to `list_offsets`: by position from memory, by time from a search of the log. Pure. Called by the machine."""

from ...transport.machine import Received, Reply
from ...transport.protocol.data import ListOffsets, ListOffsetsReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from .effects import Effect, LookedUp, LookUp
from .replication import Watermarks
from .views import Views

OFFSET_UNKNOWN = -1


class OffsetLookups:
    def __init__(self, topic_id: str, leader_epoch: int, watermarks: Watermarks, views: Views) -> None:
        self._topic_id = topic_id
        self.leader_epoch = leader_epoch
        """As in `fetches.py`."""
        self._watermarks = watermarks
        self._views = views

    def on_list_offsets(self, received: Received, request: ListOffsets, is_confirmed: bool) -> list[Effect]:
        """Answer a query. Without `is_confirmed` a new leader does not know yet where the visible records end."""
        if request.at == "earliest":
            return [self._located(received, self._watermarks.log_start_offset)]
        if not is_confirmed:
            message = (
                "the leader is new, and its replicas have not confirmed yet where the visible records end"
            )
            return [Reply(received.sender, ProtocolError(ErrorCode.PARTITION_OFFLINE, message).body)]
        if request.at == "latest":
            return [self._located(received, self._views.of(request.isolation).end_offset)]
        return [LookUp(received, request.at, self._views.of(request.isolation).hides_aborted)]

    def on_looked_up(self, found: LookedUp) -> list[Effect]:
        assert isinstance(found.received.request, ListOffsets)
        view = self._views.of(found.received.request.isolation)
        if found.offset is not None and found.offset < view.end_offset:
            return [self._located(found.received, found.offset, found.timestamp_ms)]
        return [self._located(found.received, OFFSET_UNKNOWN)]

    def _located(self, received: Received, offset: int, timestamp_ms: int = -1) -> Reply:
        return Reply(
            received.sender, ListOffsetsReply(offset, timestamp_ms, self._topic_id, self.leader_epoch)
        )
