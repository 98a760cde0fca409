"""`planaria top`: rates, lag and restarts, live in a terminal, or once for a pipe."""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...transport.protocol.errors import PlanariaError
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, operating
from .failures import CommandFailed, describe
from .output import bytes_text, console, duration_text, print_json, show
from .tables import VISIBLE
from .top_figures import SORTS, Figures, Meter, Rates, Sort, sorted_groups, sorted_topics

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ..admin_link import AdminLink

KEYS: dict[str, Sort] = {
    "i": "in", "o": "out", "b": "bytes", "l": "lag", "s": "size", "r": "restarts", "n": "name",
}  # fmt: skip
HELP = "q quit  i in  o out  b bytes  l lag  s size  r restarts  n name"
NARROW = 72
"""Columns below which sizes and bytes are left out."""
REQUEST_TIMEOUT_MS = 3_000
SortOption: TypeAlias = Annotated[
    Sort,
    typer.Option("--sort", metavar="|".join(SORTS), help="Order of the topics; in a terminal also by keys."),
]


def top(
    sort: SortOption = "in",
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Time between two refreshes.")
    ] = 1.0,
    is_once: Annotated[
        bool, typer.Option("--once", help="Print the figures once and exit, as into a pipe.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show the busiest topics, the lag of groups, and processes that crashed, until Ctrl-C or q.

    Keys choose the order: i in, o out, b bytes, l lag, s size, r restarts,
    n name. Into a pipe, or with --once, the figures of one interval are
    printed once.

    --json: {"uptime_ms", "processes", "ready", "restarts", "memory_bytes",
    "rates": {"messages_in", "messages_out", "bytes_in", "bytes_out"},
    "topics": [{"topic", "partitions", "rates", "size_bytes", "lag",
    "restarts"}], "groups": [{"group", "type", "state", "members", "lag"}],
    "troubled": [{"address", "state", "restarts", "memory_bytes", "reason",
    "since_death_ms"}], "alarms"}; rates are per second
    """
    meter = Meter()
    is_live = console().is_terminal and not (is_once or as_json)
    with operating(connect, REQUEST_TIMEOUT_MS) as link:
        found = _look(link, meter)
        if is_live:
            _live(found, connect, meter, sort, interval)
            return
        time.sleep(interval)
        found = _look(link, meter)
    if as_json:
        print_json(found)
    else:
        show(screen(found, sort, console().width if console().is_terminal else 80, rows=None))


def _look(link: "AdminLink | Client", meter: Meter) -> Figures:
    return meter.look(link.status(), time.monotonic_ns() // 1_000_000)


def _live(found: Figures, connect: str, meter: Meter, sort: Sort, interval: float) -> None:
    """Refresh until q or Ctrl-C. A broker that is away is looked for again, with the last figures on the screen."""
    trouble = ""
    with Live(console=console(), screen=True, auto_refresh=False) as live, _keys() as wait_for_key:
        while True:
            size = live.console.size
            live.update(screen(found, sort, size.width, size.height, trouble), refresh=True)
            until = time.monotonic() + interval
            while (left_s := until - time.monotonic()) > 0:
                key = wait_for_key(left_s)
                if key in ("q", "Q", "\x04"):
                    return
                if key in KEYS:
                    sort = KEYS[key]
                    break
            try:
                with operating(connect, REQUEST_TIMEOUT_MS) as link:
                    found = _look(link, meter)
                trouble = ""
            except (CommandFailed, PlanariaError) as error:
                trouble = describe(error)


@contextmanager
def _keys() -> Iterator["_WaitForKey"]:
    """Read single keys without echo; the terminal is as before afterwards, however the block ends."""
    try:
        import termios  # noqa: PLC0415
        import tty  # noqa: PLC0415

        stdin = sys.stdin.fileno()
        before = termios.tcgetattr(stdin)
    except (ImportError, OSError, ValueError, termios.error):
        yield _WaitForKey(None)  # no keyboard: Ctrl-C alone ends it
        return
    try:
        tty.setcbreak(stdin, termios.TCSANOW)  # keys that were typed before count
        yield _WaitForKey(stdin)
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


class _WaitForKey:
    def __init__(self, stdin: int | None) -> None:
        self._stdin = stdin

    def __call__(self, limit_s: float) -> str:
        """Return the next key, or nothing after the time."""
        if self._stdin is None:
            time.sleep(limit_s)
            return ""
        ready, _, _ = select.select([self._stdin], [], [], limit_s)
        if not ready:
            return ""
        read = os.read(self._stdin, 1)
        if not read:  # the terminal is gone
            self._stdin = None
        return read.decode(errors="replace")


def screen(
    found: Figures, sort: Sort, columns: int, rows: int | None = None, trouble: str = ""
) -> RenderableType:
    """Return all figures, in these columns; with `rows`, as many lines as fit."""
    topics, groups, troubled = (
        sorted_topics(found.topics, sort),
        sorted_groups(found.groups, sort),
        found.troubled,
    )
    if rows is not None:
        left = max(0, rows - 8 - bool(trouble or found.alarms))
        groups = groups[: max(1, left // 3 - 1)]
        troubled = troubled[: max(1, left // 4 - 1)]
        topics = topics[: max(1, left - len(groups) - len(troubled))]
    parts: list[RenderableType] = [_head(found, columns)]
    if trouble or found.alarms:
        text = trouble or f"{len(found.alarms)} alarms: {found.alarms[0]}"
        parts.append(Text(_clean(text), style="bold red", no_wrap=True, overflow="ellipsis"))
    is_wide = columns >= NARROW
    made = _table(
        "topic", ("parts", "in/s", "out/s", *(("B/s in", "size") if is_wide else ()), "lag"), columns
    )
    for each in topics:
        wide = (f"{bytes_text(int(each.rates.bytes_in))}", bytes_text(each.size_bytes)) if is_wide else ()
        made.add_row(
            _clean(each.topic), str(each.partitions), _rate(each.rates.messages_in),
            _rate(each.rates.messages_out), *wide, _count(each.lag),
        )  # fmt: skip
    parts.append(made)
    if groups:
        made = _table("group", ("type", "state", "members", "lag"), columns)
        for group in groups:
            made.add_row(_clean(group.group), group.type, group.state, str(group.members), _count(group.lag))
        parts.append(made)
    if troubled:
        made = _table("process that crashed", ("state", "restarts", "last crash"), columns)
        for process in troubled:
            since = "" if process.since_death_ms is None else f"{duration_text(process.since_death_ms)} ago"
            made.add_row(_clean(process.address), process.state, str(process.restarts), since)
        parts.append(made)
    if rows is not None:
        parts.append(Text(f"by {sort}: {HELP}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _head(found: Figures, columns: int) -> Text:
    parts = [
        f"up {duration_text(found.uptime_ms)}",
        f"{found.ready}/{found.processes} processes",
        f"{found.restarts} restarts",
        bytes_text(found.memory_bytes),
        _flow(found.rates),
    ]
    text = "  ".join(parts)
    return Text(
        text if len(text) <= columns else "  ".join([*parts[:3], parts[4]]), style="bold", no_wrap=True
    )


def _flow(rates: Rates) -> str:
    return f"in {_rate(rates.messages_in)}/s  out {_rate(rates.messages_out)}/s"


def _table(first: str, numbers: tuple[str, ...], columns: int) -> Table:
    made = Table(box=None, width=columns, pad_edge=False, header_style="reverse")
    made.add_column(first, no_wrap=True, overflow="ellipsis", ratio=1)
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if 0 < rate < 10 else _count(round(rate))


def _count(count: int) -> str:
    """Return a number in at most six characters."""
    for limit, unit in ((10_000, ""), (10_000_000, "k"), (10_000_000_000, "M")):
        if count < limit:
            return f"{count // (limit // 10_000)}{unit}"
    return f"{count // 1_000_000_000}G"


def _clean(text: str) -> str:
    return text.translate(VISIBLE)
