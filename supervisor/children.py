"""State of one child in the supervisor: its process, its state, its goal. Owned by tree.py, driven by machine.py. Pure.

    waiting ──launch──▶ starting ──heartbeat──▶ recovering ──ready──▶ ready
       ▲                    └───────────────ready──────────────────────┘│
       │  starting, recovering, ready ── stop requested, hung ──▶ stopping
       │
       │  confirmed death, by goal:
       ├── up ────────▶ backing_off ──timer──▶ waiting          (over the intensity: quarantined, then the same)
       ├── cycle ─────▶ waiting, until its turn in the order comes again
       └── down ──────▶ stopped
    A child that needs no restart (temporary; transient after exit 0) ends in stopped as well. A child that announced
    that it falls asleep, and then exited in order, is asleep until it is woken: then it waits for a launch, not a
    restart.

Only a confirmed death leaves starting, recovering, ready and stopping, so two processes of one child never coexist.
"""

from dataclasses import dataclass, field
from enum import Enum

from msgspec import Raw

from ..transport.addresses import Address
from ..transport.machine import Sender
from ..transport.protocol.control import ChildSpec, Heartbeat, Ready
from ..transport.protocol.operations import NO_REPORT, ActorState
from .census import Census
from .child_spec import Strategy
from .restart import RestartHistory
from .states import State


class Goal(Enum):
    UP = "up"
    CYCLE = "cycle"
    """First down, then up in its turn: required by a sibling's death, or for another spec."""
    DOWN = "down"


_WITH_PROCESS = frozenset({State.STARTING, State.RECOVERING, State.READY, State.STOPPING})
_AFTER_DEATH = frozenset({State.WAITING, State.BACKING_OFF, State.QUARANTINED, State.STOPPED, State.ASLEEP})
TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.STARTING, State.QUARANTINED, State.STOPPED, State.ASLEEP}),
    State.STARTING: frozenset({State.RECOVERING, State.READY, State.STOPPING}) | _AFTER_DEATH,
    State.RECOVERING: frozenset({State.READY, State.STOPPING}) | _AFTER_DEATH,
    State.READY: frozenset({State.STOPPING}) | _AFTER_DEATH,
    State.STOPPING: _AFTER_DEATH,
    State.BACKING_OFF: frozenset({State.WAITING, State.STOPPED}),
    State.QUARANTINED: frozenset({State.WAITING, State.STOPPED}),
    State.STOPPED: frozenset({State.WAITING}),
    State.ASLEEP: frozenset({State.WAITING, State.STOPPED}),
}
"""The states that may follow each state. Quarantine and sleep of a waiting child: it was never launched."""
AFTER_STOP = {Goal.CYCLE: (State.WAITING, Goal.UP), Goal.DOWN: (State.STOPPED, Goal.DOWN)}
"""State and goal after the death of a child that was to go."""
_SHOWN: dict[State, ActorState] = {
    State.WAITING: "stopped",
    State.STARTING: "starting",
    State.RECOVERING: "recovering",
    State.READY: "ready",
    State.STOPPING: "stopping",
    State.BACKING_OFF: "backing_off",
    State.QUARANTINED: "quarantined",
    State.STOPPED: "stopped",
    State.ASLEEP: "asleep",
}


@dataclass(slots=True, eq=False)
class Child:
    spec: ChildSpec
    """Spec of the next incarnation."""
    announced: ChildSpec
    """The spec as requested, to recognise a repeated request."""
    history: RestartHistory
    is_dynamic: bool
    census: Census
    """Census of its group, which counts its state."""
    position: int
    """Rises with each child that is added: the start order within a group."""
    _state: State = State.WAITING
    goal: Goal = Goal.UP
    has_turn: bool = False
    """The start order has reached it; from then on it is restarted regardless of the order."""
    incarnation: int = 0
    restarts: int = 0
    hangs: int = 0
    """Kills because it made no progress."""
    pid: int | None = None
    started_at: int = 0
    ready_since: int | None = None
    progress_at: int = 0
    turns: int = -1
    is_listening: bool = False
    """It has sent a message, so its control socket is connected and messages reach it."""
    endpoint: str | None = None
    early_ready: Ready | None = None
    """It was ready before the fork server had answered with its pid; handled once that is known."""
    died_at: int | None = None
    """Time of its last confirmed death; None if it has not died, or fell asleep since."""
    downtime_ms: int | None = None
    """Time from its last death until it was ready again; None while that lasts."""
    reason: str | None = None
    traceback: str | None = None
    report: Raw = field(default_factory=lambda: NO_REPORT)
    """The report of its last heartbeat, unread."""
    reported_at: int | None = None
    """Time of the last heartbeat of its present process."""
    kill_reason: str | None = None
    """Reason for our SIGKILL or SIGABRT; becomes part of the reason of its death."""
    exit_report: str | None = None
    """Reason that it reported before it died."""
    needs_operator: bool = False
    """It reported that another start would fail in the same way."""
    is_falling_asleep: bool = False
    """It announced its sleep; its exit follows."""
    is_wanted: bool = False
    """A wake-up arrived while it fell asleep."""
    has_slept: bool = False
    """Its last incarnation fell asleep, or it was added asleep."""
    wake_after_ms: int | None = None
    """Maximum time asleep without a wake-up, announced when it fell asleep."""
    is_death_ordered: bool = False
    """An operator sent it a signal; its death does not count."""
    is_stuck: bool = False
    """SIGKILL did not end it in time: it is blocked inside the kernel, beyond anyone's reach."""
    stop_waiters: list[Sender] = field(default_factory=list)
    successor: ChildSpec | None = None
    """Spec requested while it was being stopped for good; starts after its death."""

    @property
    def state(self) -> State:
        return self._state

    @property
    def address(self) -> Address:
        return self.spec.address

    @property
    def has_process(self) -> bool:
        return self.state in _WITH_PROCESS

    @property
    def shown_state(self) -> ActorState:
        return _SHOWN[self.state]

    @property
    def is_awaited(self) -> bool:
        """True if a stop waits for it."""
        return self.has_process and not self.is_stuck

    def become(self, state: State) -> None:
        assert state is self.state or state in TRANSITIONS[self.state], (self.address, self.state, state)
        before, self._state = self._state, state
        self.census.move(self, before)

    def is_settled(self, strategy: Strategy) -> bool:
        """Return True if later children may start. Siblings that depend on each other do not pass a quarantined one."""
        if self.state is State.QUARANTINED:
            return strategy == "one_for_one"
        return self.state in (State.READY, State.STOPPED, State.ASLEEP) or self.goal is Goal.DOWN

    def launched(self, incarnation: int, now: int) -> None:
        self.restarts += self.started_at > 0 and not self.has_slept
        self.is_falling_asleep = self.is_wanted = self.has_slept = False
        self.become(State.STARTING)
        self.incarnation = incarnation
        self.started_at = self.progress_at = now
        self.turns = -1
        self.is_listening = self.is_death_ordered = self.needs_operator = False
        self.pid = self.ready_since = self.endpoint = self.kill_reason = self.exit_report = None
        self.early_ready = None

    def heard(self, heartbeat: Heartbeat, now: int) -> bool:
        """Record the heartbeat; return True if the state changed. An unchanged counter is no progress."""
        if heartbeat.turns != self.turns:
            self.turns = heartbeat.turns
            self.progress_at = now
        self.report = heartbeat.report
        self.reported_at = now
        if self.state is State.STARTING and heartbeat.phase == "recovering":
            self.become(State.RECOVERING)
            return True
        return False

    def serves(self, now: int) -> None:
        """Record that it is ready."""
        self.become(State.READY)
        self.ready_since = self.progress_at = now
        if self.died_at is not None and self.downtime_ms is None:
            self.downtime_ms = now - self.died_at

    def rest(self) -> None:
        """Record that its process ended to sleep. It waits for a launch if a wake-up arrived meanwhile."""
        self.become(State.WAITING if self.is_wanted else State.ASLEEP)
        self.has_slept = True
        self.died_at = None

    def wake(self) -> None:
        if self.state is State.ASLEEP:
            self.become(State.WAITING)
        elif self.is_falling_asleep:
            self.is_wanted = True

    def silence_limit_ms(self, hang_timeout_ms: int) -> int | None:
        """Return the maximum time without progress; None while silence is no fault."""
        if self.state is State.READY:
            return hang_timeout_ms
        if self.state in (State.STARTING, State.RECOVERING):
            return self.spec.start_timeout_ms
        return None

    def gone(self, reason: str, now: int) -> int:
        """Record the confirmed death; return the milliseconds for which it had been ready."""
        ready_for_ms = 0 if self.ready_since is None else now - self.ready_since
        self.reason = reason
        self.pid = self.ready_since = self.endpoint = None
        self.report, self.reported_at = NO_REPORT, None
        self.died_at, self.downtime_ms = now, None
        self.is_listening = self.is_stuck = False
        return ready_for_ms
