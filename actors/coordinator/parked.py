"""Parked heartbeats: they wait for a new assignment, one per member, none longer than a heartbeat interval.

Owns the table, not the answers. A member's newer heartbeat replaces the older one, so the table is bounded by the
number of members. Parking does not keep a session alive: sessions count from the receipt of a heartbeat, and a client
that was frozen while it was parked sends no other. Called by memberships.py.
"""

from msgspec import Struct

from ...transport.machine import CancelTimer, LoopEffect, Sender, SetTimer


class HeartbeatTimer(Struct, frozen=True):
    """The deadline of a member's parked heartbeat."""

    member_id: str


class ParkedHeartbeat(Struct, frozen=True):
    sender: Sender
    member_id: str
    generation: int
    """The generation known to the member; it is answered once its assignment is newer."""
    deadline: int
    serial: int
    """Heartbeats are numbered as they arrive: of two from one member only the later may be parked."""


class ParkedHeartbeats:
    def __init__(self) -> None:
        self._parked: dict[str, ParkedHeartbeat] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def get(self, member_id: str) -> ParkedHeartbeat | None:
        return self._parked.get(member_id)

    def all(self) -> list[ParkedHeartbeat]:
        return list(self._parked.values())

    def park(self, heartbeat: ParkedHeartbeat) -> list[LoopEffect]:
        assert heartbeat.member_id not in self._parked
        self._parked[heartbeat.member_id] = heartbeat
        return [SetTimer(HeartbeatTimer(heartbeat.member_id), heartbeat.deadline)]

    def unpark(self, member_id: str) -> list[LoopEffect]:
        """Return the effects of removing the member's heartbeat; none if it has none."""
        if self._parked.pop(member_id, None) is None:
            return []
        return [CancelTimer(HeartbeatTimer(member_id))]
