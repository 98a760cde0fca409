"""`planaria bench`: the speed of this broker on this machine, next to the limits of the machine.

    run_bench    measures the ceilings, then each row on a fresh broker, prints the table and the ratio to the ceiling

Exit code 0 if every row reaches its target, 1 if one misses it.
"""

import os
import platform
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from .ceilings import Ceilings, measure_ceilings
from .event_loops import EVENT_LOOP_ROWS
from .hops import HOP_ROWS
from .rows import QUICK, Row, Scale
from .rows import ROWS as BULK_ROWS
from .shapes import SHAPE_ROWS
from .singles import SINGLE_ROWS

ROWS = BULK_ROWS | SHAPE_ROWS | SINGLE_ROWS | EVENT_LOOP_ROWS | HOP_ROWS


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[str, ...] = tuple(ROWS)
    quick: bool = False
    """A sixth of the workload: a quick look, not comparable."""
    json: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: str
    ceilings: Ceilings
    rows: list[Row]
    reached: bool


def run_bench(options: BenchOptions, console: Console) -> int:
    """Measure, print, and return the exit code. Raises ValueError for a row that does not exist."""
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        raise ValueError(f"no row {unknown[0]!r}: the rows are {', '.join(ROWS)}")
    scale = QUICK if options.quick else Scale()
    with tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory:
        ceilings = measure_ceilings(Path(directory))
    rows = []
    for name in options.rows:
        with console.status(f"measuring: {name}"):
            rows.append(ROWS[name](scale, ceilings))
    report = Report(
        machine=describe_machine(),
        ceilings=ceilings,
        rows=rows,
        reached=all(row.is_reached for row in rows),
    )
    if options.json:
        print(msgspec.json.encode(report).decode())
    else:
        print_report(report, console)
    return 0 if report.reached else 1


def describe_machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()} {platform.machine()},"
        f" Python {platform.python_version()}"
    )


def print_report(report: Report, console: Console) -> None:
    console.print(report.machine)
    ceilings = report.ceilings
    console.print(
        f"ceilings: ZeroMQ round trip {ceilings.zmq_round_trip_us:.0f} us,"
        f" stream {ceilings.zmq_stream_mb_s:,.0f} MB/s, echo that syncs {ceilings.durable_echo_us:.0f} us;"
        f" write + fdatasync {ceilings.fdatasync_us:.0f} us, page-cache writes {ceilings.write_mb_s:,.0f} MB/s"
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
    return f"{figure:,.1f} {unit}" if figure < 100 else f"{figure:,.0f} {unit}"


__all__ = ["BenchOptions", "run_bench"]
