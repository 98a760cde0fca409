"""Kills: signals that operators send to actors, at once or as soon as there is a process. Pure.

    the actor                                    the kill
    has a process                                is performed
    will have one: it waits, starts, backs off   waits for it, WAIT_MS at most
    is not known, and the tree is not up yet     waits for both
    is asleep, quarantined, stopped, unknown     is refused

A kill that has waited too long is refused as well, and never performed later: its sender has given up by then. Part of
the machine; called by requests.py.
"""

from msgspec import Struct

from ..transport.addresses import Address
from ..transport.machine import Reply, Sender, SetTimer
from ..transport.protocol.errors import ErrorCode, ProtocolError
from ..transport.protocol.operations import Kill, KillReply
from .children import Child
from .events import KillWaitTimer
from .lifecycle import Lifecycle
from .states import State

WAIT_MS = 8_000
"""Less than its senders wait for the answer (`admin_link.py`, `actors/gateway/routes.py`)."""

_BEFORE_PROCESS = (State.WAITING, State.STARTING, State.BACKING_OFF)
"""States of a child without a process that will have one."""
_WAY_OUT = {
    State.ASLEEP: "it starts when it is used, or with `planaria revive`",
    State.QUARANTINED: "`planaria revive` starts it",
}


class _Waiting(Struct):
    address: Address
    child: Child | None
    """None until the actor is known."""
    request: Kill
    sender: Sender
    until: int


class Kills:
    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._waiting: list[_Waiting] = []

    def order(self, address: Address, request: Kill, sender: Sender, now: int) -> KillReply | None:
        """Perform a kill; None if it waits, and is answered later. Raises ProtocolError."""
        kill = _Waiting(address, self._life.tree.get(address), request, sender, now + WAIT_MS)
        if not self._has_to_wait(kill):
            return self._perform(kill)
        self._waiting.append(kill)
        self._life.order(SetTimer(KillWaitTimer(), self._waiting[0].until))
        return None

    def settle(self, now: int) -> None:
        """Answer the kills that waited for a process which now exists, or will not, or is too late."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for kill in waiting:
            if kill.child is None:
                kill.child = self._life.tree.get(kill.address)
            try:
                if not self._has_to_wait(kill):
                    self._life.order(Reply(kill.sender, self._perform(kill)))
                elif now >= kill.until:
                    raise _too_late(kill)
                else:
                    self._waiting.append(kill)
            except ProtocolError as error:
                self._life.order(Reply(kill.sender, error.body))
        if self._waiting:
            self._life.order(SetTimer(KillWaitTimer(), self._waiting[0].until))

    def _has_to_wait(self, kill: _Waiting) -> bool:
        child = kill.child
        if child is None:
            return not (self._life.is_up or self._life.is_stopping)
        is_present = self._life.tree.get(child.address) is child
        return child.pid is None and child.state in _BEFORE_PROCESS and is_present

    def _perform(self, kill: _Waiting) -> KillReply:
        child, signal = kill.child, kill.request.signal
        if child is None:
            raise ProtocolError(ErrorCode.UNKNOWN_ACTOR, f"there is no actor {kill.address!r}")
        if child.pid is None:
            way_out = _WAY_OUT.get(child.state)
            hint = "" if way_out is None else f": {way_out}"
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"{kill.address} is {child.shown_state}{hint}")
        self._life.log("warning", "signal ordered", child=child.address, pid=child.pid, signal=signal)
        child.is_death_ordered = signal != "SIGCONT"
        self._life.signal(child, signal)
        return KillReply(pid=child.pid, incarnation=child.incarnation)


def _too_late(kill: _Waiting) -> ProtocolError:
    if kill.child is None:
        message = f"there is no actor {kill.address!r} yet: the broker still starts"
    else:
        message = f"{kill.address} has had no process for {WAIT_MS // 1000} s"
    return ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"{message}; no signal was sent")
