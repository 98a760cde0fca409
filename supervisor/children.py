"""One child as the supervisor sees it: its process, its state, its goal. Owned by tree.py, driven by machine.py. Pure.

    waiting ──launch──▶ starting ──heartbeat──▶ recovering ──ready──▶ ready
       ▲                    └───────────────ready──────────────────────┘│
       │  starting, recovering, ready ── asked to stop, hung ──▶ stopping
       │
       │  confirmed death, by goal:
       ├── up ────────▶ backing_off ──timer──▶ waiting          (over the intensity: quarantined, then the same)
       ├── cycle ─────▶ waiting, until its turn in the order comes again
       └── down ──────▶ stopped
    A child that needs no restart (temporary; transient after exit 0) ends in stopped as well. One that said that it
    falls asleep, and then exited with 0, is asleep until it is woken: then it waits for a launch, which is no restart.

Only a confirmed death leads out of starting, recovering, ready and stopping: so there are never two of one child.
"""

from dataclasses import dataclass, field
from enum import Enum

from ..transport.machine import Sender
from ..transport.protocol.control import ChildSpec, Heartbeat
from ..transport.protocol.operations import NO_RETRIES, ActorState, InFlight, RetryReport
from .child_spec import Strategy
from .restart import RestartHistory


class State(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    RECOVERING = "recovering"
    READY = "ready"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"
    ASLEEP = "asleep"


class Goal(Enum):
    UP = "up"
    CYCLE = "cycle"
    """Down first, then up in its turn: a sibling's death asks for it."""
    DOWN = "down"


_WITH_PROCESS = frozenset({State.STARTING, State.RECOVERING, State.READY, State.STOPPING})
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
    """What the next incarnation is started with."""
    announced: ChildSpec
    """The spec as it was asked for, to know a repeated request by."""
    history: RestartHistory
    is_dynamic: bool
    state: State = State.WAITING
    goal: Goal = Goal.UP
    has_turn: bool = False
    """Its place in the start order has been reached; from then on it is restarted without regard to the order."""
    incarnation: int = 0
    restarts: int = 0
    pid: int | None = None
    started_at: int = 0
    ready_since: int | None = None
    progress_at: int = 0
    turns: int = -1
    is_listening: bool = False
    """It has spoken, so its control socket is connected and messages reach it."""
    endpoint: str | None = None
    reason: str | None = None
    traceback: str | None = None
    alarms: tuple[str, ...] = ()
    """As it told with its last heartbeat."""
    in_flight: tuple[InFlight, ...] = ()
    retrying: RetryReport = NO_RETRIES
    kill_reason: str | None = None
    """Why we are killing it; it will be part of the reason of its death."""
    exit_report: str | None = None
    """The reason it gave itself before it died."""
    needs_operator: bool = False
    """It said that another start would fail in the same way."""
    is_falling_asleep: bool = False
    """It said so; its exit is near."""
    is_wanted: bool = False
    """It was called while it fell asleep."""
    has_slept: bool = False
    """Its last incarnation has fallen asleep, or it was added asleep."""
    wake_after_ms: int | None = None
    """As it said when it fell asleep: how long it may sleep though nobody calls."""
    is_death_ordered: bool = False
    """An operator has sent it a signal; its death will not count."""
    is_stuck: bool = False
    """SIGKILL did not end it in time: it is inside the kernel, and nobody can do anything about it."""
    stop_waiters: list[Sender] = field(default_factory=list)
    successor: ChildSpec | None = None
    """Asked for while it was being stopped for good: what comes after it."""

    @property
    def address(self) -> str:
        return self.spec.address

    @property
    def has_process(self) -> bool:
        return self.state in _WITH_PROCESS

    @property
    def shown_state(self) -> ActorState:
        return _SHOWN[self.state]

    @property
    def is_awaited(self) -> bool:
        """Whether a stop waits for it."""
        return self.has_process and not self.is_stuck

    def is_settled(self, strategy: Strategy) -> bool:
        """Whether those after it may start. Siblings that depend on each other do not pass a quarantined one."""
        if self.state is State.QUARANTINED:
            return strategy == "one_for_one"
        return self.state in (State.READY, State.STOPPED, State.ASLEEP) or self.goal is Goal.DOWN

    def launched(self, incarnation: int, now: int) -> None:
        self.restarts += self.started_at > 0 and not self.has_slept
        self.is_falling_asleep = self.is_wanted = self.has_slept = False
        self.state = State.STARTING
        self.incarnation = incarnation
        self.started_at = self.progress_at = now
        self.turns = -1
        self.is_listening = self.is_death_ordered = self.needs_operator = False
        self.pid = self.ready_since = self.endpoint = self.kill_reason = self.exit_report = None

    def heard(self, heartbeat: Heartbeat, now: int) -> bool:
        """Note the heartbeat; whether the state has changed. A counter that stands still is no progress."""
        if heartbeat.turns != self.turns:
            self.turns = heartbeat.turns
            self.progress_at = now
        self.alarms = heartbeat.alarms
        self.in_flight = heartbeat.in_flight
        self.retrying = heartbeat.retrying
        if self.state is State.STARTING and heartbeat.phase == "recovering":
            self.state = State.RECOVERING
            return True
        return False

    def rest(self) -> None:
        """Its process has ended to sleep. It waits for a launch if it was called meanwhile."""
        self.state = State.WAITING if self.is_wanted else State.ASLEEP
        self.has_slept = True

    def wake(self) -> None:
        if self.state is State.ASLEEP:
            self.state = State.WAITING
        elif self.is_falling_asleep:
            self.is_wanted = True

    def silence_limit_ms(self, hang_timeout_ms: int) -> int | None:
        """How long it may go without progress; None while that is no fault."""
        if self.state is State.READY:
            return hang_timeout_ms
        if self.state in (State.STARTING, State.RECOVERING):
            return self.spec.start_timeout_ms
        return None

    def gone(self, reason: str, now: int) -> int:
        """The process is confirmed dead; returns how long it had been ready, in milliseconds."""
        ready_for_ms = 0 if self.ready_since is None else now - self.ready_since
        self.reason = reason
        self.pid = self.ready_since = self.endpoint = None
        self.alarms = ()
        self.in_flight = ()
        self.retrying = NO_RETRIES
        self.is_listening = self.is_stuck = False
        return ready_for_ms
