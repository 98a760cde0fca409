"""Processes that are stopped for a moment go on, whatever becomes of the one that stopped them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from live_trees import until
from planaria.supervisor.freezing import FreezeFailed, Process, descendants, frozen, processes

pytestmark = pytest.mark.processes

SLEEP = "import time; time.sleep(600)"
TREE = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(600)"
FREEZE = """
import sys, time
from planaria.supervisor.freezing import frozen
with frozen(int(sys.argv[1]), int(sys.argv[2])):
    print("stopped", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def ancestor() -> Iterator[int]:
    """A process with a child and a grandchild."""
    launch = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {TREE!r}]); time.sleep(600)"
    )
    tree = subprocess.Popen([sys.executable, "-c", launch], start_new_session=True)
    until(lambda: len(descendants(processes(), tree.pid)) == 2, "a child and a grandchild")
    yield tree.pid
    os.killpg(tree.pid, signal.SIGKILL)
    tree.wait()


def states(ancestor: int) -> set[str]:
    found = processes()
    return {found[pid].state[0] for pid in descendants(found, ancestor)}


def test_all_below_are_stopped_in_the_block_and_run_after_it(ancestor: int) -> None:
    with frozen(ancestor):
        assert states(ancestor) == {"T"}
        assert processes()[ancestor].state[0] != "T"
    until(lambda: "T" not in states(ancestor), "running processes")


@pytest.mark.parametrize("limit_ms", [60_000, 500])
def test_they_run_again_when_their_stopper_is_killed_or_hangs(ancestor: int, limit_ms: int) -> None:
    stopper = subprocess.Popen(
        [sys.executable, "-c", FREEZE, str(ancestor), str(limit_ms)], stdout=subprocess.PIPE
    )
    assert stopper.stdout is not None
    assert stopper.stdout.readline() == b"stopped\n"
    if limit_ms > 1_000:
        stopper.kill()
    until(lambda: "T" not in states(ancestor), "running processes")
    stopper.kill()
    stopper.wait()
    stopper.stdout.close()


def test_a_stop_that_took_too_long_is_told(ancestor: int) -> None:
    with pytest.raises(FreezeFailed, match="took"), frozen(ancestor, limit_ms=50):
        time.sleep(0.1)


def test_a_process_without_descendants_cannot_be_stopped() -> None:
    with pytest.raises(FreezeFailed, match="no actors"), frozen(os.getpid() + 10_000_000):
        pass


def test_descendants_are_those_at_any_depth() -> None:
    found = {2: Process(1, "S"), 3: Process(2, "S"), 4: Process(3, "S"), 5: Process(1, "S")}
    assert descendants(found, 2) == {3, 4}
