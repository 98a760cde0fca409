"""The chaos run on real processes: nothing acknowledged is lost, duplicated, out of order or withheld by any kill."""

import math

import pytest

from planaria.supervisor.chaos import ChaosOptions, Report, chaos_run
from planaria.supervisor.chaos.workload import Load

pytestmark = pytest.mark.processes

LIGHT = Load(messages_per_second=500)
"""The ordinary run shares its machine; the long ones use all of it."""


def run(seed: int, **options: object) -> Report:
    report = chaos_run(ChaosOptions(seed=seed, duration_s=math.inf, **options), print)  # type: ignore[arg-type]
    print(report)
    verdict = report.verdict
    assert verdict.is_clean, verdict.violations
    assert not report.not_recovered
    assert verdict.acknowledged > 0
    assert verdict.unknown == verdict.refused == 0
    assert verdict.in_log == verdict.acknowledged
    assert set(verdict.delivered.values()) == {verdict.acknowledged}
    return report


def test_a_dozen_faults_of_all_kinds(seed: int) -> None:
    report = run(seed, faults=12, interval_ms=300, load=LIGHT)
    assert sum(report.faults.values()) >= 12


@pytest.mark.chaos
def test_hundreds_of_faults_of_all_kinds(seed: int) -> None:
    report = run(seed, faults=240, interval_ms=400)
    assert sum(report.faults.values()) >= 200


@pytest.mark.chaos
@pytest.mark.parametrize("victim", ["partition", "coordinator", "gateway", "controller", "subscriber"])
def test_one_kind_of_actor_is_killed_again_and_again(seed: int, victim: str) -> None:
    report = run(seed, faults=60, interval_ms=300, kinds=("kill", "pair"), victims=(victim,))
    assert set(report.victims) == {victim}


@pytest.mark.chaos
def test_the_supervisor_is_killed_again_and_again(seed: int) -> None:
    report = run(seed, faults=25, interval_ms=1_000, kinds=("supervisor",))
    assert report.faults == {"supervisor": 25}


@pytest.mark.chaos
def test_actors_are_frozen_again_and_again(seed: int) -> None:
    run(seed, faults=30, interval_ms=1_000, kinds=("freeze",))


def test_clocks_step_by_hours_while_actors_die(seed: int) -> None:
    """Step the clocks of one actor and of all, back and forward, with restarts, and with boots of the machine."""
    kinds = ("clock", "clocks", "boot", "kill")
    report = run(seed, faults=10, interval_ms=300, kinds=kinds, load=LIGHT)
    assert report.faults.get("clock", 0) + report.faults.get("clocks", 0) > 0


@pytest.mark.chaos
def test_clocks_step_again_and_again(seed: int) -> None:
    report = run(seed, faults=150, interval_ms=400, kinds=("clock", "clocks", "boot", "kill", "pair"))
    assert report.faults["clock"] > 10
    assert report.faults["clocks"] > 10
