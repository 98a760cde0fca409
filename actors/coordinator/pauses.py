"""Decisions about the pause of a group by an operator, for consumer groups and share groups. Pure.

Owns the pause, which is a record of the group, so it outlives the coordinator and the broker. A paused consumer group
assigns no partition (member_decisions.py): members revoke theirs as in any rebalance, so handlers in progress end and
commit, and the offsets of a group whose members hold nothing may be reset. A paused share group gives out no records
(share/group.py). Called by machine.py.

    running   --pause_group-->                     paused
    paused    --pause_group-->                     paused, with the new reason and end
    paused    --resume_group | until_ms is over--> running
"""

from msgspec import Struct
from msgspec.structs import replace

from ...transport.machine import CancelTimer, LoopEffect, SetTimer
from ...transport.protocol.groups import GroupPause, PauseGroup
from .decided import DecidedGroup
from .member_decisions import MemberDecisions
from .records import Change, Pause, PauseKey


class PauseTimer(Struct, frozen=True):
    """The end of the pause."""


class PauseDecisions:
    def __init__(self, decided: DecidedGroup, members: MemberDecisions) -> None:
        self._decided = decided
        self._members = members

    @property
    def is_paused(self) -> bool:
        return self._decided.state.pause is not None

    def start(self, now: int) -> list[LoopEffect]:
        """Continue a pause found in the journal. The clock of an earlier boot of the machine may have been ahead."""
        pause = self._decided.state.pause
        if pause is None:
            return []
        if pause.until_ms is not None and pause.since_ms > now:
            self._record(replace(pause, since_ms=now, until_ms=now + pause.until_ms - pause.since_ms))
        return self.on_timer(now)

    def pause(self, request: PauseGroup, now: int) -> list[LoopEffect]:
        before = self._decided.state.pause
        until_ms = None if request.for_ms is None else now + request.for_ms
        self._record(Pause(request.reason, before.since_ms if before is not None else now, until_ms))
        if until_ms is None:
            return [CancelTimer(PauseTimer())]
        return [SetTimer(PauseTimer(), until_ms)]

    def resume(self) -> list[LoopEffect]:
        if not self.is_paused:
            return []
        self._record(None)
        return [CancelTimer(PauseTimer())]

    def on_timer(self, now: int) -> list[LoopEffect]:
        """Resume the group if its pause is over."""
        pause = self._decided.state.pause
        if pause is None or pause.until_ms is None:
            return []
        if pause.until_ms <= now:
            return self.resume()
        return [SetTimer(PauseTimer(), pause.until_ms)]

    def _record(self, pause: Pause | None) -> None:
        self._decided.record(Change(PauseKey(self._decided.state.group), pause))
        self._members.retarget()


def described(pause: Pause, wall_offset_ms: int) -> GroupPause:
    """Return the pause by the wall clock."""
    until_ms = None if pause.until_ms is None else pause.until_ms + wall_offset_ms
    return GroupPause(reason=pause.reason, since_ms=pause.since_ms + wall_offset_ms, until_ms=until_ms)
