"""`planaria chaos`: continuous producers and groups while processes die or freeze and clocks step, then a checked report.

    run_chaos    for a person: live lines, the table, exit code 1 on any violation
    chaos_run    the run itself, for tests: returns the Report

All random choices come from the seed; the operating system's scheduling does not, so a seed repeats the faults but not
the run.
"""

import time
from collections import Counter
from pathlib import Path

import msgspec
from rich.console import Console

from ...transport.addresses import Address
from ..broker import EMBEDDED_ENDPOINT, Broker
from .clocks import rehearsed
from .history import History, Verdict
from .nemesis import WEIGHTS, Fault, FaultKind, Nemesis
from .probes import Probes
from .reporting import (
    Times,
    await_deliveries,
    delivery_counts,
    fault_counts,
    print_tables,
    times_of,
    violation_counts,
)
from .run import ENOUGH_RESTARTS, RunOptions, Say, in_scratch, run_and_report, strike_until_over
from .workload import (
    HOSTED_GROUP,
    MEMBERS_GROUP,
    TOPIC,
    Load,
    Workload,
    journal_handler,
    read_journals,
    read_log,
)

SETTLE_S = 90.0


class ChaosOptions(RunOptions, frozen=True, kw_only=True):
    interval_ms: int = 700
    """Mean time between faults."""
    kinds: tuple[FaultKind, ...] = tuple(WEIGHTS)
    victims: tuple[str, ...] = ()
    """Kinds of actors to strike: partition, coordinator, gateway, controller, subscriber; all if empty."""
    hosted_workers: int = 2
    hang_timeout_ms: int = 1_000
    load: Load = Load()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    duration_s: float
    faults: dict[str, int]
    victims: dict[str, int]
    verdict: Verdict
    not_recovered: int
    recovery: dict[str, Times]
    """By the victim's kind, and `kill` for all actors that were killed one at a time."""

    @property
    def is_clean(self) -> bool:
        return self.verdict.is_clean and not self.not_recovered


def run_chaos(options: ChaosOptions, console: Console) -> int:
    """Run, print the report, return the exit code."""
    return run_and_report("chaos", options, console, chaos_run, print_report)


def chaos_run(options: ChaosOptions, say: Say) -> Report:
    """Run once on a fresh data directory. Raises the first error of a workload thread."""
    return in_scratch(lambda scratch: _run_in(scratch, options, say), say)


def _run_in(scratch: Path, options: ChaosOptions, say: Say) -> Report:
    history = History()
    journals = scratch / "journals"
    journals.mkdir()
    with (
        rehearsed(scratch, options.seed) as clocks,
        Broker(
            scratch / "data",
            endpoint=EMBEDDED_ENDPOINT,
            restart_intensity=ENOUGH_RESTARTS,
            backoff_reset_ms=1,
            hang_timeout_ms=options.hang_timeout_ms,
            heartbeat_interval_ms=min(500, options.hang_timeout_ms // 4),
        ) as broker,
    ):
        broker.create_topic(TOPIC, options.partitions)
        broker.subscribe(
            HOSTED_GROUP,
            TOPIC,
            handler=journal_handler(journals),
            delivery="at-least-once",
            workers=options.hosted_workers,
        )
        probes = Probes(broker.client, history)
        workload = Workload(broker.endpoint, history, options.load, options.seed)
        nemesis = Nemesis(
            broker,
            probes,
            clocks,
            seed=options.seed,
            interval_s=options.interval_ms / 1000,
            kinds=options.kinds,
            victims=options.victims,
        )
        started = time.monotonic()
        workload.start()
        try:
            strike_until_over(options, nemesis.pause_s, nemesis.strike, say)
            nemesis.finish()
            say("faults are over: waiting until everything acknowledged has been delivered")
            workload.stop_producing()
            await_deliveries(lambda: _missing(history, journals), SETTLE_S, say)
        finally:
            probes.close()
            workload.stop()
        _collect(history, journals)
        verdict = history.check(read_log(broker.client, options.partitions), (MEMBERS_GROUP, HOSTED_GROUP))
        took_s = time.monotonic() - started
    return _report(options, took_s, nemesis.faults, verdict)


def _collect(history: History, journals: Path) -> None:
    history.deliveries[HOSTED_GROUP] = read_journals(journals)


def _missing(history: History, journals: Path) -> dict[str, int]:
    _collect(history, journals)
    return {group: len(history.missing(group)) for group in (MEMBERS_GROUP, HOSTED_GROUP)}


def _report(options: ChaosOptions, took_s: float, faults: list[Fault], verdict: Verdict) -> Report:
    times: dict[str, list[float]] = {}
    for fault in faults:
        if fault.recovery_ms is not None:
            kind = Address.parse(fault.victim).kind
            times.setdefault(f"{fault.kind} {kind}", []).append(fault.recovery_ms)
            times.setdefault(fault.kind, []).append(fault.recovery_ms)
    return Report(
        seed=options.seed,
        duration_s=round(took_s, 1),
        faults=dict(sorted(Counter(fault.kind for fault in faults).items())),
        victims=dict(sorted(Counter(Address.parse(fault.victim).kind for fault in faults).items())),
        verdict=verdict,
        not_recovered=sum(fault.recovery_ms is None for fault in faults),
        recovery=times_of(times),
    )


def print_report(report: Report, console: Console) -> None:
    verdict = report.verdict
    print_tables(
        console,
        f"chaos, seed {report.seed}, {report.duration_s} s",
        {
            **fault_counts(report.faults),
            **delivery_counts(verdict),
            **violation_counts(verdict),
            "not recovered": report.not_recovered,
        },
        "recovery: from the signal to the next answer",
        report.recovery,
        verdict.violations,
    )


__all__ = ["ChaosOptions", "Report", "chaos_run", "run_chaos"]
