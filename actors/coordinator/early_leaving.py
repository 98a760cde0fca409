"""Members that leave before their sessions end, because their connections are lost. Pure.

    connection lost     the session ends after the grace
    heartbeat meanwhile the session is as before
    session over        the member has left early

Static members are expected back, and keep their sessions. Where connections are lost all the time, early ends would move
partitions all the time, so in the length of a session only as many members leave early as there are. Called by
memberships.py.
"""

from collections import deque

from .member_connections import MemberConnections
from .members import Member


class EarlyLeaving:
    def __init__(self, grace_ms: int) -> None:
        """`grace_ms` of 0: the loss of a connection means nothing."""
        self._grace_ms = grace_ms
        self.connections = MemberConnections()
        self._leaving: set[str] = set()
        self._left: deque[int] = deque()
        """Times at which members have left early."""

    def begin(self, member: Member, session_ends_at: int, members: int, now: int) -> int | None:
        """Return the early end of a session; None if it ends as before. `members`: the number in the group."""
        while self._left and self._left[0] + member.session_timeout_ms <= now:
            self._left.popleft()
        ends_at = now + self._grace_ms
        is_expected_back = not self._grace_ms or member.instance_id is not None
        if is_expected_back or len(self._left) >= members or session_ends_at <= ends_at:
            return None
        self._leaving.add(member.member_id)
        return ends_at

    def on_alive(self, member_id: str) -> None:
        self._leaving.discard(member_id)

    def on_expired(self, member_id: str, now: int) -> None:
        if member_id in self._leaving:
            self._left.append(now)

    def forget(self, member_id: str) -> None:
        self._leaving.discard(member_id)
        self.connections.forget(member_id)
