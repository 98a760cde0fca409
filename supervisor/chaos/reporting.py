"""The common part of the reports of chaos runs: counts, times by kind of fault, their tables, and the final wait.

Called by __init__.py and cluster/, which have more to count each.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from .history import Verdict
from .run import Say

SETTLE_POLL_S = 0.25


class Times(Struct, frozen=True, kw_only=True):
    """Times from the faults of one kind to their end, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def times_of(found: Mapping[str, list[float]]) -> dict[str, Times]:
    return {name: _summary(sorted(times)) for name, times in sorted(found.items())}


def _summary(ordered_ms: list[float]) -> Times:
    return Times(
        count=len(ordered_ms),
        p50_ms=round(statistics.median(ordered_ms), 1),
        p99_ms=round(ordered_ms[min(len(ordered_ms) - 1, int(len(ordered_ms) * 0.99))], 1),
        max_ms=round(ordered_ms[-1], 1),
    )


def fault_counts(faults: Mapping[str, int]) -> dict[str, int]:
    return {f"faults: {kind}": count for kind, count in faults.items()}


def delivery_counts(verdict: Verdict) -> dict[str, int]:
    return {
        "acknowledged": verdict.acknowledged,
        "refused": verdict.refused,
        "outcome unknown": verdict.unknown,
        **{f"delivered to {group}": count for group, count in verdict.delivered.items()},
        **{f"redelivered to {group}": count for group, count in verdict.redelivered.items()},
    }


def violation_counts(verdict: Verdict) -> dict[str, int]:
    return {
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "phantom": verdict.phantom,
        "reordered": verdict.reordered,
        "undelivered": verdict.undelivered,
    }


def print_tables(
    console: Console,
    title: str,
    counts: Mapping[str, int],
    times_title: str,
    times: Mapping[str, Times],
    violations: Iterable[str],
) -> None:
    table = Table(title=title)
    table.add_column("")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    recovery = Table(title=times_title)
    recovery.add_column("fault")
    for column in ("count", "p50 ms", "p99 ms", "max ms"):
        recovery.add_column(column, justify="right")
    for name, each in times.items():
        recovery.add_row(
            name, str(each.count), f"{each.p50_ms:.0f}", f"{each.p99_ms:.0f}", f"{each.max_ms:.0f}"
        )
    console.print(recovery)
    for line in violations:
        console.print(f"[red]{line}[/red]")


def await_deliveries(missing: Callable[[], Mapping[str, int]], limit_s: float, say: Say) -> bool:
    """Wait until no group misses a message; return False, and say so, when that takes too long."""
    started = time.monotonic()
    while any((left := missing()).values()):
        waited_s = time.monotonic() - started
        if waited_s >= limit_s:
            say(f"not delivered after {waited_s:.0f} s: {dict(left)}")
            return False
        time.sleep(SETTLE_POLL_S)
    say(f"everything had been delivered {time.monotonic() - started:.1f} s after the last acknowledgement")
    return True
