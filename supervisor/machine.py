"""The supervision machine: keeps every child of a tree running, or reports why it cannot. Pure; process.py performs.

    event                       result
    Begin                       the first children are launched
    ChildStarted                the process exists
    Heartbeat, Ready            recovering, ready; the directory is notified; the next in order are launched
    ActorFailed                 its exit report is kept for the reason of its death
    FallingAsleep               its exit with 0 leads to no restart, unless it is woken before it is gone
    ChildDied                   restart with backoff, quarantine, or rest; siblings by strategy; the directory is notified
    check timer                 a child without progress for too long is aborted (its stack goes to the log), then killed
    wake timer                  a sleeping child is launched without a wake-up: it set the time when it fell asleep
    restart timer               waiting for a launch again; a stop may have come in between, and then wins
    start_child, stop_child     dynamic children come and go (requests.py)
    wake                        a sleeping child is launched (requests.py)
    status, kill, revive        the operator's requests (requests.py)
    stuck timer                 SIGKILL has not ended a child: the stop no longer waits for it
    StopRequested               everything is stopped in reverse order, then Stop; its reason names the stuck children
    KillAll                     everything is killed, then Stop

Only a confirmed death leads to a restart; messages of past incarnations are counted and dropped. The states of a child
are in children.py, the order in tree.py.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from ..transport.machine import (
    CancelTimer,
    Effect,
    Event,
    Received,
    Reply,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from ..transport.protocol.control import ActorFailed, FallingAsleep, Heartbeat, Ready
from ..transport.protocol.control import Stop as StopNotice
from ..transport.protocol.message import Done
from ..transport.protocol.operations import SignalName
from . import directory
from .admission import Admission
from .capacity import UNLIMITED, Capacity
from .child_spec import SupervisorSpec, with_endpoint
from .children import Child, Goal, State
from .events import (
    Begin,
    ChildDeaf,
    ChildDied,
    ChildStarted,
    KillAll,
    Launch,
    Log,
    LogLevel,
    Signal,
    Tell,
    TreeFailed,
    TreeUp,
)
from .requests import Requests
from .restart import RestartPolicy
from .tree import Tree

START_ATTEMPTS = 3
"""Failures of a fixed child, before the tree was first up, after which the whole start has failed."""

STUCK_MS = 10_000
"""Time after SIGKILL after which a process counts as stuck, for example inside the kernel on a dead disk."""


class Timing(Struct, frozen=True, kw_only=True):
    hang_timeout_ms: int = 5_000
    """Maximum time without progress of a ready child."""
    abort_grace_ms: int = 300
    """Time for a hung child to write its stack."""
    check_interval_ms: int = 500


class SupervisorIdentity(Struct, frozen=True, kw_only=True):
    """Facts about the supervisor itself, for `status`."""

    pid: int
    instance_id: str
    data_directory: str
    public_address: str
    """The child whose endpoint is the broker's."""


class SupervisorMachine:
    def __init__(
        self,
        spec: SupervisorSpec,
        identity: SupervisorIdentity,
        *,
        policy: RestartPolicy,
        timing: Timing,
        jitter: Callable[[], float],
        capacity: Capacity = UNLIMITED,
    ) -> None:
        self.tree = Tree(spec, policy)
        self.identity = identity
        self.admission = Admission(self.tree, capacity)
        self.stale_messages = 0
        self.started_at = 0
        self.is_up = False
        self.is_stopping = False
        self._timing = timing
        self._jitter = jitter
        self._check_due = 0
        self._failure: str | None = None
        self._is_finished = False
        self._effects: list[Effect] = []
        self._requests = Requests(self)
        self._reactions: dict[type, Callable[[Any, int], None]] = {
            Begin: self._on_begin,
            ChildStarted: self._on_child_started,
            ChildDied: self._on_child_died,
            ChildDeaf: self._on_child_deaf,
            Heartbeat: self._on_heartbeat,
            Ready: self._on_ready,
            ActorFailed: self._on_actor_failed,
            FallingAsleep: self._on_falling_asleep,
            TimerFired: self._on_timer,
            Received: self._requests.on_received,
            StopRequested: self._on_stop_requested,
            KillAll: self._on_kill_all,
        }

    def handle(self, event: Event, now: int) -> list[Effect]:
        self._reactions[type(event)](event, now)
        effects, self._effects = self._effects, []
        return effects

    # Shared with requests.py.

    def rest(self, child: Child, now: int) -> None:
        child.rest()
        if child.wake_after_ms is not None:
            self.order(SetTimer(("wake", child.address), now + child.wake_after_ms))

    def order(self, *effects: Effect) -> None:
        self._effects.extend(effects)

    def log(self, level: LogLevel, event: str, **fields: Any) -> None:
        self.order(Log(level, event, fields))

    def advance(self, now: int) -> None:
        """Stop the children that must go and launch those whose turn it is. Called after every change."""
        for child in self.tree.next_stops():
            self._ask_to_stop(child, now)
        if self.is_stopping:
            if not self._is_finished and not any(child.is_awaited for child in self.tree):
                self._finish()
            return
        for child in self.admission.readmit():
            child.state = State.WAITING
        starts, is_settled = self.tree.next_starts()
        while starts and self._launch_admitted(starts, now):
            # Refused children have given up their turn to later ones.
            starts, is_settled = self.tree.next_starts()
        if is_settled and not self.is_up:
            self.is_up = True
            self.log("info", "tree up", endpoint=self.endpoint, after_ms=now - self.started_at)
            self.order(TreeUp(self.endpoint))

    def signal(self, child: Child, signal: SignalName) -> None:
        self.order(Signal(child.address, child.incarnation, signal))

    @property
    def endpoint(self) -> str:
        front = self.tree.get(self.identity.public_address)
        if front is None:
            return ""
        return front.endpoint or str(front.spec.arguments.get("endpoint", ""))

    # Life cycle.

    def _launch_admitted(self, children: list[Child], now: int) -> bool:
        """Launch the admitted children; return True if others were quarantined for lack of capacity."""
        admitted, refused = self.admission.admit(children)
        for child in admitted:
            self._launch(child, now)
        for child in refused:
            child.state = State.QUARANTINED
            child.reason = self.admission.reason
            self.log("error", "child quarantined", child=child.address, reason=child.reason)
            self.order(*directory.announce_down(self.tree, child))
        return bool(refused)

    def _launch(self, child: Child, now: int) -> None:
        last_end = child.reason
        if child.has_slept:
            self.order(CancelTimer(("wake", child.address)))
        child.launched(self.tree.next_incarnation(child.address), now)
        self.order(Launch(child.spec, child.incarnation, last_end))

    def _on_begin(self, event: Begin, now: int) -> None:
        self.started_at = now
        self._set_check_timer(now)
        self.advance(now)

    def _on_child_started(self, event: ChildStarted, now: int) -> None:
        child = self._present(event)
        if child is not None:
            child.pid = event.pid
            self.log("debug", "child started", child=child.address, n=child.incarnation, pid=event.pid)

    def _on_heartbeat(self, event: Heartbeat, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        self._greet(child, now)
        if child.heard(event, now):
            self.advance(now)

    def _on_ready(self, event: Ready, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        self._greet(child, now)
        child.endpoint = event.endpoint
        if child.state not in (State.STARTING, State.RECOVERING):
            return
        child.state = State.READY
        child.ready_since = child.progress_at = now
        child.spec = with_endpoint(child.spec, event.endpoint)
        if event.is_death_accounted:
            child.history.discount()
        took_ms = now - child.started_at
        self.log("info", "child ready", child=child.address, n=child.incarnation, pid=child.pid, ms=took_ms)
        self.order(*directory.announce_up(self.tree, child))
        self.advance(now)

    def _greet(self, child: Child, now: int) -> None:
        """Handle the first message of a child: from now on messages reach it."""
        if child.is_listening:
            return
        child.is_listening = True
        self.tree.listening[child] = None
        child.progress_at = now
        self.order(*directory.snapshot(self.tree, child))

    def _on_actor_failed(self, event: ActorFailed, now: int) -> None:
        child = self._present(event)
        if child is not None:
            child.exit_report = event.reason
            child.traceback = event.traceback
            child.needs_operator = event.needs_operator

    def _on_falling_asleep(self, event: FallingAsleep, now: int) -> None:
        child = self._present(event)
        if child is not None and child.is_dynamic:
            child.exit_report = event.reason
            child.is_falling_asleep = True
            child.wake_after_ms = event.wake_after_ms

    # Deaths.

    def _on_child_died(self, event: ChildDied, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        if child.kill_reason is not None:
            reason = f"{child.kill_reason}; {event.reason}"
        else:
            reason = child.exit_report or event.reason
        ready_for_ms = child.gone(reason, now)
        self.tree.listening.pop(child, None)
        self.order(CancelTimer(("kill", child.address)), CancelTimer(("stuck", child.address)))
        if (
            child.goal is Goal.UP
            and child.is_falling_asleep
            and event.is_normal
            and child.kill_reason is None
        ):
            self.rest(child, now)
            self.log("info", "child asleep", child=child.address, n=child.incarnation, reason=reason)
        elif child.goal is Goal.UP:
            self._decide_restart(child, event.is_normal, ready_for_ms, now)
        else:
            child.state = State.WAITING if child.goal is Goal.CYCLE else State.STOPPED
            self.log("info", "child stopped", child=child.address, n=child.incarnation, reason=reason)
        self.order(*directory.announce_down(self.tree, child))
        if child.goal is Goal.CYCLE:
            self.tree.set_goal(child, Goal.UP)
        elif child.goal is Goal.DOWN:
            self.retire(child)
        self.advance(now)

    def _decide_restart(self, child: Child, is_normal: bool, ready_for_ms: int, now: int) -> None:
        kind = child.spec.restart
        if kind == "temporary" or (kind == "transient" and is_normal):
            child.state = State.STOPPED
            self.log("info", "child finished", child=child.address, n=child.incarnation, reason=child.reason)
            if kind == "temporary" and child.is_dynamic:
                self.tree.set_goal(child, Goal.DOWN)
            return
        if child.needs_operator:
            decision = child.history.give_up()
        else:
            decision = child.history.decide(
                now, ready_for_ms, self._jitter(), is_ordered=child.is_death_ordered
            )
        if decision.is_quarantined:
            child.state = State.QUARANTINED
            self.log(
                "error", "child quarantined", child=child.address, n=child.incarnation, reason=child.reason
            )
        else:
            child.state = State.BACKING_OFF
            self.log(
                "warning",
                "child died",
                child=child.address,
                n=child.incarnation,
                reason=child.reason,
                again_in_ms=decision.delay_ms,
            )
        # By a timer even if the delay is 0: a stop that is already queued comes first.
        if decision.delay_ms is not None:
            self.order(SetTimer(("restart", child.address), now + decision.delay_ms))
        self.tree.send_siblings_on_a_cycle(child)
        self._judge_start(child)

    def _judge_start(self, child: Child) -> None:
        """Fail the whole start if a fixed child cannot start before the tree was first up."""
        if self.is_up or self.is_stopping or child.is_dynamic:
            return
        if child.incarnation < START_ATTEMPTS and child.state is not State.QUARANTINED:
            return
        self._failure = f"{child.address} cannot start: {child.reason}"
        self.order(TreeFailed(self._failure))
        self._stop_everything()

    def retire(self, child: Child) -> None:
        """Notify those that wait for the child's end; remove the child unless its successor waits."""
        self.order(*(Reply(sender, Done()) for sender in child.stop_waiters))
        child.stop_waiters.clear()
        self.order(CancelTimer(("restart", child.address)), CancelTimer(("wake", child.address)))
        if not child.is_dynamic or self.is_stopping:
            return
        self.tree.remove(child)
        if child.successor is not None:
            self.tree.add(child.successor)

    def _on_child_deaf(self, event: ChildDeaf, now: int) -> None:
        child = self._present(event)
        if child is not None and child.state is not State.STOPPING:
            self._abort(child, "does not read its messages", now)

    def _on_timer(self, event: TimerFired, now: int) -> None:
        kind, *rest = event.key
        if kind == "check":
            self._check(now)
            return
        # Timers due together are fired one by one: the effects of the first may have cancelled the next.
        child = self.tree.get(rest[0])
        if child is None:
            return
        if kind == "restart" and child.state in (State.BACKING_OFF, State.QUARANTINED):
            child.state = State.WAITING
            self.advance(now)
        elif kind == "wake":
            child.wake()
            self.advance(now)
        elif kind == "kill" and child.state is State.STOPPING:
            self.log(
                "warning",
                "child killed",
                child=child.address,
                n=child.incarnation,
                kill_reason=child.kill_reason,
            )
            self._kill(child, now)
        elif kind == "stuck" and child.state is State.STOPPING:
            child.is_stuck = True
            self.log("error", "child does not die", child=child.address, n=child.incarnation, pid=child.pid)
            self.advance(now)

    def _kill(self, child: Child, now: int) -> None:
        self.signal(child, "SIGKILL")
        self.order(SetTimer(("stuck", child.address), now + STUCK_MS))

    def _set_check_timer(self, now: int) -> None:
        self._check_due = now + self._timing.check_interval_ms
        self.order(SetTimer(("check",), self._check_due))

    def _check(self, now: int) -> None:
        # If the supervisor itself was not running (stopped, machine asleep), silence proves nothing: restart the check.
        was_away = now - self._check_due > self._timing.check_interval_ms
        for child in self.tree:
            limit_ms = child.silence_limit_ms(self._timing.hang_timeout_ms)
            if limit_ms is None:
                continue
            if was_away:
                child.progress_at = now
            elif now - child.progress_at > limit_ms:
                state = child.shown_state
                self._abort(child, f"no progress for {now - child.progress_at} ms while {state}", now)
        self._set_check_timer(now)

    def _abort(self, child: Child, kill_reason: str, now: int) -> None:
        self.log(
            "warning", "child aborted", child=child.address, n=child.incarnation, kill_reason=kill_reason
        )
        child.state = State.STOPPING
        child.kill_reason = kill_reason
        self.signal(child, "SIGABRT")
        self._set_kill_timer(child, now + self._timing.abort_grace_ms)

    # Stops.

    def _ask_to_stop(self, child: Child, now: int) -> None:
        child.state = State.STOPPING
        deadline = now + child.spec.shutdown_ms
        child.kill_reason = None
        if child.is_listening:
            order = StopNotice(deadline_ms=deadline)
            self.order(Tell(child.address, child.incarnation, order))
        else:
            # Not connected yet, so no message reaches it; it has no work in flight to lose.
            self.signal(child, "SIGTERM")
        self._set_kill_timer(child, deadline)

    def _set_kill_timer(self, child: Child, at: int) -> None:
        self.order(SetTimer(("kill", child.address), at))

    def _on_stop_requested(self, event: StopRequested, now: int) -> None:
        if not self.is_stopping:
            self.log("info", "stopping", children=sum(child.has_process for child in self.tree))
            self._stop_everything()
            self.advance(now)

    def _on_kill_all(self, event: KillAll, now: int) -> None:
        self._stop_everything()
        for child in self.tree:
            if child.has_process:
                child.state = State.STOPPING
                self._kill(child, now)
        self.advance(now)

    def _stop_everything(self) -> None:
        self.is_stopping = True
        for child in self.tree:
            self.tree.set_goal(child, Goal.DOWN)
            child.successor = None
            if not child.has_process:
                child.state = State.STOPPED
                self.order(CancelTimer(("restart", child.address)))

    def _finish(self) -> None:
        self._is_finished = True
        stuck = [f"{child.address} (pid {child.pid})" for child in self.tree if child.has_process]
        if stuck:
            self._failure = self._failure or f"left behind: {', '.join(stuck)}"
            self.log("error", "stopped, with processes left behind", children=stuck)
        for child in self.tree:
            self.retire(child)
        self.log("info", "stopped", stale_messages=self.stale_messages)
        self.order(CancelTimer(("check",)), Stop(self._failure or ""))

    def _present(self, event: Any) -> Child | None:
        """Return the child of an event; None if the event is not of the present incarnation."""
        child = self.tree.get(event.address)
        if child is None or child.incarnation != event.incarnation or not child.has_process:
            self.stale_messages += 1
            return None
        return child
