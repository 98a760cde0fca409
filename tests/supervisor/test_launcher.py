"""Launches: none is waited for, time limits tell a busy machine from a wedged one. No process is started."""

import multiprocessing
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from planaria.supervisor import launcher as launcher_module
from planaria.supervisor.deaths import DeathWatch
from planaria.supervisor.events import ChildDied, ChildStarted, Launch
from planaria.supervisor.launcher import LAUNCH_TIMEOUT_S, LOADING_TIMEOUT_S, Launcher, LaunchFailed
from planaria.supervisor.launches import Launches
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import ChildSpec

ORDER: Any = SimpleNamespace(context=SimpleNamespace(address="controller", incarnation=1))


class Process:
    """A process of the fork server, which answers when the test says so."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self.sentinel, self._writer = os.pipe()
        self.pid: int | None = None

    def start(self) -> None:
        if self._machine.is_silent:
            raise launcher_module.ForkServerSilent

    def answer(self, pid: int) -> None:
        os.write(self._writer, pid.to_bytes(4, "big"))

    def end(self) -> None:
        for descriptor in (self.sentinel, self._writer):
            with suppress(OSError):
                os.close(descriptor)

    def lose(self) -> None:
        os.close(self._writer)

    def read_pid(self) -> None:
        if not (said := os.read(self.sentinel, 4)):
            raise EOFError
        self.pid = int.from_bytes(said, "big")


class Machine:
    """Simulates the operating system and multiprocessing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fork_server = 1
        self.is_silent = False
        self.killed: list[int] = []
        self.processes: list[Process] = []
        monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)  # type: ignore[attr-defined]
        monkeypatch.setattr(launcher_module, "ForkedProcess", self._process)
        monkeypatch.setattr(launcher_module, "_alarm", lambda _: nullcontext())
        monkeypatch.setattr(launcher_module, "_fork_server_pid", lambda: self.fork_server)
        monkeypatch.setattr(launcher_module.forkserver, "ensure_running", lambda: None)
        monkeypatch.setattr(launcher_module.os, "kill", lambda pid, _: self.killed.append(pid))
        self.launcher = Launcher([], "/run/planaria")

    def _process(self, **_: Any) -> Process:
        self.processes.append(Process(self))
        return self.processes[-1]

    def launch(self) -> float:
        process = self.launcher.begin(ORDER)
        self.processes[-1].answer(7)
        self.launcher.complete(process)
        assert process.pid == 7
        return self.launcher.time_limit_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(monkeypatch)
    yield machine
    for process in machine.processes:
        process.end()


def test_a_fork_server_that_has_to_load_first_is_given_longer(machine: Machine) -> None:
    limits = [machine.launch(), machine.launch()]
    machine.fork_server = 2
    limits += [machine.launch(), machine.launch()]
    assert limits == [LOADING_TIMEOUT_S, LAUNCH_TIMEOUT_S] * 2


def test_one_that_takes_no_order_is_killed_and_the_next_one_loads(machine: Machine) -> None:
    machine.launch()
    machine.is_silent = True
    with pytest.raises(LaunchFailed, match="did not answer"):
        machine.launcher.begin(ORDER)
    assert machine.killed == [1]
    machine.is_silent = False
    assert machine.launch() == LOADING_TIMEOUT_S


def test_a_child_starts_a_resource_tracker_only_when_it_needs_one() -> None:
    """A program stands for the supervisor, and then for its child: multiprocessing has one tracker a process."""
    program = (
        "from multiprocessing import resource_tracker as tracking\n"
        "from planaria.supervisor.forking import replace_tracker, restore_tracker\n"
        "replace_tracker()\n"
        "tracking.ensure_running()\n"
        "print(tracking._resource_tracker._pid)\n"
        "restore_tracker()\n"
        "tracking.ensure_running()\n"
        "print(tracking._resource_tracker._pid is not None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["None", "True"], "")


class Deaths(DeathWatch):
    def __init__(self) -> None:
        self.added: list[tuple[str, int]] = []
        self.signalled: list[tuple[str, signal.Signals]] = []

    def add(self, address: str, incarnation: int, process: Any, now: int) -> None:
        self.added.append((address, incarnation))

    def signal(self, address: str, incarnation: int, number: signal.Signals) -> None:
        self.signalled.append((address, number))


class Queue:
    def __init__(self, machine: Machine) -> None:
        self.selector = selectors.DefaultSelector()
        self.deaths = Deaths()
        self.launches = Launches(machine.launcher, self.selector, self.deaths, lambda _: ORDER)
        for address in "abc":
            self.launches.add(Launch(ChildSpec(address=Address.parse(address), start="m:f"), 1))

    def turn(self, now: int = 0) -> list[Any]:
        found: list[Any] = []
        for key, _ in self.selector.select(0):
            found += key.data()
        return [*found, *self.launches.overdue(now), *self.launches.begin(lambda: self.answered(now), now)]

    def answered(self, now: int) -> Any:
        return self.launches.answered(now)


def test_nothing_waits_for_the_fork_server_and_one_launch_is_begun_at_a_time(machine: Machine) -> None:
    queue = Queue(machine)
    for _ in range(3):
        assert queue.turn() == []
    assert len(machine.processes) == 1
    assert not queue.launches.is_due
    machine.processes[0].answer(11)
    assert queue.turn() == [ChildStarted("a", 1, 11)]
    assert len(machine.processes) == 2
    machine.processes[1].lose()
    (failed,) = queue.turn()
    assert (failed.address, failed.is_normal) == ("b", False)
    assert "no process could be started: EOFError" in failed.reason
    assert queue.deaths.added == [("a", 1)]


def test_a_fork_server_that_does_not_answer_in_time_is_killed(machine: Machine) -> None:
    queue = Queue(machine)
    queue.turn()
    at = int(LOADING_TIMEOUT_S * 1000)
    assert queue.launches.next_at() == at
    assert queue.turn(at - 1) == []
    (failed,) = queue.turn(at)
    assert "did not answer and was killed" in failed.reason
    assert machine.killed == [1]
    assert len(machine.processes) == 2


def test_a_signal_reaches_a_child_wherever_its_launch_is(machine: Machine) -> None:
    queue = Queue(machine)
    queue.turn()
    assert queue.launches.signal("c", 1, signal.SIGTERM) == [
        ChildDied("c", 1, "SIGTERM before it had a process", False)
    ]
    assert queue.launches.signal("a", 1, signal.SIGKILL) == []
    assert queue.deaths.signalled == []
    machine.processes[0].answer(11)
    queue.turn()
    assert queue.deaths.signalled == [("a", signal.SIGKILL)]
    queue.launches.signal("a", 1, signal.SIGTERM)
    assert queue.deaths.signalled[1:] == [("a", signal.SIGTERM)]
    machine.processes[1].answer(12)
    assert queue.turn() == [ChildStarted("b", 1, 12)]
    assert len(machine.processes) == 2, "c is not launched"
