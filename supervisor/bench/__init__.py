"""`planaria bench`: the speed of this broker on this machine, next to the limits of the machine.

    run_bench    measures the ceilings, then each row, prints the table and the ratio to the ceiling

Each row has a fresh broker; those of `--cluster` share one cluster.

Exit code 0 if every row reaches its target, 1 if one misses it.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ...transport.compiled import is_compiled
from ..cpu_latency import ANY, hold_cpu_latency
from .ceilings import Ceilings, measure_ceilings
from .cluster_stage import Stage, running_stage
from .encryption import ENCRYPTION_ROWS
from .event_loops import EVENT_LOOP_ROWS
from .failovers import FAILOVER_ROWS
from .handlers import HANDLER_ROWS
from .hops import HOP_ROWS
from .mirrors import MIRROR_ROWS
from .replication import REPLICATION_ROWS
from .rows import QUICK, Row, Scale
from .rows import ROWS as BULK_ROWS
from .shapes import SHAPE_ROWS
from .singles import SINGLE_ROWS

ROWS = (
    BULK_ROWS
    | SHAPE_ROWS
    | SINGLE_ROWS
    | EVENT_LOOP_ROWS
    | HANDLER_ROWS
    | HOP_ROWS
    | ENCRYPTION_ROWS
    | MIRROR_ROWS
)
CLUSTER_ROWS = (*FAILOVER_ROWS, *REPLICATION_ROWS)
KILLS = 20
QUICK_KILLS = 3


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[str, ...] = ()
    """Empty: all."""
    cluster: bool = False
    """The rows of a cluster, in place of those of one broker."""
    kills: int | None = None
    """Faults of each kind; None: `KILLS`, or `QUICK_KILLS`."""
    cpu_latency_us: int = ANY
    """Wake-up latency of the processors, for the ceilings and the rows; `ANY`: as the system is set."""
    quick: bool = False
    """A sixth of the workload: a quick look, not comparable."""
    json: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: str
    ceilings: Ceilings
    rows: list[Row]
    reached: bool


def run_bench(options: BenchOptions, console: Console) -> int:
    """Measure, print, and return the exit code.

    Raises ValueError for a row that does not exist, OperatorNeeded without an etcd for a cluster, LatencyRefused.
    """
    known = names_of(is_cluster=options.cluster)
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        raise ValueError(f"no row {unknown[0]!r}: the rows are {', '.join(known)}")
    chosen = options.rows or known
    hold_cpu_latency(options.cpu_latency_us)
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        ceilings = measure_ceilings(Path(directory))
    if options.cluster:
        with running_stage() as stage:
            ceilings = msgspec.structs.replace(ceilings, etcd_transaction_us=stage.transaction_us())
            rows = list(_measured(chosen, console, lambda name: _of_cluster(name, options, stage)))
    else:
        scale = QUICK if options.quick else Scale()
        rows = list(_measured(chosen, console, lambda name: ROWS[name](scale, ceilings)))
    report = Report(
        machine=describe_machine(options),
        ceilings=ceilings,
        rows=rows,
        reached=all(row.is_reached for row in rows),
    )
    if options.json:
        print(msgspec.json.encode(report).decode())
    else:
        print_report(report, console)
    return 0 if report.reached else 1


def names_of(*, is_cluster: bool) -> tuple[str, ...]:
    """Return the names of all rows."""
    return CLUSTER_ROWS if is_cluster else tuple(ROWS)


def _measured(names: Iterable[str], console: Console, measure: Callable[[str], Row]) -> Iterator[Row]:
    for name in names:
        with console.status(f"measuring: {name}"):
            yield measure(name)


def _of_cluster(name: str, options: BenchOptions, stage: Stage) -> Row:
    if name in REPLICATION_ROWS:
        return REPLICATION_ROWS[name](stage, QUICK if options.quick else Scale())
    kills = options.kills or (QUICK_KILLS if options.quick else KILLS)
    return FAILOVER_ROWS[name](stage, kills)


def describe_machine(options: BenchOptions) -> str:
    latency_us = options.cpu_latency_us
    return (
        f"{os.cpu_count()} cores{'' if latency_us == ANY else f' that wake up within {latency_us} us'},"
        f" {platform.system()} {platform.release()} {platform.machine()},"
        f" Python {platform.python_version()}, modules {'compiled' if is_compiled() else 'not compiled'}"
    )


def print_report(report: Report, console: Console) -> None:
    console.print(report.machine)
    ceilings = report.ceilings
    console.print(
        f"ceilings: ZeroMQ round trip {ceilings.zmq_round_trip_us:.0f} us,"
        f" over a Unix socket {ceilings.unix_round_trip_us:.0f} us,"
        f" stream {ceilings.zmq_stream_mb_s:,.0f} MB/s, echo that syncs {ceilings.durable_echo_us:.0f} us;"
        f" write + fdatasync {ceilings.fdatasync_us:.0f} us, page-cache writes {ceilings.write_mb_s:,.0f} MB/s"
        + (
            ""
            if ceilings.etcd_transaction_us is None
            else f"; etcd transaction {ceilings.etcd_transaction_us:,.0f} us"
        )
    )
    table = Table()
    for column in ("what", "measured", "bar", "ceiling", "of ceiling", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in report.rows:
        table.add_row(
            f"{row.name}\n[dim]{row.detail}[/dim]" if row.detail else row.name,
            amount(row.figure, row.unit),
            amount(row.bar, row.unit),
            "" if row.ceiling is None else amount(row.ceiling, row.unit),
            "" if row.ceiling is None else f"{row.figure / row.ceiling:.2f}",
            "ok" if row.is_reached else "[red]short[/red]",
        )
    console.print(table)


def amount(figure: float, unit: str) -> str:
    if unit == "per second":
        return f"{figure:,.0f} /s"
    if unit == "messages/s":
        return f"{figure / 1e6:.2f} M/s"
    if unit == "x":
        return f"{figure:.2f} x"
    return f"{figure:,.1f} {unit}" if figure < 100 else f"{figure:,.0f} {unit}"


__all__ = ["BenchOptions", "names_of", "run_bench"]
