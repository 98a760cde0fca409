"""The common part of all chaos runs: a directory of its own, faults until it is over, a report and an exit code.

    run_and_report      for a person: live lines, the report as a table or as JSON, exit code 1 on any violation
    in_scratch          the run itself on a fresh directory, kept for examination after a violation
    strike_until_over   one fault after the other, up to the duration or number in the options

Called by __init__.py and pipeline.py, which supply the workload and its check.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from rich.console import Console

Say = Callable[[str], None]

ENOUGH_RESTARTS = 1_000_000
"""The faults are no crash loop: an actor that was ready is restarted at once, without a limit."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    duration_s: float = 60.0
    seed: int = 7
    faults: int | None = None
    """Stop after this many faults, whatever the duration."""
    partitions: int = 4
    json: bool = False


class RunReport(Protocol):
    @property
    def is_clean(self) -> bool:
        """True if there was no violation."""
        ...


OptionsT = TypeVar("OptionsT", bound=RunOptions)
ReportT = TypeVar("ReportT", bound=RunReport)


def run_and_report(
    name: str,
    options: OptionsT,
    console: Console,
    run: Callable[[OptionsT, Say], ReportT],
    show: Callable[[ReportT, Console], None],
) -> int:
    """Run, print the report, return the exit code."""
    log = Console(stderr=True) if options.json else console
    log.print(f"{name} for {options.duration_s:.0f} s with seed {options.seed}; Ctrl-C ends it early")
    report = run(options, lambda line: log.print(line, highlight=False))
    if options.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, console)
        console.print("[green]no violation[/green]" if report.is_clean else "[red]VIOLATED[/red]")
    return 0 if report.is_clean else 1


def in_scratch(run: Callable[[Path], ReportT], say: Say) -> ReportT:
    """Return the result of `run`, or raise its exception."""
    scratch = Path(tempfile.mkdtemp(prefix="planaria-chaos-"))
    is_clean = False
    try:
        report = run(scratch)
        is_clean = report.is_clean
    except BrokenPipeError:
        is_clean = True  # the reader of the report has gone
        raise
    finally:
        if is_clean:
            shutil.rmtree(scratch)
        else:
            say(f"what the run left behind is kept for examination in {scratch}")
    return report


def strike_until_over(
    options: RunOptions,
    pause_s: Callable[[], float],
    strike: Callable[[], str],
    say: Say,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Call `strike`, which performs one fault and returns its description, until the run is over."""
    started = time.monotonic()
    struck = 0
    try:
        while options.faults is None or struck < options.faults:
            wait(pause_s())
            elapsed_s = time.monotonic() - started
            if elapsed_s > options.duration_s:
                return
            say(f"{elapsed_s:7.2f} s  {strike()}")
            struck += 1
    except KeyboardInterrupt:
        say("ended early")
