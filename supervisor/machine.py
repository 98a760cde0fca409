"""The supervision machine: keeps every child of a tree running, or reports why it cannot. Pure; process.py performs.

    event                       result
    Begin                       the first children are launched
    ChildStarted                the process exists
    Heartbeat, Ready            recovering, ready; the directory is notified; the next in order are launched; a heartbeat
                                is answered if it asks for it
    ActorFailed                 its exit report is kept for the reason of its death
    Watch                       it is notified of another actor's state, and of each change
    FallingAsleep               its exit leads to no restart, unless it is woken before it is gone
    ChildDied                   restart with backoff, quarantine, or rest; siblings by strategy; the directory is notified
    check timer                 a child without progress for too long is aborted (its stack goes to the log), then killed
    wake timer                  a sleeping child is launched without a wake-up: it set the time when it fell asleep
    restart timer               waiting for a launch again; a stop may have come in between, and then wins
    start_child, stop_child     dynamic children come and go (requests.py)
    wake                        a sleeping child is launched (requests.py)
    status, kill, revive        the operator's requests (requests.py); a kill waits for the process of a child that starts
    stuck timer                 SIGKILL has not ended a child: the stop no longer waits for it
    StopAsked                   a signal: prepared first, on a node of a cluster (stop_gate.py)
    StopRequested               everything is stopped in reverse order, then Stop; its reason names the stuck children
    KillAll                     everything is killed, then Stop

Only a confirmed death leads to a restart; messages of past incarnations are counted and dropped. The states of a child
are in children.py, the order in tree.py, launches and stops in lifecycle.py.
"""

from collections.abc import Callable
from typing import assert_never

from msgspec import Struct

from ..transport.machine import CancelTimer, Received, SetTimer, StopRequested, TimerFired
from ..transport.protocol.control import ActorFailed, FallingAsleep, Heard, Heartbeat, Ready, Watch
from . import directory
from .capacity import UNLIMITED, Capacity
from .child_spec import SupervisorSpec, with_endpoint
from .children import AFTER_STOP, Child, Goal
from .events import (
    Begin,
    CheckTimer,
    ChildDeaf,
    ChildDied,
    ChildStarted,
    Effect,
    Event,
    KillAll,
    KillTimer,
    KillWaitTimer,
    OfIncarnation,
    RestartTimer,
    StopAsked,
    StopTimer,
    StuckTimer,
    Tell,
    TimerKey,
    WakeTimer,
)
from .lifecycle import Lifecycle, SupervisorIdentity
from .requests import Requests
from .restart import RestartPolicy
from .states import State
from .stop_gate import StopGate, StopPolicy
from .tree import Tree

START_ATTEMPTS = 3
"""Failures of a fixed child, before the tree was first up, after which the whole start has failed."""


class Timing(Struct, frozen=True, kw_only=True):
    hang_timeout_ms: int = 5_000
    """Maximum time without progress of a ready child."""
    abort_grace_ms: int = 300
    """Time for a hung child to write its stack."""
    check_interval_ms: int = 500


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
        stop_policy: StopPolicy = "at_once",
    ) -> None:
        self._life = Lifecycle(spec, identity, policy, capacity)
        self._timing = timing
        self._jitter = jitter
        self._check_due = 0
        self._gate = StopGate(self._life, stop_policy)
        self._requests = Requests(self._life, self._gate)

    @property
    def tree(self) -> Tree:
        return self._life.tree

    @property
    def is_stopping(self) -> bool:
        return self._life.is_stopping

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Heartbeat():
                self._on_heartbeat(event, now)
            case Received():
                self._requests.on_received(event, now)
            case TimerFired(key=key):
                self._on_timer(key, now)
            case ChildStarted():
                self._on_child_started(event, now)
            case Ready():
                self._on_ready(event, now)
            case ChildDied():
                self._on_child_died(event, now)
            case ActorFailed():
                self._on_actor_failed(event)
            case Watch():
                self._on_watch(event)
            case FallingAsleep():
                self._on_falling_asleep(event)
            case ChildDeaf():
                self._on_child_deaf(event, now)
            case Begin():
                self._on_begin(now)
            case StopRequested():
                self._life.stop(now)
            case StopAsked():
                self._gate.ask(now)
            case KillAll():
                self._on_kill_all(now)
            case _:
                assert_never(event)
        self._requests.settle(now)
        return self._life.take_effects()

    # Life cycle.

    def _on_begin(self, now: int) -> None:
        self._life.started_at = now
        self._set_check_timer(now)
        self._life.advance(now)

    def _on_child_started(self, event: ChildStarted, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        child.pid = event.pid
        self.tree.changes.note(child.address)
        self._life.log("debug", "child started", child=child.address, n=child.incarnation, pid=event.pid)
        ready, child.early_ready = child.early_ready, None
        if ready is not None:
            self._on_ready(ready, now)

    def _on_heartbeat(self, event: Heartbeat, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        self._greet(child, now)
        if event.is_answered:
            self._life.order(Tell(child.address, child.incarnation, Heard()))
        if child.heard(event, now):
            self._life.advance(now)

    def _on_ready(self, event: Ready, now: int) -> None:
        child = self._present(event)
        if child is None:
            return
        self._greet(child, now)
        if child.pid is None:
            child.early_ready = event
            return
        child.endpoint = event.endpoint
        if child.state not in (State.STARTING, State.RECOVERING):
            return
        child.serves(now)
        child.spec = with_endpoint(child.spec, event.endpoint)
        if event.is_death_accounted:
            child.history.discount()
        took_ms = now - child.started_at
        self._life.log(
            "info", "child ready", child=child.address, n=child.incarnation, pid=child.pid, ms=took_ms
        )
        self._life.order(*directory.announce_up(self.tree, child))
        self._life.advance(now)

    def _greet(self, child: Child, now: int) -> None:
        """Handle the first message of a child: from now on messages reach it."""
        if child.is_listening:
            return
        child.is_listening = True
        self.tree.listeners.add(child)
        child.progress_at = now
        self._life.order(*directory.snapshot(self.tree, child))

    def _on_actor_failed(self, event: ActorFailed) -> None:
        child = self._present(event)
        if child is not None:
            child.exit_report = event.reason
            child.traceback = event.traceback
            child.needs_operator = event.needs_operator

    def _on_watch(self, event: Watch) -> None:
        child = self._present(event)
        if child is not None:
            self.tree.listeners.watch(child, event.peer)
            self._life.order(directory.state_of(self.tree, child, event.peer))

    def _on_falling_asleep(self, event: FallingAsleep) -> None:
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
        self.tree.listeners.remove(child)
        self._life.order(CancelTimer(KillTimer(child.address)), CancelTimer(StuckTimer(child.address)))
        if (
            child.goal is Goal.UP
            and child.is_falling_asleep
            and event.is_normal
            and child.kill_reason is None
        ):
            self._life.rest(child, now)
            self._life.log("info", "child asleep", child=child.address, n=child.incarnation, reason=reason)
        elif child.goal is Goal.UP:
            self._decide_restart(child, event.is_normal, ready_for_ms, now)
        else:
            state, goal = AFTER_STOP[child.goal]
            child.become(state)
            self.tree.set_goal(child, goal)
            self._life.log("info", "child stopped", child=child.address, n=child.incarnation, reason=reason)
        self._life.order(*directory.announce_down(self.tree, child))
        if child.goal is Goal.DOWN:
            self._life.retire(child)
        else:
            self._life.answer_stop_waiters(child)
        self._life.advance(now)

    def _decide_restart(self, child: Child, is_normal: bool, ready_for_ms: int, now: int) -> None:
        kind = child.spec.restart
        if kind == "temporary" or (kind == "transient" and is_normal):
            child.become(State.STOPPED)
            self._life.log(
                "info", "child finished", child=child.address, n=child.incarnation, reason=child.reason
            )
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
            child.become(State.QUARANTINED)
            self._life.log(
                "error", "child quarantined", child=child.address, n=child.incarnation, reason=child.reason
            )
        else:
            child.become(State.BACKING_OFF)
            self._life.log(
                "warning",
                "child died",
                child=child.address,
                n=child.incarnation,
                reason=child.reason,
                again_in_ms=decision.delay_ms,
            )
        # By a timer even if the delay is 0: a stop that is already queued comes first.
        if decision.delay_ms is not None:
            self._life.order(SetTimer(RestartTimer(child.address), now + decision.delay_ms))
        self.tree.send_siblings_on_a_cycle(child)
        self._judge_start(child)

    def _judge_start(self, child: Child) -> None:
        """Fail the whole start if a fixed child cannot start before the tree was first up."""
        if self._life.is_up or self._life.is_stopping or child.is_dynamic:
            return
        if child.incarnation < START_ATTEMPTS and child.state is not State.QUARANTINED:
            return
        self._life.fail_start(child)

    def _on_child_deaf(self, event: ChildDeaf, now: int) -> None:
        child = self._present(event)
        if child is not None and child.state is not State.STOPPING:
            self._abort(child, "does not read its messages", now)

    def _on_timer(self, key: TimerKey, now: int) -> None:
        if isinstance(key, CheckTimer):
            self._check(now)
            return
        if isinstance(key, KillWaitTimer):
            return  # the requests are settled after every event
        if isinstance(key, StopTimer):
            self._gate.on_timer(now)
            return
        # Timers due together are fired one by one: the effects of the first may have cancelled the next.
        child = self.tree.get(key.address)
        if child is None:
            return
        match key:
            case RestartTimer() if child.state in (State.BACKING_OFF, State.QUARANTINED):
                child.become(State.WAITING)
                self._life.advance(now)
            case WakeTimer():
                child.wake()
                self._life.advance(now)
            case KillTimer() if child.state is State.STOPPING:
                fields = {"child": child.address, "n": child.incarnation, "kill_reason": child.kill_reason}
                self._life.log("warning", "child killed", **fields)
                self._life.kill(child, now)
            case StuckTimer() if child.state is State.STOPPING:
                child.is_stuck = True
                self._life.log(
                    "error", "child does not die", child=child.address, n=child.incarnation, pid=child.pid
                )
                self._life.advance(now)

    def _set_check_timer(self, now: int) -> None:
        self._check_due = now + self._timing.check_interval_ms
        self._life.order(SetTimer(CheckTimer(), self._check_due))

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
        child.hangs += 1
        self._life.abort(child, kill_reason, now + self._timing.abort_grace_ms)

    # Stops.

    def _on_kill_all(self, now: int) -> None:
        self._life.stop_everything()
        for child in self.tree:
            if child.has_process:
                child.become(State.STOPPING)
                self._life.kill(child, now)
        self._life.advance(now)

    def _present(self, event: OfIncarnation) -> Child | None:
        """Return the child of an event; None if the event is not of the present incarnation."""
        child = self.tree.get(event.address)
        if child is None or child.incarnation != event.incarnation or not child.has_process:
            self._life.stale_messages += 1
            return None
        return child
