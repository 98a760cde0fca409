"""`planaria demo`, `chaos` and `bench`: demonstrate, test and measure a broker.

Only parses options; supervisor/demo, chaos and bench do the work and are imported on use. All three start a broker of
their own and clean up after it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..cpu_latency import ANY
from .connection import JsonOption


def demo(
    duration: Annotated[
        float, typer.Option("--duration", min=1, metavar="SECONDS", help="Running time.")
    ] = 20.0,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", dir_okay=False, help="Also write the screen to FILE, as SVG."
        ),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colors.")] = False,
    is_cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Run three nodes over etcd; one is killed, another one is drained."),
    ] = False,
    is_mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Run two sites; one is lost, the other one is promoted, and the first one fails back.",
        ),
    ] = False,
) -> None:
    """Watch a broker publish and deliver flights while its processes are killed and restarted."""
    if is_cluster or is_mirror:
        from ..demo.cluster import run_cluster_demo  # noqa: PLC0415
        from ..demo.mirror import run_mirror_demo  # noqa: PLC0415

        if record is not None:
            raise typer.BadParameter("not with --cluster or --mirror", param_hint="--record")
        if is_cluster and is_mirror:
            raise typer.BadParameter("not with --cluster", param_hint="--mirror")
        run = run_cluster_demo if is_cluster else run_mirror_demo
        raise typer.Exit(run(duration, Console(no_color=no_color).print))
    from ..demo import DemoOptions, run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(DemoOptions(duration_s=duration, record=record), Console(no_color=no_color)))


Partitions = Annotated[
    int | None,
    typer.Option(
        "--partitions",
        min=1,
        metavar="N",
        help="Partitions of the topic under load; 4 by default, 3 with --cluster.",
    ),
]
IntervalMs = Annotated[
    int | None,
    typer.Option(
        "--interval-ms",
        min=10,
        metavar="MS",
        help="Mean time between two faults; 700 by default, 300 with --exactly-once, 1500 with --cluster.",
    ),
]
OnCluster = Annotated[
    bool,
    typer.Option(
        "--cluster",
        help="Inject faults into the nodes, the etcd and the network of a cluster on this machine.",
    ),
]


def chaos(
    duration: Annotated[
        float, typer.Option("--duration", min=1, metavar="SECONDS", help="Running time.")
    ] = 60.0,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="Seed of the random faults; the same seed repeats them."),
    ] = 7,
    partitions: Partitions = None,
    interval_ms: IntervalMs = None,
    faults: Annotated[
        int | None,
        typer.Option("--faults", min=1, metavar="N", help="End after N faults instead of --duration."),
    ] = None,
    exactly_once: Annotated[
        bool, typer.Option("--exactly-once", help="Run two transactional stages, and kill clients too.")
    ] = False,
    is_outside: Annotated[
        bool, typer.Option("--worker", help="With --exactly-once: run the handlers in a planaria worker.")
    ] = False,
    is_cluster: OnCluster = False,
    as_json: JsonOption = False,
) -> None:
    """Kill and freeze processes and shift clocks under load, then check for lost, reordered and duplicate messages.

    Exit code 1 on any violation. Ctrl-C ends the faults early and starts the check.

    --json: {"seed", "duration_s", "faults", "victims", "verdict":
    {...}, "not_recovered", "recovery"}; with --exactly-once {"seed", "duration_s", "faults",
    "input", "output", "transactions", "hosted", "stages": [...]}; with --cluster {"seed", "duration_s", "faults",
    "verdict", "queue", "input", "output", "transactions", "stage", "replicas", "not_recovered", "failover"}
    """
    chosen = {"partitions": partitions, "interval_ms": interval_ms, "faults": faults}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    given |= {"duration_s": duration, "seed": seed, "json": as_json}
    console = Console()
    if is_outside and not exactly_once:
        raise typer.BadParameter("goes with --exactly-once", param_hint="--worker")
    if is_cluster:
        from ..chaos.cluster import ClusterOptions, run_cluster_chaos  # noqa: PLC0415

        if exactly_once:
            raise typer.BadParameter("not with --cluster, which has a stage", param_hint="--exactly-once")
        raise typer.Exit(run_cluster_chaos(ClusterOptions(**given), console))
    if exactly_once:
        from ..chaos.pipeline import PipelineOptions, run_pipeline  # noqa: PLC0415

        raise typer.Exit(run_pipeline(PipelineOptions(is_outside=is_outside, **given), console))
    from ..chaos import ChaosOptions, run_chaos  # noqa: PLC0415

    raise typer.Exit(run_chaos(ChaosOptions(**given), console))


def bench(
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="NAME", help="Measure only this row. Repeatable."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run a sixth of the workload (not comparable).")
    ] = False,
    is_cluster: Annotated[
        bool, typer.Option("--cluster", help="Measure failovers and replication, with three nodes over etcd.")
    ] = False,
    kills: Annotated[
        int | None,
        typer.Option(
            "--kills",
            min=1,
            metavar="N",
            help="With --cluster: number of faults of each kind; 20 by default, 3 with --quick.",
        ),
    ] = None,
    cpu_latency_us: Annotated[
        int | None,
        typer.Option(
            "--cpu-latency",
            min=0,
            max=2_000_000_000,
            metavar="US",
            help="Limit the wake-up latency of the processors, in microseconds; 0: they poll instead of halting.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the broker's speed on this machine, next to the limits of the machine.

    With --cluster: the waits while nodes and a member of etcd are lost, and the cost of three replicas.

    Exit code 1 when a row misses its target.

    --json: {"machine", "ceilings": {...}, "rows": [...], "reached"}
    """
    from ..bench import BenchOptions, names_of, run_bench  # noqa: PLC0415

    if kills is not None and not is_cluster:
        raise typer.BadParameter("only with --cluster", param_hint="--kills")
    known = names_of(is_cluster=is_cluster)
    chosen = [name for given in rows or () for name in given.split(",")]
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(
            f"no row {unknown[0]!r}: the rows are {', '.join(known)}", param_hint="--rows"
        )
    options = BenchOptions(
        rows=tuple(chosen),
        cluster=is_cluster,
        kills=kills,
        cpu_latency_us=ANY if cpu_latency_us is None else cpu_latency_us,
        quick=quick,
        json=as_json,
    )
    raise typer.Exit(run_bench(options, Console()))
