"""The watch of an actor over its supervisor: the machine, and the loop that ends by it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loop_actor import LoopRun
from planaria.transport.protocol.control import Heard, Heartbeat
from planaria.transport.supervisor_watch import SupervisorWatch

LIMIT_MS = 5_000
INTERVAL_MS = 500


@pytest.fixture
def watch() -> SupervisorWatch:
    return SupervisorWatch(LIMIT_MS, INTERVAL_MS)


def test_a_supervisor_that_answers_does_not_hang(watch: SupervisorWatch) -> None:
    for now in range(0, 10 * LIMIT_MS, INTERVAL_MS):
        assert not watch.on_heartbeat(now)
        watch.on_answer()


def test_it_hangs_once_it_has_not_answered_for_the_limit(watch: SupervisorWatch) -> None:
    watch.on_heartbeat(0)
    watch.on_answer()
    silent = [watch.on_heartbeat(now) for now in range(INTERVAL_MS, LIMIT_MS + INTERVAL_MS, INTERVAL_MS)]
    assert not any(silent)
    assert watch.on_heartbeat(LIMIT_MS + INTERVAL_MS)


def test_an_answer_in_the_last_moment_starts_the_time_over(watch: SupervisorWatch) -> None:
    for now in range(0, LIMIT_MS, INTERVAL_MS):
        assert not watch.on_heartbeat(now)
    watch.on_answer()
    for now in range(LIMIT_MS, 2 * LIMIT_MS, INTERVAL_MS):
        assert not watch.on_heartbeat(now)
    assert watch.on_heartbeat(2 * LIMIT_MS)


def test_the_time_for_which_this_process_did_not_run_does_not_count(watch: SupervisorWatch) -> None:
    assert not watch.on_heartbeat(0)
    assert not watch.on_heartbeat(INTERVAL_MS)
    thawed = INTERVAL_MS + 100 * LIMIT_MS
    for now in range(thawed, thawed + LIMIT_MS, INTERVAL_MS):
        assert not watch.on_heartbeat(now)
    assert watch.on_heartbeat(thawed + LIMIT_MS)


def test_beats_that_are_a_little_late_still_count(watch: SupervisorWatch) -> None:
    late = [watch.on_heartbeat(now) for now in range(0, LIMIT_MS, 2 * INTERVAL_MS)]
    assert not any(late)
    assert watch.on_heartbeat(LIMIT_MS)


@pytest.fixture
def run(run_dir: Path) -> Iterator[LoopRun]:
    started = LoopRun(str(run_dir))
    yield started
    started.close()


def test_an_actor_that_needs_its_supervisor_goes_on_while_that_answers_and_ends_then(run: LoopRun) -> None:
    run.actor.needs_supervisor = True
    run.context.hang_timeout_ms = 1_000
    run.start()
    answered_until = time.monotonic() + 2.0
    while time.monotonic() < answered_until:
        run.hear(lambda word: isinstance(word, Heartbeat) and word.is_answered)
        run.order(Heard())
    assert run._thread.is_alive()
    run.join()
    assert run.actor.closed


def test_any_other_actor_asks_for_no_answer_and_goes_on(run: LoopRun) -> None:
    run.context.hang_timeout_ms = 1
    run.start()
    heartbeats = [run.hear(lambda word: isinstance(word, Heartbeat)) for _ in range(5)]
    assert not any(word.is_answered for word in heartbeats)
    assert run._thread.is_alive()


def test_heartbeats_of_a_start_ask_for_no_answer(run: LoopRun) -> None:
    """An actor that opens its files reads no messages meanwhile."""
    run.actor.needs_supervisor = True
    run.actor.steps_of_recovery = 3
    run.context.hang_timeout_ms = 1
    run.launch()
    words = [run.hear(lambda word: isinstance(word, Heartbeat)) for _ in range(4)]
    assert [(word.phase, word.is_answered) for word in words] == [
        ("starting", False), ("recovering", False), ("recovering", False), ("recovering", False)
    ]  # fmt: skip
