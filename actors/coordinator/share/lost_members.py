"""Members of a share group whose connections are lost. Pure.

    connection lost              the member is expected back for the grace; with a grace of 0 the loss means nothing, and
                                 its locks end by their time
    any request meanwhile        it is back, and keeps its records
    grace over                   its records are returned; their deliveries count as failed only if it has asked for that
                                 (`charge_on_disconnect` of its requests)

Called by group.py.
"""

from typing import NamedTuple

from ....transport.machine import Received
from ....transport.protocol.shares import Acquire
from ..member_connections import MemberConnections


class LostMember(NamedTuple):
    member: str
    is_charged: bool


class LostMembers:
    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._connections = MemberConnections()
        self._charged: set[str] = set()
        self._leaving: dict[str, int] = {}
        """The end of the grace, by member, in order."""

    def note(self, member: str, event: Received) -> None:
        """Note the request of a member."""
        self._connections.note(member, event)
        self._leaving.pop(member, None)
        if isinstance(event.request, Acquire):
            if event.request.charge_on_disconnect:
                self._charged.add(member)
            else:
                self._charged.discard(member)

    def on_gone(self, member: str, peer: bytes, client: bytes, now: int) -> None:
        """Note that the connection of a gateway's client is over."""
        if self._connections.is_last(member, peer, client):
            self._begin(member, now)

    def on_disconnected(self, connection: bytes, now: int) -> None:
        """Note that a client's own connection is over."""
        for member in self._connections.of(connection):
            self._begin(member, now)

    def take_lost(self, now: int) -> list[LostMember]:
        """Return the members whose grace is over; they are forgotten."""
        lost = [member for member, until in self._leaving.items() if until <= now]
        found = [LostMember(member, member in self._charged) for member in lost]
        for member in lost:
            self.forget(member)
        return found

    def next_due(self) -> int | None:
        return next(iter(self._leaving.values()), None)

    def forget(self, member: str) -> None:
        self._connections.forget(member)
        self._charged.discard(member)
        self._leaving.pop(member, None)

    def _begin(self, member: str, now: int) -> None:
        if self._grace_ms:
            self._leaving[member] = now + self._grace_ms
