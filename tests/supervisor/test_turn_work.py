"""The supervisor's work for one event does not grow with the number of children, so operators are answered in between.

The work is counted in executed bytecode instructions: the same on a busy machine as on an idle one.
"""

import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from planaria.supervisor.broker_tree import broker_tree
from planaria.supervisor.events import Begin, CheckTimer, ChildDied, ChildStarted, Launch, RestartTimer
from planaria.supervisor.machine import SupervisorMachine, Timing
from planaria.supervisor.restart import RestartPolicy
from planaria.transport.addresses import Address
from planaria.transport.machine import Received, Sender, TimerFired
from planaria.transport.protocol.control import EVERYBODY, ChildSpec, Heartbeat, Phase, Ready, StartChild
from planaria.transport.protocol.operations import Status
from supervision import IDENTITY

SETTLED = 1.3
"""Growth of the work that still counts as none: dictionaries and sorted prefixes of another size."""


def instructions(action: Callable[[], object]) -> int:
    """Return the number of bytecode instructions that the action executes, in all its calls."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


class Machine:
    """A supervision machine whose launches are answered at once."""

    def __init__(self, partitions: int) -> None:
        tree = broker_tree("tcp://127.0.0.1:*", {})
        self.machine = SupervisorMachine(
            tree, IDENTITY, policy=RestartPolicy(), timing=Timing(), jitter=lambda: 1.0
        )
        self.launches: deque[tuple[str, int]] = deque()
        self.work: dict[str, int] = {}
        """The largest work for one event, by kind."""
        self.give("begin", Begin())
        self.start_all()
        for number in range(partitions):
            self.start(number)
        self.start_all()
        self.work.clear()

    def give(self, kind: str, event: Any, *, is_counted: bool = False) -> None:
        effects: list[Any] = []

        def handle() -> None:
            effects.extend(self.machine.handle(event, 0))

        if is_counted:
            self.work[kind] = max(self.work.get(kind, 0), instructions(handle))
        else:
            handle()
        self.launches += [
            (each.spec.address, each.incarnation) for each in effects if isinstance(each, Launch)
        ]

    def start(self, number: int, *, is_counted: bool = False) -> None:
        spec = ChildSpec(
            address=Address.parse(f"partition/T/{number}"),
            start="module:main",
            directory=("transactions", "scheduler"),
        )
        self.give(
            "start_child", Received(Sender((b"c",), number), StartChild(spec=spec)), is_counted=is_counted
        )

    def start_all(self, *, is_counted: bool = False) -> None:
        def beat(address: str, incarnation: int, turns: int, phase: Phase) -> Heartbeat:
            return Heartbeat(
                address=Address.parse(address), incarnation=incarnation, turns=turns, phase=phase
            )

        while self.launches:
            which = self.launches.popleft()
            self.give("started", ChildStarted(*which, 1), is_counted=is_counted)
            self.give("first heartbeat", beat(*which, 1, "starting"), is_counted=is_counted)
            self.give("recovering", beat(*which, 2, "recovering"), is_counted=is_counted)
            self.give("heartbeat", beat(*which, 3, "recovering"), is_counted=is_counted)
            ready = Ready(address=Address.parse(which[0]), incarnation=which[1], endpoint="ipc://x")
            self.give("ready", ready, is_counted=is_counted)


def work_beside(partitions: int) -> dict[str, int]:
    """Return the work while twenty more start beside that many, and one dies and is restarted."""
    machine = Machine(partitions)
    for number in range(20):
        machine.start(partitions + number, is_counted=True)
    machine.start_all(is_counted=True)
    machine.give("died", ChildDied("partition/T/0", 1, "killed", False), is_counted=True)
    machine.give("restart", TimerFired(RestartTimer("partition/T/0")), is_counted=True)
    machine.start_all(is_counted=True)
    return machine.work


def test_the_work_for_one_event_does_not_grow_with_the_number_of_children() -> None:
    few, many = work_beside(30), work_beside(600)
    print({kind: (few[kind], many[kind]) for kind in few})
    assert few.keys() == many.keys()
    assert {kind: (few[kind], many[kind]) for kind in few if many[kind] > SETTLED * few[kind]} == {}


@pytest.mark.parametrize(
    ("event", "limit"), [(Received(Sender((b"o",), 1), Status()), 150), (TimerFired(CheckTimer()), 60)]
)
def test_the_work_for_a_look_at_all_children_is_small_for_each(event: Any, limit: int) -> None:
    machine = Machine(600)
    machine.give("look", event, is_counted=True)
    assert machine.work["look"] / 600 < limit


def test_the_directory_of_a_child_that_is_notified_of_all_is_the_only_one_that_grows() -> None:
    spec = ChildSpec(address=Address.parse("coordinator/g"), start="module:main", directory=EVERYBODY)
    machine = Machine(600)
    machine.give("start", Received(Sender((b"c",), 1), StartChild(spec=spec)))
    machine.start_all(is_counted=True)
    assert machine.work["first heartbeat"] / 600 < 150
