"""Time limits of a launch: a slow busy machine does not count as wedged. No process is started."""

import multiprocessing
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from planaria.supervisor import launcher as launcher_module
from planaria.supervisor.launcher import LAUNCH_TIMEOUT_S, LOADING_TIMEOUT_S, Launcher, LaunchFailed

ORDER: Any = SimpleNamespace(context=SimpleNamespace(address="controller", incarnation=1))


class Machine:
    """Simulates the operating system and multiprocessing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fork_server = 1
        self.is_silent = False
        self.timeout_s: list[float] = []
        self.killed: list[int] = []
        monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", None)  # type: ignore[attr-defined]
        monkeypatch.setattr(multiprocessing, "get_context", lambda _: self)
        monkeypatch.setattr(launcher_module, "_alarm", self._alarm)
        monkeypatch.setattr(launcher_module, "_fork_server_pid", lambda: self.fork_server)
        monkeypatch.setattr(launcher_module.forkserver, "ensure_running", lambda: None)
        monkeypatch.setattr(launcher_module.os, "kill", lambda pid, _: self.killed.append(pid))

    def set_forkserver_preload(self, modules: list[str]) -> None:
        pass

    def Process(self, **_: Any) -> Any:  # noqa: N802 - as multiprocessing calls it
        return SimpleNamespace(start=self._start)

    def _start(self) -> None:
        if self.is_silent:
            raise launcher_module.ForkServerSilent

    def _alarm(self, timeout_s: float) -> Any:
        self.timeout_s.append(timeout_s)
        return nullcontext()


def test_a_fork_server_that_has_to_load_first_is_given_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    launcher = Launcher([], "/run/planaria")
    for _ in range(2):
        launcher.launch(ORDER)
    machine.fork_server = 2
    for _ in range(2):
        launcher.launch(ORDER)
    assert machine.timeout_s == [LOADING_TIMEOUT_S, LAUNCH_TIMEOUT_S] * 2


def test_one_that_does_not_answer_is_killed_and_the_next_one_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    launcher = Launcher([], "/run/planaria")
    launcher.launch(ORDER)
    machine.is_silent = True
    with pytest.raises(LaunchFailed, match="did not answer"):
        launcher.launch(ORDER)
    assert machine.killed == [1]
    machine.is_silent = False
    launcher.launch(ORDER)
    assert machine.timeout_s == [LOADING_TIMEOUT_S, LAUNCH_TIMEOUT_S, LOADING_TIMEOUT_S]
