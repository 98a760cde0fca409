"""A supervision machine in a simulated world: processes are entries in a table, time is a number. No sleep.

Checks the invariants on every step: never two processes of one child, nothing launched twice under
one incarnation, nothing launched once the tree has stopped.
"""

from typing import Any

from planaria.supervisor.capacity import UNLIMITED, Capacity
from planaria.supervisor.child_spec import DynamicSpec, SupervisorSpec
from planaria.supervisor.events import (
    Begin,
    ChildDied,
    ChildStarted,
    Launch,
    Log,
    ReportStatus,
    Signal,
    StopBegins,
    Tell,
    TreeFailed,
    TreeUp,
)
from planaria.supervisor.lifecycle import SupervisorIdentity
from planaria.supervisor.machine import SupervisorMachine, Timing
from planaria.supervisor.restart import RestartPolicy
from planaria.supervisor.stop_gate import StopPolicy
from planaria.transport.addresses import Address
from planaria.transport.machine import (
    CancelTimer,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from planaria.transport.protocol.control import (
    EVERYBODY,
    ActorFailed,
    ChildSpec,
    FallingAsleep,
    Heard,
    Heartbeat,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Phase,
    Ready,
)
from planaria.transport.protocol.control import Stop as StopNotice
from planaria.transport.protocol.message import Request
from planaria.transport.timers import Timers

IDENTITY = SupervisorIdentity(
    pid=1, instance_id="i", data_directory="/data", public_address=Address.parse("gateway/0")
)


def worker(address: str, **options: Any) -> ChildSpec:
    return ChildSpec(address=Address.parse(address), start="module:main", **options)


def supervisor(strategy: Any, *children: str) -> SupervisorSpec:
    return SupervisorSpec(name="root", strategy=strategy, children=tuple(worker(name) for name in children))


def broker_like() -> SupervisorSpec:
    return SupervisorSpec(
        name="root",
        children=(
            worker("controller", directory=EVERYBODY),
            DynamicSpec(name="partitions", kind="partition", max_starting=2),
            worker("gateway/0", directory=EVERYBODY, arguments={"endpoint": "tcp://127.0.0.1:*"}),
            DynamicSpec(name="coordinators", kind="coordinator"),
        ),
    )


class World:
    def __init__(
        self,
        spec: SupervisorSpec,
        *,
        policy: RestartPolicy | None = None,
        jitter: float = 1.0,
        capacity: Capacity = UNLIMITED,
        stop_policy: StopPolicy = "at_once",
    ) -> None:
        self.now = 1_000_000
        self.machine = SupervisorMachine(
            spec,
            IDENTITY,
            policy=policy or RestartPolicy(),
            timing=Timing(),
            jitter=lambda: jitter,
            capacity=capacity,
            stop_policy=stop_policy,
        )
        self.timers = Timers()
        self.processes: dict[str, int] = {}
        """Living processes: incarnation by address."""
        self.incarnations: dict[str, int] = {}
        self.silent: set[str] = set()
        """Actors that send no heartbeats when time passes, although ready."""
        self.held_starts: list[ChildStarted] | None = None
        """Answers of the fork server that are late; None while it answers at once."""
        self.stop_reason: str | None = None
        self.launched: list[str] = []
        self.signals: list[tuple[str, str]] = []
        self.asked_to_stop: list[str] = []
        self.answered: list[str] = []
        """Actors whose heartbeats were answered."""
        self.news: dict[str, list[PeerUp | PeerDown | PeersAsleep]] = {}
        """Notifications that each child received about others."""
        self.replies: list[Reply] = []
        self.reports: list[ReportStatus] = []
        self.logs: list[Log] = []
        self.up: str | None = None
        self.failed: str | None = None
        self.has_stopped = False
        self.stops = 0
        """Number of stops that have begun."""
        self.give(Begin())

    # Events.

    def give(self, event: Any) -> None:
        for effect in self.machine.handle(event, self.now):
            self._perform(effect)

    def _perform(self, effect: Any) -> None:
        match effect:
            case Launch():
                address = effect.spec.address
                assert not self.has_stopped
                assert address not in self.processes, f"two processes of {address}"
                assert effect.incarnation > self.incarnations.get(address, 0)
                self.processes[address] = self.incarnations[address] = effect.incarnation
                self.launched.append(address)
                started = ChildStarted(address, effect.incarnation, 100 + len(self.launched))
                if self.held_starts is None:
                    self.give(started)
                else:
                    self.held_starts.append(started)
            case Signal():
                if self.processes.get(effect.address) == effect.incarnation:
                    self.signals.append((effect.address, effect.signal))
            case Tell():
                assert self.processes.get(effect.address) == effect.incarnation
                if isinstance(effect.request, StopNotice):
                    self.asked_to_stop.append(effect.address)
                elif isinstance(effect.request, Heard):
                    self.answered.append(effect.address)
                else:
                    assert isinstance(effect.request, PeerUp | PeerDown | PeersAsleep)
                    self.news.setdefault(effect.address, []).append(effect.request)
            case SetTimer():
                self.timers.set(effect.key, effect.at)
            case CancelTimer():
                self.timers.cancel(effect.key)
            case Reply():
                self.replies.append(effect)
            case ReportStatus():
                self.reports.append(effect)
            case Log():
                self.logs.append(effect)
            case StopBegins():
                self.stops += 1
            case TreeUp():
                assert self.up is None
                self.up = effect.endpoint
            case TreeFailed():
                self.failed = effect.reason
            case Stop():
                assert not self.has_stopped
                # Only stuck children, killed in vain, are left behind.
                assert {(address, "SIGKILL") for address in self.processes} <= set(self.signals)
                self.has_stopped = True
                self.stop_reason = effect.reason
            case _:
                raise AssertionError(effect)

    def ready(self, *addresses: str, endpoint: str | None = None, is_death_accounted: bool = False) -> None:
        for address in addresses:
            where = endpoint or f"ipc://{address}.{self.processes[address]}"
            self.give(
                Ready(
                    address=Address.parse(address),
                    incarnation=self.processes[address],
                    endpoint=where,
                    is_death_accounted=is_death_accounted,
                )
            )

    def beat(
        self, address: str, turns: int, phase: Phase = "ready", *, is_answered: bool = False, back: int = 0
    ) -> None:
        """Send a heartbeat of the present incarnation, or of one that lies so far back."""
        self.give(
            Heartbeat(
                address=Address.parse(address),
                incarnation=self.processes[address] - back,
                phase=phase,
                turns=turns,
                is_answered=is_answered,
            )
        )

    def fail(self, address: str, reason: str) -> None:
        """Die of an exception, after an exit report."""
        incarnation = self.processes[address]
        self.give(
            ActorFailed(
                address=Address.parse(address),
                incarnation=incarnation,
                reason=reason,
                traceback="Traceback ...",
            )
        )
        self.die(address, "exit code 1")

    def die(self, address: str, reason: str = "killed by SIGKILL") -> None:
        incarnation = self.processes.pop(address)
        self.give(ChildDied(address, incarnation, reason, reason == "exit code 0"))

    def fall_asleep(self, address: str, reason: str = "no work", wake_after_ms: int | None = None) -> None:
        """Announce sleep; the process still exists."""
        incarnation = self.processes[address]
        self.give(
            FallingAsleep(
                address=Address.parse(address),
                incarnation=incarnation,
                reason=reason,
                wake_after_ms=wake_after_ms,
            )
        )

    def crash_until_quarantined(self, address: str) -> None:
        while self.state(address) != "quarantined":
            self.fail(address, "RuntimeError: no")
            while self.state(address) == "backing_off":
                self.pass_time(100)

    def pass_time(self, duration_ms: int) -> None:
        """Fire the timers that fall due, in order, each at its own time."""
        end = self.now + duration_ms
        while (at := self.timers.next_at()) is not None and at <= end:
            self.now = max(self.now, at)
            for address in list(self.processes):
                if self.state(address) == "ready" and address not in self.silent:
                    self.beat(address, self.now)
            for key in self.timers.pop_due(self.now):
                self.give(TimerFired(key))
        self.now = end

    def ask(self, request: Request, request_id: int = 1, peer: bytes = b"peer") -> Any:
        """Return the body of the answer, if there is one already."""
        before = len(self.replies)
        self.give(Received(Sender((peer,), request_id), request))
        return self.replies[before].body if len(self.replies) > before else None

    def stop(self) -> None:
        self.give(StopRequested(0))

    # Observations.

    def state(self, address: str) -> str:
        child = self.machine.tree.get(address)
        return "unknown" if child is None else child.shown_state

    def reason(self, address: str) -> str | None:
        child = self.machine.tree.get(address)
        assert child is not None
        return child.reason


def three(strategy: str) -> World:
    """Return a, b and c, up and ready."""
    world = World(supervisor(strategy, "a", "b", "c"))
    world.ready("a")
    world.ready("b")
    world.ready("c")
    assert world.up is not None
    world.launched.clear()
    return world


# Start.
