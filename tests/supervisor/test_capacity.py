"""Capacity from the limits of the system."""

from pathlib import Path

import pytest

from planaria.supervisor.capacity import (
    BATCH_DESCRIPTORS,
    CONTROL_DESCRIPTORS_PER_ACTOR,
    DESCRIPTORS_PER_ACTOR,
    OPERATORS_DESCRIPTORS,
    OWN_DESCRIPTORS,
    UNLIMITED,
    SystemLimits,
    capacity_of,
    control_connections,
)
from planaria.supervisor.measurement import measure
from planaria.transport.door import BACKLOG_PART, MAX_BACKLOG


@pytest.mark.parametrize(
    ("limits", "actors", "word"),
    [
        (SystemLimits(descriptors=256), 38, "256 a process"),
        (SystemLimits(descriptors=48), 0, "RLIMIT_NOFILE"),
        (SystemLimits(tasks=664), 200, "664 left"),
        (SystemLimits(memory_bytes=64 * 2**20 + 6_500_000 * 7), 7, "memory"),
        (SystemLimits(descriptors=1_000_000, tasks=100, memory_bytes=2**40), 12, "pids"),
    ],
)
def test_the_smallest_limit_counts(limits: SystemLimits, actors: int, word: str) -> None:
    capacity = capacity_of(limits)
    assert capacity.actors == actors
    assert word in capacity.limit
    assert capacity.new_actors <= capacity.actors


def test_without_limits_there_is_no_bound() -> None:
    assert capacity_of(SystemLimits()) == UNLIMITED
    assert capacity_of(SystemLimits(), max_actors=5).actors == 5


def test_every_cgroup_above_the_process_has_a_say(tmp_path: Path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    inner = cgroups / "slice/unit"
    inner.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/slice/unit\n")
    (proc / "meminfo").write_text("MemTotal: 900000 kB\nMemAvailable: 800000 kB\n")
    (inner / "pids.max").write_text("max\n")
    (cgroups / "slice/pids.max").write_text("500\n")
    (cgroups / "slice/pids.current").write_text("100\n")
    (inner / "memory.max").write_text("100000000\n")
    (inner / "memory.current").write_text("70000000\n")
    (inner / "memory.stat").write_text("anon 1\ninactive_file 20000000\n")
    limits = measure(proc, cgroups)
    assert limits.tasks is not None
    assert limits.tasks <= 400
    assert limits.memory_bytes == 50_000_000


def test_a_system_that_tells_nothing_is_not_limited(tmp_path: Path) -> None:
    assert measure(tmp_path, tmp_path).memory_bytes is None


@pytest.mark.parametrize("descriptors", [128, 256, 1_024, 2_560, 65_536])
def test_the_descriptors_suffice_for_all_actors_and_all_connections(descriptors: int) -> None:
    limits = SystemLimits(descriptors=descriptors)
    actors, connections = capacity_of(limits).actors, control_connections(limits)
    assert connections == CONTROL_DESCRIPTORS_PER_ACTOR * actors + OPERATORS_DESCRIPTORS
    assert BATCH_DESCRIPTORS == MAX_BACKLOG
    batch = min(MAX_BACKLOG, connections // BACKLOG_PART) + 1
    taken = actors * (DESCRIPTORS_PER_ACTOR - CONTROL_DESCRIPTORS_PER_ACTOR) + connections + batch
    assert descriptors - taken >= OWN_DESCRIPTORS - 1


def test_without_a_limit_of_descriptors_there_is_none_of_connections() -> None:
    assert control_connections(SystemLimits()) == UNLIMITED.actors
