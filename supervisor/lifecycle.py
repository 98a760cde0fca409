"""The life of the children: launches, stops and the end of the tree. Pure.

Owns the tree and the effects of the present event. Called by machine.py, which handles reports of processes, and by
requests.py, which handles requests of actors and operators; both call `advance` after a change. It launches those whose
turn it is and stops those that must go, in the order that tree.py decides.
"""

from typing import Any

from msgspec import Struct

from ..transport.addresses import Address
from ..transport.machine import CancelTimer, Reply, SetTimer, Stop
from ..transport.protocol.control import Stop as StopNotice
from ..transport.protocol.message import Done
from ..transport.protocol.operations import SignalName
from . import directory
from .admission import Admission
from .capacity import Capacity
from .child_spec import SupervisorSpec
from .children import Child, Goal
from .events import (
    CheckTimer,
    Effect,
    KillTimer,
    Launch,
    Log,
    LogLevel,
    RestartTimer,
    Signal,
    StopBegins,
    StuckTimer,
    Tell,
    TreeFailed,
    TreeUp,
    WakeTimer,
)
from .restart import RestartPolicy
from .states import State
from .tree import Tree

STUCK_MS = 10_000
"""Time after SIGKILL after which a process counts as stuck, for example inside the kernel on a dead disk."""


class SupervisorIdentity(Struct, frozen=True, kw_only=True):
    """Facts about the supervisor itself, for `status`."""

    pid: int
    instance_id: str
    data_directory: str
    public_address: Address
    """The child whose endpoint is the broker's."""


class Lifecycle:
    def __init__(
        self, spec: SupervisorSpec, identity: SupervisorIdentity, policy: RestartPolicy, capacity: Capacity
    ) -> None:
        self.tree = Tree(spec, policy)
        self.identity = identity
        self.admission = Admission(self.tree, capacity)
        self.started_at = 0
        self.is_up = False
        self.is_stopping = False
        self.stale_messages = 0
        """Messages of past incarnations, which were dropped."""
        self._failure = ""
        self._is_finished = False
        self._effects: list[Effect] = []

    # Effects.

    def order(self, *effects: Effect) -> None:
        self._effects.extend(effects)

    def log(self, level: LogLevel, event: str, **fields: Any) -> None:
        self.order(Log(level, event, fields))

    def signal(self, child: Child, signal: SignalName) -> None:
        self.order(Signal(child.address, child.incarnation, signal))

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    @property
    def endpoint(self) -> str:
        front = self.tree.get(self.identity.public_address)
        if front is None:
            return ""
        return front.endpoint or str(front.spec.arguments.get("endpoint", ""))

    # Launches.

    def advance(self, now: int) -> None:
        """Stop the children that must go and launch those whose turn it is. Called after every change."""
        for child in self.tree.next_stops():
            self._ask_to_stop(child, now)
        if self.is_stopping:
            if not self._is_finished and not any(child.is_awaited for child in self.tree):
                self._finish()
            return
        for child in self.admission.readmit():
            child.become(State.WAITING)
        starts, is_settled = self.tree.next_starts()
        while starts and self._launch_admitted(starts, now):
            # Refused children have given up their turn to later ones.
            starts, is_settled = self.tree.next_starts()
        if is_settled and not self.is_up:
            self.is_up = True
            self.log("info", "tree up", endpoint=self.endpoint, after_ms=now - self.started_at)
            self.order(TreeUp(self.endpoint))

    def _launch_admitted(self, children: list[Child], now: int) -> bool:
        """Launch the admitted children; return True if others were quarantined for lack of capacity."""
        admitted, refused = self.admission.admit(children)
        for child in admitted:
            self._launch(child, now)
        for child in refused:
            child.become(State.QUARANTINED)
            child.reason = self.admission.reason
            self.log("error", "child quarantined", child=child.address, reason=child.reason)
            self.order(*directory.announce_down(self.tree, child))
        return bool(refused)

    def _launch(self, child: Child, now: int) -> None:
        last_end = child.reason
        if child.has_slept:
            self.order(CancelTimer(WakeTimer(child.address)))
        child.launched(self.tree.next_incarnation(child.address), now)
        self.order(Launch(child.spec, child.incarnation, last_end))

    def rest(self, child: Child, now: int) -> None:
        child.rest()
        if child.wake_after_ms is not None:
            self.order(SetTimer(WakeTimer(child.address), now + child.wake_after_ms))

    # Stops.

    def stop(self, now: int) -> None:
        """Stop everything in order."""
        if not self.is_stopping:
            self.log("info", "stopping", children=sum(child.has_process for child in self.tree))
            self.order(StopBegins())
            self.stop_everything()
            self.advance(now)

    def _ask_to_stop(self, child: Child, now: int) -> None:
        child.become(State.STOPPING)
        deadline = now + child.spec.shutdown_ms
        child.kill_reason = None
        if child.is_listening:
            order = StopNotice(deadline_ms=deadline, keeps_place=child.goal is Goal.CYCLE)
            self.order(Tell(child.address, child.incarnation, order))
        else:
            # Not connected yet, so no message reaches it; it has no work in flight to lose.
            self.signal(child, "SIGTERM")
        self._set_kill_timer(child, deadline)

    def _set_kill_timer(self, child: Child, at: int) -> None:
        self.order(SetTimer(KillTimer(child.address), at))

    def kill(self, child: Child, now: int) -> None:
        self.signal(child, "SIGKILL")
        self.order(SetTimer(StuckTimer(child.address), now + STUCK_MS))

    def abort(self, child: Child, kill_reason: str, kill_at: int) -> None:
        self.log(
            "warning", "child aborted", child=child.address, n=child.incarnation, kill_reason=kill_reason
        )
        child.become(State.STOPPING)
        child.kill_reason = kill_reason
        self.signal(child, "SIGABRT")
        self._set_kill_timer(child, kill_at)

    def retire(self, child: Child) -> None:
        """Notify those that wait for the child's end; remove the child unless its successor waits."""
        self.answer_stop_waiters(child)
        self.order(CancelTimer(RestartTimer(child.address)), CancelTimer(WakeTimer(child.address)))
        if not child.is_dynamic or self.is_stopping:
            return
        self.tree.remove(child)
        if child.successor is not None:
            self.tree.add(child.successor)
        else:
            self.order(*directory.announce_removed(self.tree, child.address))

    def answer_stop_waiters(self, child: Child) -> None:
        self.order(*(Reply(sender, Done()) for sender in child.stop_waiters))
        child.stop_waiters.clear()

    def fail_start(self, child: Child) -> None:
        """Give up the start of the tree, because a fixed child cannot start."""
        self._failure = f"{child.address} cannot start: {child.reason}"
        self.order(TreeFailed(self._failure))
        self.stop_everything()

    def stop_everything(self) -> None:
        self.is_stopping = True
        for child in self.tree:
            self.tree.set_goal(child, Goal.DOWN)
            child.successor = None
            if not child.has_process:
                child.become(State.STOPPED)
                self.order(CancelTimer(RestartTimer(child.address)))

    def _finish(self) -> None:
        self._is_finished = True
        stuck = [f"{child.address} (pid {child.pid})" for child in self.tree if child.has_process]
        if stuck:
            self._failure = self._failure or f"left behind: {', '.join(stuck)}"
            self.log("error", "stopped, with processes left behind", children=stuck)
        for child in self.tree:
            self.retire(child)
        self.log("info", "stopped", stale_messages=self.stale_messages)
        self.order(CancelTimer(CheckTimer()), Stop(self._failure))
