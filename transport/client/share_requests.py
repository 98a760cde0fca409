"""The requests of a share consumer to its group's coordinator. Pure. Called by sharing.py and rounds.py."""

from typing import TYPE_CHECKING

from ..addresses import coordinator_address
from ..machine import Call
from ..protocol.groups import LeaveGroup
from ..protocol.message import Done, Reply
from ..protocol.shares import (
    MAX_LOCKED,
    Acknowledge,
    Acknowledgement,
    AcknowledgeReply,
    Acquire,
    AcquireReply,
)

if TYPE_CHECKING:
    from .share_messages import ShareOptions

LEAVE_TIMEOUT_MS = 2_000
ROUND = "round"
LEAVE = "leave"


class ShareRequests:
    def __init__(self, group: str, topics: list[str], member_id: str, options: "ShareOptions") -> None:
        self.timeout_ms = options.request_timeout_ms
        self.lock_ms = options.lock_ms
        self.has_acquired = False
        """True once a request for records was made: the coordinator may know this member."""
        self._group = group
        self._topics = topics
        self._member_id = member_id
        self._max_bytes = options.max_bytes
        self._charge_on_disconnect = options.charge_on_disconnect

    def acquire(self, count: int, wait_ms: int) -> Call:
        """Return the request of a poll."""
        request = self._acquire(count, wait_ms, [])
        timeout_ms, retry_ms = wait_ms + self.timeout_ms, max(wait_ms, 1)
        return self._call(None, request, AcquireReply, timeout_ms, retry_ms)

    def acknowledge_and_acquire(self, part: list[Acknowledgement], count: int) -> Call:
        """Return a request that does not wait for records."""
        return self._call(ROUND, self._acquire(count, 0, part), AcquireReply, self.timeout_ms)

    def acknowledge(self, part: list[Acknowledgement]) -> Call:
        request = Acknowledge(group=self._group, member_id=self._member_id, acknowledgements=part)
        return self._call(ROUND, request, AcknowledgeReply, self.timeout_ms)

    def leave(self, key: str) -> Call:
        request = LeaveGroup(group=self._group, member_id=self._member_id)
        return self._call(key, request, Done, min(LEAVE_TIMEOUT_MS, self.timeout_ms))

    def _acquire(self, count: int, wait_ms: int, part: list[Acknowledgement]) -> Acquire:
        self.has_acquired = True
        return Acquire(
            group=self._group,
            topics=self._topics,
            member_id=self._member_id,
            max_records=min(count, MAX_LOCKED),
            max_bytes=self._max_bytes,
            max_wait_ms=wait_ms,
            lock_ms=self.lock_ms,
            format="ranges",
            acknowledgements=part,
            charge_on_disconnect=self._charge_on_disconnect,
        )

    def _call(
        self,
        key: str | None,
        request: Acquire | Acknowledge | LeaveGroup,
        reply_type: type[Reply],
        timeout_ms: int,
        retry_timeout_ms: int | None = None,
    ) -> Call:
        return Call(
            key,
            coordinator_address(self._group),
            request,
            reply_type,
            timeout_ms=timeout_ms,
            is_retried=True,
            retry_timeout_ms=retry_timeout_ms,
        )
