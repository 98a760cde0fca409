"""Deaths, confirmed and described. More of them, with actors, in test_process.py."""

import multiprocessing
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from patience import TIMEOUT_S
from planaria.supervisor.deaths import EXCEPTION_EXIT, STATUS_MS, DeathWatch, describe_exit
from planaria.supervisor.events import ChildDied
from planaria.transport.protocol.control import ASLEEP_EXIT


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-6, "killed by SIGABRT"),
        (-100, "killed by signal 100"),
        (None, "died, exit status unknown"),
        (255, "died, exit status unknown"),
    ],
)
def test_exits_in_words(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


class Watch:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.deaths = DeathWatch(self.selector)

    def start(self, target: Callable[..., Any], *arguments: Any) -> BaseProcess:
        process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
        process.start()
        self.deaths.add("a", 1, process, now_ms())
        return process

    def next_death(self, timeout_s: float = TIMEOUT_S) -> ChildDied:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            wake = self.deaths.next_at()
            for key, _ in self.selector.select(0.5 if wake is None else max(0, wake - now_ms()) / 1000):
                self.deaths.on_readable(key.data, now_ms())
            for death in self.deaths.deaths(now_ms()):
                return death
        raise AssertionError("nobody died")


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@pytest.fixture(params=["pidfd", "sentinel"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """With pidfds, and as on a system without them."""
    if request.param == "sentinel":
        monkeypatch.delattr(os, "pidfd_open")
    watch = Watch()
    yield watch
    assert len(watch.deaths) == 0
    assert len(watch.selector.get_map()) == 0
    watch.selector.close()


@pytest.mark.processes
def test_a_kill_is_a_death(watch: Watch) -> None:
    watch.start(signal.pause)
    watch.deaths.signal("a", 2, signal.SIGKILL)  # another incarnation: no process is hit
    assert watch.deaths.deaths(now_ms()) == []
    watch.deaths.signal("a", 1, signal.SIGKILL)
    assert watch.next_death() == ChildDied("a", 1, "killed by SIGKILL", False)
    watch.deaths.signal("a", 1, signal.SIGKILL)


@pytest.mark.processes
@pytest.mark.parametrize(("code", "is_normal"), [(0, True), (7, False)])
def test_the_exit_code_is_told(watch: Watch, code: int, is_normal: bool) -> None:
    watch.start(os._exit, code)
    assert watch.next_death() == ChildDied("a", 1, f"exit code {code}", is_normal)


@pytest.mark.processes
@pytest.mark.parametrize(("code", "is_normal"), [(EXCEPTION_EXIT, False), (ASLEEP_EXIT, True)])
def test_a_death_that_is_explained_waits_for_the_explanation(
    watch: Watch, code: int, is_normal: bool
) -> None:
    process = watch.start(os._exit, code)
    process.join()
    for key, _ in watch.selector.select(TIMEOUT_S):
        watch.deaths.on_readable(key.data, now_ms())
    assert watch.deaths.deaths(0) == []
    watch.deaths.note_report("a", 1)
    assert watch.deaths.deaths(0) == [ChildDied("a", 1, f"exit code {code}", is_normal)]


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="without pidfds the status is the death")
@pytest.mark.parametrize("has_reported", [True, False])
def test_only_a_death_that_is_explained_waits_long_for_the_status(has_reported: bool) -> None:
    watch = Watch()
    watch.start(signal.pause)
    fork_server: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if has_reported:
        watch.deaths.note_report("a", 1)
    os.kill(fork_server, signal.SIGSTOP)
    try:
        watch.deaths.signal("a", 1, signal.SIGKILL)
        for key, _ in watch.selector.select(TIMEOUT_S):
            watch.deaths.on_readable(key.data, now_ms())
        found = watch.deaths.deaths(now_ms() + STATUS_MS)
    finally:
        os.kill(fork_server, signal.SIGCONT)
    if has_reported:
        assert found == []
        assert watch.next_death() == ChildDied("a", 1, "killed by SIGKILL", False)
    else:
        assert found == [ChildDied("a", 1, "died, exit status unknown", False)]
    watch.selector.close()


@pytest.mark.processes
def test_without_a_last_word_it_waits_no_longer_than_it_must(watch: Watch) -> None:
    watch.start(os._exit, 1)
    assert watch.next_death() == ChildDied("a", 1, "exit code 1", False)
