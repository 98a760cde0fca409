"""A consumer group: the plug-in of the coordinator for groups whose members are assigned partitions. Pure.

Owns the table of its requests. memberships.py serves the members, offset_requests.py their offsets. Called by the
coordinator's machine.
"""

from collections.abc import Callable
from typing import Any

from ...transport.machine import LoopEffect, LoopEvent, Received, Sender, TimerFired
from ...transport.protocol.groups import (
    CommitOffsets,
    DescribeGroupReply,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    MemberGone,
    ResetOffsets,
)
from ...transport.protocol.message import Request
from ...transport.protocol.transactions import EndGroupTransaction
from ..journal.recorder import Durable, Recorder
from .decisions import Decisions
from .memberships import Memberships, SessionTimer
from .offset_requests import OffsetRequests
from .parked import HeartbeatTimer
from .records import Change
from .resets import ResetTimer
from .state import GroupState

REQUESTS: tuple[type[Request], ...] = (
    GroupHeartbeat,
    MemberGone,
    CommitOffsets,
    FetchOffsets,
    LeaveGroup,
    ResetOffsets,
    EndGroupTransaction,
)


class ConsumerGroup:
    def __init__(
        self,
        durable: GroupState,
        decisions: Decisions,
        recorder: Recorder[Change, Any],
        disconnect_grace_ms: int,
    ) -> None:
        self._durable = durable
        self._decisions = decisions
        self._memberships = Memberships(durable, decisions, recorder, disconnect_grace_ms)
        self._connections = self._memberships.early.connections
        self._offsets = OffsetRequests(decisions, recorder, self._memberships)
        self._handlers: dict[type[Request], Callable[[Sender, Any, int], list[LoopEffect]]] = {
            LeaveGroup: self._memberships.on_leave,
            CommitOffsets: self._offsets.on_commit,
            FetchOffsets: self._offsets.on_fetch,
            ResetOffsets: self._offsets.on_reset,
            EndGroupTransaction: self._offsets.on_end_transaction,
        }

    def start(self, now: int) -> list[LoopEffect]:
        return self._memberships.start(now)

    def on_request(self, event: Received, now: int) -> list[LoopEffect]:
        match event.request:
            case GroupHeartbeat() as request:
                return self._memberships.on_heartbeat(event, request, now)
            case MemberGone(member_id=member, connection=client):
                is_gone = self._connections.is_last(member, event.sender.route[0], client)
                return self._memberships.on_connections_lost([member] if is_gone else [], now)
        return self._handlers[type(event.request)](event.sender, event.request, now)

    def on_disconnected(self, connection: bytes, now: int) -> list[LoopEffect]:
        return self._memberships.on_connections_lost(self._connections.of(connection), now)

    def describe(self) -> DescribeGroupReply:
        return self._memberships.describe()

    def forget_senders(self, is_gone: Callable[[Sender], bool]) -> list[LoopEffect]:
        self._offsets.forget_senders(is_gone)
        return self._memberships.forget_senders(is_gone)

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        match event:
            case TimerFired(key=SessionTimer(member_id=member_id)):
                return self._memberships.on_session_timer(member_id, now)
            case TimerFired(key=HeartbeatTimer(member_id=member_id)):
                return self._memberships.on_parked_timer(member_id)
            case TimerFired(key=ResetTimer()):
                return self._offsets.retry_resets(now)
        return []

    def retry_resets(self, now: int) -> list[LoopEffect]:
        """Check the waiting resets again: the topics have changed."""
        return self._offsets.retry_resets(now)

    def on_durable(self, durable: Durable[Change, Any], now: int) -> list[LoopEffect]:
        return self._memberships.on_durable(durable, now)

    def is_working(self) -> bool:
        decided = self._decisions.state
        is_used = decided.members or self._durable.members or decided.pending.open
        return bool(is_used) or self._offsets.is_waiting

    def close(self) -> list[LoopEffect]:
        return [*self._offsets.close(), *self._memberships.close()]
