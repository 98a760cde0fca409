"""Two stages of transactions under faults: the output is the input, once each, in order by key."""

import math

import pytest

from planaria.supervisor.chaos.pipeline import PipelineOptions, PipelineReport, pipeline_run

pytestmark = pytest.mark.processes


def run(options: PipelineOptions) -> PipelineReport:
    report = pipeline_run(options, print)
    print(report)
    for findings in report.stages:
        assert findings.is_clean, findings.examples
    assert report.output == report.input > 0
    assert report.transactions["ok"] > 0
    assert report.hosted["returned"] > 0
    assert report.is_clean
    return report


@pytest.mark.timeout(200)
def test_output_is_input_whoever_is_killed(seed: int) -> None:
    report = run(PipelineOptions(seed=seed, duration_s=math.inf, faults=6))
    assert sum(report.faults.values()) >= 6


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_handlers_in_a_worker_keep_the_promises_of_hosted_ones(seed: int) -> None:
    """Every process of the worker is killed, too: the command, its supervisor, the subscribers."""
    report = run(PipelineOptions(seed=seed, is_outside=True))
    assert report.faults["kill worker"] >= 5


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_a_fault_every_300_ms_for_a_minute(seed: int) -> None:
    report = run(PipelineOptions(seed=seed))
    assert sum(report.faults.values()) >= 100
