"""`planaria demo`, `chaos` and `bench`: to see it work, to prove it, to measure it.

Only reads options; what runs is in supervisor/demo, chaos and bench, loaded when asked for. All three start a broker of
their own and leave nothing behind.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .connection import JsonOption


def demo(
    duration: Annotated[float, typer.Option("--duration", min=1, metavar="SECONDS", help="How long.")] = 20.0,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", dir_okay=False, help="Also write the screen to FILE, as SVG."
        ),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text.")] = False,
) -> None:
    """Watch a broker at work: flights published, consumed, and its processes killed and regrown."""
    from ..demo import DemoOptions, run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(DemoOptions(duration_s=duration, record=record), Console(no_color=no_color)))


def chaos(
    duration: Annotated[float, typer.Option("--duration", min=1, metavar="SECONDS", help="How long.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", help="Repeats the faults of a run.")] = 7,
    partitions: Annotated[int, typer.Option("--partitions", min=1, help="Of the topic under load.")] = 4,
    interval_ms: Annotated[
        int | None,
        typer.Option(
            "--interval-ms",
            min=10,
            metavar="MS",
            help="Between two faults, on average: 700, with --exactly-once 300.",
        ),
    ] = None,
    faults: Annotated[
        int | None, typer.Option("--faults", min=1, help="End after so many, however long it takes.")
    ] = None,
    exactly_once: Annotated[
        bool, typer.Option("--exactly-once", help="Two stages of transactions; clients are killed too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Kill and freeze processes under load, then check that nothing was lost, reordered or doubled.

    Exit code 1 on any violation. Ctrl-C ends the faults early and checks what there is.

    [dim]--json:[/dim] {"seed", "duration_s", "faults", "victims", "verdict":
    {...}, "not_recovered", "recovery"}; with --exactly-once {"seed", "duration_s", "faults",
    "input", "output", "transactions", "hosted", "stages": [...]}
    """
    if exactly_once:
        from ..chaos.pipeline import PipelineOptions, run_pipeline  # noqa: PLC0415

        pipeline = PipelineOptions(
            duration_s=duration,
            seed=seed,
            partitions=partitions,
            interval_ms=interval_ms or 300,
            faults=faults,
            json=as_json,
        )
        raise typer.Exit(run_pipeline(pipeline, Console()))
    from ..chaos import ChaosOptions, run_chaos  # noqa: PLC0415

    options = ChaosOptions(
        duration_s=duration,
        seed=seed,
        partitions=partitions,
        interval_ms=interval_ms or 700,
        faults=faults,
        json=as_json,
    )
    raise typer.Exit(run_chaos(options, Console()))


def bench(
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="NAME", help="Measure this one only. Repeatable; all unless said."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A sixth of the work: a look, not a claim.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the broker's speed on this machine, beside what the machine itself can do.

    Exit code 1 when a row falls short of its bar.

    [dim]--json:[/dim] {"machine", "ceilings": {...}, "rows": [...], "reached"}
    """
    from ..bench import BenchOptions, run_bench  # noqa: PLC0415
    from ..bench.rows import ROWS  # noqa: PLC0415

    chosen = [name for given in rows or ROWS for name in given.split(",")]
    if unknown := [name for name in chosen if name not in ROWS]:
        raise typer.BadParameter(
            f"no row {unknown[0]!r}: the rows are {', '.join(ROWS)}", param_hint="--rows"
        )
    raise typer.Exit(run_bench(BenchOptions(rows=tuple(chosen), quick=quick, json=as_json), Console()))
