"""The routing of group requests to their coordinator, which may have to be started first. Pure.

    up, or asleep        forwarded unchanged; a sleeping one is woken by it
    quarantined          refused with the reason
    otherwise            the controller is asked to ensure the group (creating it only for requests that join,
                         commit or acquire), and the request waits for the coordinator to come up

A group that was never created has no offsets: `fetch_offsets` of it is answered empty, other requests UNKNOWN_GROUP.
"""

from ...transport.addresses import CONTROLLER, coordinator_address
from ...transport.machine import Call, Cast, Effect
from ...transport.protocol.control import EnsureGroup
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.groups import (
    CommitOffsets,
    DescribeGroup,
    FetchOffsets,
    FetchOffsetsReply,
    GroupHeartbeat,
    LeaveGroup,
    ResetOffsets,
)
from ...transport.protocol.message import Done
from ...transport.protocol.shares import Acknowledge, Acquire, ConfigureShareGroup, ShareMemberGone
from .forwarding import CALL_TIMEOUT_MS, forward
from .peers import Peers
from .share_members import ShareMembers
from .tickets import Tickets
from .waiting import Attempt, WaitingRoom

GroupRequest = (
    GroupHeartbeat
    | CommitOffsets
    | FetchOffsets
    | LeaveGroup
    | DescribeGroup
    | ResetOffsets
    | Acquire
    | Acknowledge
    | ConfigureShareGroup
)
_CREATING = (GroupHeartbeat, CommitOffsets, Acquire, ConfigureShareGroup)

COORDINATOR_TIMEOUT_MS = 10_000
"""The time for which a request waits for its coordinator to come up."""
ENSURE_TIMEOUT_MS = 10_000


class GroupRoutes:
    def __init__(self, tickets: Tickets, peers: Peers, waiting_room: WaitingRoom) -> None:
        self._tickets = tickets
        self._peers = peers
        self._waiting_room = waiting_room
        self._ensuring: set[EnsureGroup] = set()
        self._share_members = ShareMembers()

    def route(self, attempt: Attempt, request: GroupRequest, now: int) -> list[Effect]:
        address = coordinator_address(request.group)
        if isinstance(request, Acquire | Acknowledge):
            self._share_members.note(attempt.event.sender.route[0], request.group, request.member_id)
        if self._peers.takes_calls(address):
            wait_ms = request.max_wait_ms if isinstance(request, GroupHeartbeat | Acquire) else 0
            return [forward(attempt, address, wait_ms + CALL_TIMEOUT_MS)]
        down = self._peers.down(address)
        if down is not None and down.quarantined:
            return self._tickets.answer(attempt.number, self._unavailable(address))
        deadline = now + COORDINATOR_TIMEOUT_MS if attempt.deadline is None else attempt.deadline
        waiting = Attempt(number=attempt.number, event=attempt.event, deadline=deadline)
        parked = self._waiting_room.park(address, waiting, deadline)
        return parked + self._ensure(_order_for(request))

    def on_disconnected(self, connection: bytes) -> list[Effect]:
        """Release the locks of share group members that last used this connection."""
        return [
            Cast(coordinator_address(group), ShareMemberGone(group=group, member_id=member))
            for group, member in self._share_members.forget(connection)
        ]

    def _ensure(self, order: EnsureGroup) -> list[Effect]:
        if order in self._ensuring:
            return []
        self._ensuring.add(order)
        return [Call(("ensure", order), CONTROLLER, order, Done, timeout_ms=ENSURE_TIMEOUT_MS)]

    def on_ensured(self, order: EnsureGroup) -> list[Effect]:
        """Continue waiting: its start has been requested, and PeerUp releases the requests."""
        self._ensuring.discard(order)
        return []

    def on_not_ensured(self, order: EnsureGroup, error: ErrorBody) -> list[Effect]:
        self._ensuring.discard(order)
        effects: list[Effect] = []
        for attempt in self._waiting_room.waiting_for(coordinator_address(order.group)):
            request = attempt.event.request
            assert isinstance(request, GroupRequest)
            if _order_for(request) == order:
                self._waiting_room.release(attempt.number)
                effects += self._refuse(attempt, error)
        return effects

    def on_coordinator_lost(self, address: str) -> list[Effect]:
        """Fail the requests that wait for a quarantined coordinator."""
        attempts, effects = self._waiting_room.release_all(address)
        for attempt in attempts:
            effects += self._tickets.answer(attempt.number, self._unavailable(address))
        return effects

    def on_timeout(self, address: str, attempt: Attempt) -> list[Effect]:
        return self._tickets.answer(attempt.number, self._unavailable(address))

    def _refuse(self, attempt: Attempt, error: ErrorBody) -> list[Effect]:
        if error.code == ErrorCode.UNKNOWN_GROUP and isinstance(attempt.event.request, FetchOffsets):
            return self._tickets.answer(attempt.number, FetchOffsetsReply(offsets=[]))
        return self._tickets.answer(attempt.number, error)

    def _unavailable(self, address: str) -> ErrorBody:
        return ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, self._peers.why_down(address), True)


def _order_for(request: GroupRequest) -> EnsureGroup:
    """Return the request by which the controller ensures the group of this one."""
    dead_letter = request.dead_letter if isinstance(request, ConfigureShareGroup) else None
    create = isinstance(request, _CREATING)
    return EnsureGroup(group=request.group, create=create, dead_letter=dead_letter or "")
