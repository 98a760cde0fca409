"""The way of a follower's requests to its leader: through the links, or straight to the leader's process. Pure.

Owns the address of the requests. The links always lead to the leader, since the other nodes know where it is. Its process
has an endpoint of its own for other nodes, by which a request passes two processes instead of four; it is used once a
request has been answered there, because a firewall may be in between.

    state     requests go     left by
    relayed   by the links    answered there with an endpoint -> probed      failed -> relayed, asked again after a pause
    probed    by the links    answered at the endpoint -> direct             failed -> relayed, asked again after a pause
    direct    straight        a request that got no answer -> relayed, asked again after a pause
    settled   by the links    the leader, or this replica, has no such endpoint

Called by `follower.py`. A number that it passes in is above all earlier ones in this process.
"""

from enum import Enum

from msgspec import Struct

from ...transport.addresses import Address, leader_address
from ...transport.machine import Answered, Call, Failed, PeerDown, PeerUp, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.replication import Follow, ReachLeader, ReachLeaderReply
from ...transport.request_context import NO_CONTEXT, RequestContext
from .effects import Effect
from .timers import ReachAgain

TIMEOUT_MS = 2_000
FIRST_PAUSE_MS = 250
LONGEST_PAUSE_MS = 30_000
_UNANSWERED = frozenset(
    {
        ErrorCode.ACTOR_UNAVAILABLE,
        ErrorCode.PARTITION_OFFLINE,
        ErrorCode.TIMED_OUT,
        ErrorCode.OVERLOADED,
    }
)
"""Errors that the leader itself does not answer a follower with."""


class ReachCall(Struct, frozen=True):
    """The key of a `reach_leader`."""

    number: int


class _State(Enum):
    RELAYED = "relayed"
    PROBED = "probed"
    DIRECT = "direct"
    SETTLED = "settled"


class LeaderAccess:
    def __init__(self, follow: Follow, *, has_endpoint: bool) -> None:
        """`has_endpoint` is True if this replica takes part in connections between nodes itself."""
        self._follow = follow
        self._direct = leader_address(follow.topic, follow.partition)
        self._state = _State.RELAYED if has_endpoint else _State.SETTLED
        self._asked: ReachCall | None = None
        self._introduced: int | None = None
        """The number under which the exchange knows the endpoint."""
        self._failures = 0

    @property
    def is_direct(self) -> bool:
        return self._state is _State.DIRECT

    @property
    def way(self) -> tuple[Address, RequestContext | None]:
        """Return the address of requests, and their context: another node does not know this one's secret."""
        return (self._direct, NO_CONTEXT) if self._state is _State.DIRECT else (self._follow.address, None)

    def redirect(self, follow: Follow) -> None:
        """Take another address of the same leader."""
        self._follow = follow

    def ask(self, number: int) -> list[Effect]:
        """Ask for the endpoint, unless that is known or being found out."""
        if self._state is not _State.RELAYED or self._asked is not None:
            return []
        return [self._call(self._follow.address, number, None)]

    def on_outcome(self, event: Answered | Failed, number: int, now: int) -> list[Effect]:
        if event.key != self._asked:
            return []
        self._asked = None
        if isinstance(event, Failed):
            return self._give_up(event.error.message, now)
        if self._state is _State.PROBED:
            self._state = _State.DIRECT
            return []
        reply = event.reply
        assert isinstance(reply, ReachLeaderReply)
        if not reply.endpoint:
            self._state = _State.SETTLED
            return []
        self._state, self._introduced = _State.PROBED, number
        up = PeerUp(address=self._direct, incarnation=number, endpoint=reply.endpoint)
        return [up, self._call(self._direct, number, NO_CONTEXT)]

    def on_failed(self, error: ErrorBody, now: int) -> list[Effect] | None:
        """Take the failure of a direct request. Return None if the leader has refused it, else requests go by the
        links again."""
        if error.code not in _UNANSWERED:
            return None
        return self._give_up(error.message, now)

    def end(self) -> list[Effect]:
        """Close the connection to the leader."""
        number, self._introduced = self._introduced, None
        if number is None:
            return []
        return [PeerDown(address=self._direct, incarnation=number, reason="not followed")]

    def _give_up(self, reason: str, now: int) -> list[Effect]:
        self._state = _State.RELAYED
        number, self._introduced = self._introduced, None
        down = [] if number is None else [PeerDown(address=self._direct, incarnation=number, reason=reason)]
        pause_ms = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(self._failures, 10))
        self._failures += 1
        return [*down, SetTimer(ReachAgain(), now + pause_ms)]

    def _call(self, address: Address, number: int, context: RequestContext | None) -> Call:
        self._asked = ReachCall(number)
        follow = self._follow
        request = ReachLeader(
            topic=follow.topic,
            topic_id=follow.topic_id,
            partition=follow.partition,
            leader_epoch=follow.leader_epoch,
        )
        return Call(self._asked, address, request, ReachLeaderReply, timeout_ms=TIMEOUT_MS, context=context)
