"""`planaria demo`, `chaos` and `bench`: options are passed on, and the exit code is returned."""

from pathlib import Path
from typing import Any

import pytest

from command_line import planaria
from planaria.supervisor import bench, chaos, demo
from planaria.supervisor.demo import mirror


@pytest.mark.parametrize(
    ("arguments", "module", "function", "options"),
    [
        (["demo", "--duration", "5"], demo, "run_demo", demo.DemoOptions(duration_s=5.0)),
        (
            ["demo", "--record", "demo.svg"],
            demo,
            "run_demo",
            demo.DemoOptions(record=Path("demo.svg")),
        ),
        (["chaos"], chaos, "run_chaos", chaos.ChaosOptions()),
        (
            [
                "chaos",
                "--duration",
                "9",
                "--seed",
                "3",
                "--partitions",
                "2",
                "--interval-ms",
                "50",
                "--faults",
                "4",
            ],
            chaos,
            "run_chaos",
            chaos.ChaosOptions(duration_s=9.0, seed=3, partitions=2, interval_ms=50, faults=4),
        ),
        (["bench"], bench, "run_bench", bench.BenchOptions()),
        (
            ["bench", "--rows", "latency,memory", "--rows", "both", "--quick", "--json"],
            bench,
            "run_bench",
            bench.BenchOptions(rows=("latency", "memory", "both"), quick=True, json=True),
        ),
        (
            ["bench", "--cluster", "--kills", "2", "--rows", "leader-killed"],
            bench,
            "run_bench",
            bench.BenchOptions(rows=("leader-killed",), cluster=True, kills=2),
        ),
    ],
)
def test_options_and_exit_code(
    arguments: list[str], module: Any, function: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def run(options: Any, console: Any) -> int:
        given.append(options)
        console.print("[bold]ran[/bold]")
        return 1

    monkeypatch.setattr(module, function, run)
    done = planaria(*arguments)
    assert given == [options]
    assert (done.returncode, done.stdout, done.stderr) == (1, "ran\n", "")


def test_a_demo_of_more_than_one_broker_takes_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(mirror, "run_mirror_demo", lambda *options: given.append(options) or 0)
    assert planaria("demo", "--mirror", "--duration", "7").returncode == 0
    assert [duration_s for duration_s, _ in given] == [7.0]
    for other in (("--cluster",), ("--record", "demo.svg")):
        assert "not with --cluster" in planaria("demo", "--mirror", *other).stderr
