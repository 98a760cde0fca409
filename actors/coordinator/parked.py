"""Heartbeats that wait for news: one for each member, none longer than a heartbeat interval.

Owns the table and nothing of what is answered. A member's newer heartbeat takes the older one's place, so the table is
bounded by the number of members. Parking does not keep a session alive: sessions count from the receipt of a
heartbeat, and a client that was frozen while it was parked sends no other. Called by serving.py.
"""

from msgspec import Struct

from ...transport.machine import CancelTimer, Effect, Sender, SetTimer


class ParkedHeartbeat(Struct, frozen=True):
    sender: Sender
    member_id: str
    generation: int
    """What the member knows; it is answered once its assignment is newer."""
    deadline: int
    serial: int
    """Heartbeats are numbered as they come: of two of one member only the later may be parked."""


class ParkedHeartbeats:
    def __init__(self) -> None:
        self._parked: dict[str, ParkedHeartbeat] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def get(self, member_id: str) -> ParkedHeartbeat | None:
        return self._parked.get(member_id)

    def all(self) -> list[ParkedHeartbeat]:
        return list(self._parked.values())

    def park(self, heartbeat: ParkedHeartbeat) -> list[Effect]:
        assert heartbeat.member_id not in self._parked
        self._parked[heartbeat.member_id] = heartbeat
        return [SetTimer(("parked", heartbeat.member_id), heartbeat.deadline)]

    def unpark(self, member_id: str) -> list[Effect]:
        """Effects of taking the member's heartbeat out; none when it has none."""
        if self._parked.pop(member_id, None) is None:
            return []
        return [CancelTimer(("parked", member_id))]
