"""Requests to the supervisor: start_child, stop_child and wake by actors, status, kill and revive by operators.

Part of the supervision machine, and as pure; a request without an id is a cast and gets no answer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..transport.machine import Received, Reply, Sender
from ..transport.protocol.control import ChildSpec, StartChild, StopChild, Wake
from ..transport.protocol.errors import ErrorCode, ProtocolError
from ..transport.protocol.message import Done
from ..transport.protocol.message import Reply as ReplyBody
from ..transport.protocol.operations import (
    ActorStatus,
    Kill,
    KillReply,
    Revive,
    ReviveReply,
    Status,
    StatusReply,
)
from . import directory
from .children import Child, Goal, State
from .events import ReportStatus

if TYPE_CHECKING:
    from .machine import SupervisorMachine

SUPERVISOR = "supervisor"
"""Address of the actors' parent process in `status`."""


class Requests:
    def __init__(self, machine: "SupervisorMachine") -> None:
        self._machine = machine
        self._answers: dict[type, Callable[[Any, Sender, int], ReplyBody | None]] = {
            StartChild: self._start_child,
            StopChild: self._stop_child,
            Wake: self._wake,
            Status: self._status,
            Kill: self._kill,
            Revive: self._revive,
        }

    def on_received(self, event: Received, now: int) -> None:
        try:
            answer = self._answers[type(event.request)](event.request, event.sender, now)
        except ProtocolError as error:
            self._machine.order(Reply(event.sender, error.body))
            self._machine.log(
                "warning", "request refused", request=type(event.request).__name__, error=str(error)
            )
            return
        if answer is not None:
            self._machine.order(Reply(event.sender, answer))

    def _start_child(self, request: StartChild, sender: Sender, now: int) -> Done:
        """Start a child, idempotently: an existing child is left alone; a changed spec takes effect at its next start."""
        machine, spec = self._machine, request.spec
        if machine.is_stopping:
            raise ProtocolError(ErrorCode.SHUTTING_DOWN, "the supervisor is stopping")
        child = machine.tree.get(spec.address)
        if child is None:
            if request.must_fit:
                machine.admission.check_new()
            child = machine.tree.add(spec)
            if child is None:
                raise ProtocolError(
                    ErrorCode.INVALID_REQUEST, f"no supervisor takes a child {spec.address!r}"
                )
            if request.is_asleep:
                child.wake_after_ms = request.wake_after_ms
                machine.rest(child, now)
                machine.order(*directory.announce_down(machine.tree, child))
                return Done()
        elif not child.is_dynamic:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"{spec.address} is a fixed child")
        elif child.goal is Goal.DOWN:
            child.successor = spec
        else:
            self._renew(child, spec, is_asleep=request.is_asleep)
        machine.advance(now)
        return Done()

    @staticmethod
    def _renew(child: Child, spec: ChildSpec, *, is_asleep: bool) -> None:
        if spec != child.announced:
            child.spec = child.announced = spec
        if child.state is State.STOPPED:
            child.state = State.WAITING
        if not is_asleep:
            child.wake()

    def _wake(self, request: Wake, sender: Sender, now: int) -> None:
        child = self._machine.tree.get(request.address)
        if child is not None and child.goal is Goal.UP:
            child.wake()
            self._machine.advance(now)

    def _stop_child(self, request: StopChild, sender: Sender, now: int) -> Done | None:
        child = self._machine.tree.get(request.address)
        if child is None:
            return Done()
        if not child.is_dynamic:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"{request.address} is a fixed child")
        self._machine.tree.set_goal(child, Goal.DOWN)
        child.successor = None
        child.stop_waiters.append(sender)
        if child.has_process:
            self._machine.advance(now)
            return None
        if child.state is State.ASLEEP:
            child.has_slept = False
            self._machine.order(*directory.announce_down(self._machine.tree, child))
        self._machine.retire(child)
        return None

    def _kill(self, request: Kill, sender: Sender, now: int) -> KillReply:
        child = self._child(request.address)
        if child.pid is None:
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, f"{request.address} is {child.shown_state}")
        self._machine.log(
            "warning", "signal ordered", child=child.address, pid=child.pid, signal=request.signal
        )
        child.is_death_ordered = request.signal != "SIGCONT"
        self._machine.signal(child, request.signal)
        return KillReply(pid=child.pid, incarnation=child.incarnation)

    def _revive(self, request: Revive, sender: Sender, now: int) -> ReviveReply:
        child = self._child(request.address)
        answer = ReviveReply(state=child.shown_state)
        if child.state in (State.QUARANTINED, State.BACKING_OFF, State.ASLEEP):
            self._machine.log("info", "child revived", child=child.address)
            child.history.forgive()
            child.state = State.WAITING
            self._machine.advance(now)
        return answer

    def _child(self, address: str) -> Child:
        child = self._machine.tree.get(address)
        if address == SUPERVISOR:
            pid = self._machine.identity.pid
            raise ProtocolError(
                ErrorCode.INVALID_REQUEST,
                f"the supervisor is not one of its own children: send the signal to its process, pid {pid}",
            )
        if child is None:
            raise ProtocolError(ErrorCode.UNKNOWN_ACTOR, f"there is no actor {address!r}")
        return child

    def _status(self, request: Status, sender: Sender, now: int) -> None:
        machine = self._machine
        body = StatusReply(
            supervisor_pid=machine.identity.pid,
            instance_id=machine.identity.instance_id,
            data_directory=machine.identity.data_directory,
            endpoint=machine.endpoint,
            uptime_ms=now - machine.started_at,
            actors=[_status_of(child, now) for child in machine.tree],
        )
        machine.order(ReportStatus(sender, body))


def _status_of(child: Child, now: int) -> ActorStatus:
    return ActorStatus(
        address=child.address,
        pid=child.pid,
        incarnation=child.incarnation,
        restarts=child.restarts,
        state=child.shown_state,
        uptime_ms=now - child.started_at if child.has_process else 0,
        memory_bytes=0,
        endpoint=child.endpoint,
        reason=child.reason,
        traceback=child.traceback,
        alarms=list(child.alarms),
        in_flight=list(child.in_flight),
        retrying=child.retrying,
    )
