"""Waiting resets: resets of offsets that name a topic or partition unknown to the group wait for it to appear. Pure.

A topic may have been created a moment ago, so a reset is not refused before TIMEOUT_MS are over; it is checked again
whenever the topics change. Called by offset_requests.py.
"""

from collections.abc import Callable

from msgspec import Struct

from ...transport.machine import CancelTimer, LoopEffect, Sender, SetTimer
from ...transport.protocol.groups import ResetOffsets
from ..journal.room import check_share

TIMEOUT_MS = 1_000
MAX_WAITING = 200
"""Waiting resets; shared by the connections (journal/room.py)."""


class ResetTimer(Struct, frozen=True):
    """The deadline of the first waiting reset."""


class WaitingReset(Struct, frozen=True):
    sender: Sender
    request: ResetOffsets
    deadline: int


class WaitingResets:
    def __init__(self) -> None:
        self._waiting: list[WaitingReset] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, sender: Sender, request: ResetOffsets, now: int) -> list[LoopEffect]:
        """Add a waiting reset. Raises ProtocolError if too many wait."""
        own = sum(each.sender.route[0] == sender.route[0] for each in self._waiting)
        check_share(own, len(self._waiting), MAX_WAITING, "resets wait for unknown topics")
        self._waiting.append(WaitingReset(sender, request, now + TIMEOUT_MS))
        return [SetTimer(ResetTimer(), self._waiting[0].deadline)]

    def take(self) -> tuple[list[WaitingReset], list[LoopEffect]]:
        """Remove and return all waiting resets, to be checked again."""
        if not self._waiting:
            return [], []
        taken, self._waiting = self._waiting, []
        return taken, [CancelTimer(ResetTimer())]

    def put_back(self, waiting: WaitingReset) -> list[LoopEffect]:
        """Let a reset wait again, until its original deadline."""
        self._waiting.append(waiting)
        return [SetTimer(ResetTimer(), self._waiting[0].deadline)]

    def forget(self, is_gone: Callable[[Sender], bool]) -> None:
        """Drop the resets of senders that are gone: they have had no effect."""
        self._waiting = [each for each in self._waiting if not is_gone(each.sender)]
