"""Requests to the supervisor: start_child, stop_child and wake by actors, status, kill and revive by operators.

Part of the supervision machine, and as pure; a request without an id is a cast and gets no answer.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ..transport.addresses import Address
from ..transport.machine import Received, Reply, Sender
from ..transport.protocol.control import (
    ActorReports,
    ActorReportsReply,
    AwaitActs,
    AwaitStop,
    ChildSpec,
    ConcludeStop,
    Locate,
    ReplaceChild,
    ReportedActor,
    StartChild,
    StopChild,
    Wake,
)
from ..transport.protocol.errors import ErrorCode, ProtocolError
from ..transport.protocol.message import Done
from ..transport.protocol.message import Reply as ReplyBody
from ..transport.protocol.operations import (
    ActorReport,
    ActorStatus,
    Kill,
    KillReply,
    Revive,
    ReviveReply,
    Status,
    StatusReply,
)
from . import directory
from .children import Child, Goal
from .events import ReportStatus
from .kills import Kills
from .lifecycle import Lifecycle
from .operator_acts import OperatorActs
from .states import State
from .stop_gate import StopGate

_read_report = msgspec.msgpack.Decoder(ActorReport).decode
SUPERVISOR = "supervisor"
"""Address of the actors' parent process in `status`."""


class Requests:
    def __init__(self, life: Lifecycle, gate: StopGate) -> None:
        self._life = life
        self._acts = OperatorActs(life)
        self._kills = Kills(life)
        self._answers: dict[type, Callable[[Any, Sender, int], ReplyBody | None]] = {
            StartChild: self._start_child,
            ReplaceChild: self._replace_child,
            StopChild: self._stop_child,
            Wake: self._wake,
            Locate: self._locate,
            AwaitStop: gate.on_wait,
            ConcludeStop: gate.on_concluded,
            AwaitActs: self._acts.on_wait,
            ActorReports: self._reports,
            Status: self._status,
            Kill: self._kill,
            Revive: self._revive,
        }

    def on_received(self, event: Received, now: int) -> None:
        request = event.request
        try:
            answer = self._answers[type(request)](request, event.sender, now)
            if isinstance(request, Kill | Revive):
                self._acts.on_act(request, event.sender, "", now)
        except ProtocolError as error:
            if isinstance(request, Kill | Revive):
                self._acts.on_act(request, event.sender, error.code, now)
            self._life.order(Reply(event.sender, error.body))
            self._life.log("warning", "request refused", request=type(request).__name__, error=str(error))
            return
        if answer is not None:
            self._life.order(Reply(event.sender, answer))

    def _start_child(self, request: StartChild, sender: Sender, now: int) -> Done:
        """Start a child, idempotently: an existing child is left alone; a changed spec takes effect at its next start."""
        life, spec = self._life, request.spec
        if life.is_stopping:
            raise ProtocolError(ErrorCode.SHUTTING_DOWN, "the supervisor is stopping")
        child = life.tree.get(spec.address)
        if child is None:
            if request.must_fit:
                life.admission.check_new()
            child = life.tree.add(spec)
            if child is None:
                raise ProtocolError(
                    ErrorCode.INVALID_REQUEST, f"no supervisor takes a child {spec.address!r}"
                )
            if request.is_asleep:
                child.wake_after_ms = request.wake_after_ms
                life.rest(child, now)
                life.order(*directory.announce_down(life.tree, child))
                return Done()
        elif not child.is_dynamic:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"{spec.address} is a fixed child")
        elif child.goal is Goal.DOWN:
            child.successor = spec
        else:
            self._renew(child, spec, is_asleep=request.is_asleep)
        life.advance(now)
        return Done()

    @staticmethod
    def _renew(child: Child, spec: ChildSpec, *, is_asleep: bool) -> None:
        if spec != child.announced:
            child.spec = child.announced = spec
        if child.state is State.STOPPED:
            child.become(State.WAITING)
        if not is_asleep:
            child.wake()

    def _replace_child(self, request: ReplaceChild, sender: Sender, now: int) -> Done | None:
        child = self._life.tree.get(request.spec.address)
        is_new = child is None or child.announced != request.spec
        answer = self._start_child(StartChild(spec=request.spec), sender, now)
        if child is None or child.goal is Goal.DOWN:
            return answer
        if child.state in (State.QUARANTINED, State.BACKING_OFF):
            child.history.forgive()
            child.become(State.WAITING)
            self._life.advance(now)
        elif child.has_process and (is_new or child.goal is Goal.CYCLE):
            child.history.forgive()
            child.stop_waiters.append(sender)
            self._life.tree.cycle(child)
            self._life.advance(now)
            return None
        return answer

    def _wake(self, request: Wake, sender: Sender, now: int) -> None:
        child = self._life.tree.get(request.address)
        if child is not None and child.goal is Goal.UP:
            child.wake()
            self._life.advance(now)

    def _locate(self, request: Locate, sender: Sender, now: int) -> Done:
        self._life.order(*directory.locate(self._life.tree, request.locations))
        return Done()

    def _stop_child(self, request: StopChild, sender: Sender, now: int) -> Done | None:
        child = self._life.tree.get(request.address)
        if child is None:
            return Done()
        if not child.is_dynamic:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"{request.address} is a fixed child")
        self._life.tree.set_goal(child, Goal.DOWN)
        child.successor = None
        child.stop_waiters.append(sender)
        if child.has_process:
            self._life.advance(now)
            return None
        if child.state is State.ASLEEP:
            child.has_slept = False
            self._life.order(*directory.announce_down(self._life.tree, child))
        self._life.retire(child)
        return None

    def _kill(self, request: Kill, sender: Sender, now: int) -> KillReply | None:
        return self._kills.order(self._address(request.address), request, sender, now)

    def settle(self, now: int) -> None:
        """Answer the requests that waited for what has happened since."""
        self._kills.settle(now)

    def _revive(self, request: Revive, sender: Sender, now: int) -> ReviveReply:
        child = self._child(request.address)
        answer = ReviveReply(state=child.shown_state)
        if child.state in (State.QUARANTINED, State.BACKING_OFF, State.ASLEEP):
            self._life.log("info", "child revived", child=child.address)
            child.history.forgive()
            child.become(State.WAITING)
            self._life.advance(now)
        return answer

    def _address(self, named: str) -> Address:
        try:
            address = Address.parse(named)
        except ValueError:
            raise ProtocolError(ErrorCode.UNKNOWN_ACTOR, f"there is no actor {named!r}") from None
        if address == SUPERVISOR:
            pid = self._life.identity.pid
            raise ProtocolError(
                ErrorCode.INVALID_REQUEST,
                f"the supervisor is not an actor: send the signal to its process, pid {pid}",
            )
        return address

    def _child(self, named: str) -> Child:
        address = self._address(named)
        child = self._life.tree.get(address)
        if child is None:
            raise ProtocolError(ErrorCode.UNKNOWN_ACTOR, f"there is no actor {address!r}")
        return child

    def _reports(self, request: ActorReports, sender: Sender, now: int) -> ActorReportsReply:
        return ActorReportsReply(
            supervisor_pid=self._life.identity.pid,
            uptime_ms=now - self._life.started_at,
            actors=[_reported(child, now) for child in self._life.tree],
        )

    def _status(self, request: Status, sender: Sender, now: int) -> None:
        life, changes = self._life, self._life.tree.changes
        found = None if request.after_version is None else changes.since(request.after_version)
        children = life.tree if found is None else filter(None, map(life.tree.get, found.changed))
        body = StatusReply(
            supervisor_pid=life.identity.pid,
            instance_id=life.identity.instance_id,
            data_directory=life.identity.data_directory,
            endpoint=life.endpoint,
            uptime_ms=now - life.started_at,
            actors=[_status_of(child, now) for child in children],
            version=changes.version,
            is_whole=found is None,
            removed=() if found is None else tuple(found.removed),
        )
        # A difference is for peers that ask often: no memory is measured for it.
        life.order(ReportStatus(sender, body) if found is None else Reply(sender, body))


def _reported(child: Child, now: int) -> ReportedActor:
    return ReportedActor(
        address=child.address,
        pid=child.pid,
        incarnation=child.incarnation,
        restarts=child.restarts,
        hangs=child.hangs,
        state=child.shown_state,
        uptime_ms=now - child.started_at if child.has_process else 0,
        report=child.report,
    )


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
        since_death_ms=_age(child.died_at, now),
        downtime_ms=child.downtime_ms,
        report_age_ms=_age(child.reported_at, now),
        report=_read_report(child.report),
    )


def _age(at: int | None, now: int) -> int | None:
    return None if at is None else now - at
