"""`planaria status`, `kill` and `revive`: show and operate the process tree."""

import time
from collections import Counter
from itertools import groupby
from typing import Annotated, Any, TypeAlias, get_args

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ...transport.addresses import Address, Kind
from ...transport.client.descriptions import ActorStatus, BrokerStatus
from ...transport.protocol.errors import PlanariaError
from ...transport.protocol.operations import ActorState, SignalName
from .cluster_nodes import nodes_by
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached, operating
from .failures import EXIT_FAILED, CommandFailed, describe
from .output import bytes_text, console, duration_text, error_console, note, plural, print_json, show
from .pauses import pause_text
from .tables import Listing

SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
EXIT_UNREACHABLE = 2
CHECK_TIMEOUT_MS = 2_500
"""Limit per request after connecting: a probe must answer before its own timeout, even if the supervisor is frozen."""
GROUPS_SHOWN = 20
"""Most groups whose members elsewhere have a line."""
TRACEBACK_LINES = 3
"""Only the last lines of a traceback are shown, the exception and its origin; --json has all of it."""

_STYLES: dict[ActorState, str] = {
    "starting": "yellow",
    "recovering": "yellow",
    "ready": "green",
    "stopping": "yellow",
    "stopped": "dim",
    "asleep": "dim",
    "backing_off": "red",
    "quarantined": "bold red",
}

AddressArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS",
        show_default=False,
        help='Address shown by "planaria status", such as partition/ORDERS/0.',
    ),
]


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Time between two refreshes.")
    ] = 1.0,
    is_check: Annotated[
        bool,
        typer.Option(
            "--check", help="For probes: exit code 0 if all is well, 1 if not, 2 if no broker answers."
        ),
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show the broker's processes: their states, uptimes and restarts.

    Also the number of members that each group has elsewhere, such as workers.

    --json: {"supervisor_pid", "instance_id", "data_directory",
    "endpoint", "uptime_ms", "actors": [{"address", "pid", "incarnation",
    "restarts", "state", "uptime_ms", "memory_bytes", "endpoint", "reason",
    "traceback", "since_death_ms", "downtime_ms", "report_age_ms", "alarms",
    "in_flight", "retrying": {"count", "records"},
    "paused": {"reason", "since_ms", "until_ms"}, "counters", "gauges",
    "requests", "syncs", "latencies", "lateness", "log", "group"}], "version",
    "is_whole", "removed"};
    with --watch one object a line. States: starting, recovering, ready,
    stopping, stopped, asleep, backing_off, quarantined

    In a cluster also its nodes, and which of them may be stopped; in JSON
    "nodes", as in "cluster status", null if no node answers
    """
    if is_check:
        _check(connect)
        return
    with operating(connect) as client:
        if watch and console().is_terminal and not as_json:
            with Live(_rendered(client.status(), connect), console=console(), auto_refresh=False) as live:
                while True:
                    time.sleep(interval)
                    live.update(_rendered(client.status(), connect), refresh=True)
        while True:
            found = client.status()
            if as_json:
                print_json(_plain(found, connect), is_compact=watch)
            else:
                show(_rendered(found, connect))
            if not watch:
                return
            time.sleep(interval)


def _rendered(found: BrokerStatus, endpoint: str) -> RenderableType:
    nodes = nodes_by(found, endpoint)
    return render(found) if nodes is None else Group(render(found), *nodes.lines())


def _plain(found: BrokerStatus, endpoint: str) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    nodes = nodes_by(found, endpoint)
    return plain if nodes is None else {**plain, "nodes": nodes.nodes}


def _check(endpoint: str) -> None:
    """Raise typer.Exit unless all is well; print each problem on a line of standard error."""
    try:
        with attached(endpoint, CHECK_TIMEOUT_MS) as client:
            actors = client.status().actors
    except (CommandFailed, PlanariaError) as error:
        error_console().print(f"planaria: {describe(error)}", soft_wrap=True)
        raise typer.Exit(EXIT_UNREACHABLE) from error
    troubles = [f"{actor.address}: {alarm}" for actor in actors for alarm in actor.alarms]
    troubles += [
        f"{actor.address} is quarantined: {actor.reason}" for actor in actors if actor.state == "quarantined"
    ]
    for trouble in troubles:
        error_console().print(trouble, soft_wrap=True)
    if troubles:
        raise typer.Exit(EXIT_FAILED)
    note(f"all actors are ready: {plural(len(actors), 'actor')}")


def kill(
    address: AddressArgument,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="NAME", help=", ".join(SIGNALS) + ".")
    ] = "SIGKILL",
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Send a signal to one of the broker's processes. The supervisor restarts it.

    Examples:
      planaria kill partition/ORDERS/0
      planaria kill gateway/0 --signal SIGSTOP

    --json: {"address", "signal", "pid", "incarnation"} of the process
    that received it
    """
    name = signal.upper() if signal.upper().startswith("SIG") else f"SIG{signal.upper()}"
    if name not in SIGNALS:
        raise typer.BadParameter(f"{signal!r} is not one of {', '.join(SIGNALS)}", param_hint="--signal")
    with operating(connect) as client:
        found = client.kill(address, name)
    if as_json:
        print_json({"address": address, "signal": name, "pid": found.pid, "incarnation": found.incarnation})
    else:
        note(f"sent {name} to {address} (pid {found.pid}, incarnation {found.incarnation})")


def revive(address: AddressArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Start a process that is quarantined, asleep or waits for its restart, and reset its count of restarts."""
    with operating(connect) as client:
        state = client.revive(address)
    if state in {"quarantined", "backing_off", "asleep"}:
        note(f"{address} is restarted")
    else:
        note(f"{address} is {state}: nothing to do")


def render(found: BrokerStatus) -> RenderableType:
    """Return the whole tree, for a terminal."""
    made = Listing(
        "address", "pid", "inc", "restarts", "state", "memory", "uptime",
        numbers=["pid", "inc", "restarts", "memory", "uptime"],
    )  # fmt: skip
    made.add_row(
        "supervisor",
        str(found.supervisor_pid),
        "",
        "",
        Text("ready", "green"),
        "",
        duration_text(found.uptime_ms),
    )
    for actor, branch in _branches(found.actors):
        made.add_row(
            Text.assemble((branch, "dim"), actor.address),
            str(actor.pid) if actor.pid is not None else "-",
            str(actor.incarnation),
            str(actor.restarts),
            Text(actor.state, _STYLES.get(actor.state, "")),
            bytes_text(actor.memory_bytes) if actor.memory_bytes else "-",
            duration_text(actor.uptime_ms) if actor.pid is not None else "-",
        )
    memory = bytes_text(sum(actor.memory_bytes for actor in found.actors))
    head = (
        f"{found.endpoint}, {plural(len(found.actors), 'actor')}, {memory}\ndata in {found.data_directory}\n"
    )
    return Group(Text(head), made, *_members_elsewhere(found.actors), *_troubles(found.actors))


def _branches(actors: list[ActorStatus]) -> list[tuple[ActorStatus, str]]:
    """Return the actors in start order by kind, each with the tree line that leads to it."""
    ordered = [actor for _, kind in groupby(actors, _kind) for actor in sorted(kind, key=_natural)]
    return [(actor, "└ " if actor is ordered[-1] else "├ ") for actor in ordered]


def _kind(actor: ActorStatus) -> str:
    return Address.parse(actor.address).kind


def _natural(actor: ActorStatus) -> tuple[str, int]:
    """Sort key that places partition 10 after partition 9."""
    address = Address.parse(actor.address)
    return address.name, address.number or 0


def _members_elsewhere(actors: list[ActorStatus]) -> list[Text]:
    """Return a line for each group with members that are no processes of the tree, such as those of workers."""
    addresses = [Address.parse(actor.address) for actor in actors if actor.pid is not None]
    hosted = Counter(each.name for each in addresses if each.kind in (Kind.SUBSCRIBER, Kind.DEPLOYED))
    groups = [(Address.parse(actor.address).name, actor.group) for actor in actors if actor.group is not None]
    found = [(name, group.members - hosted[name]) for name, group in groups]
    lines = [
        f"\n{name}: {plural(count, 'member')} elsewhere; planaria group describe {name}  shows them"
        for name, count in found
        if count > 0
    ]
    more = len(lines) - GROUPS_SHOWN
    if more > 0:
        lines[GROUPS_SHOWN:] = [f"\nand {plural(more, 'more group')} with members elsewhere"]
    return [Text(line, "dim") for line in lines]


def _troubles(actors: list[ActorStatus]) -> list[Text]:
    lines: list[Text] = []
    for actor in actors:
        lines += [Text(f"\n{actor.address}: {alarm}", "bold red") for alarm in actor.alarms]
        if actor.paused is not None:
            lines.append(Text(f"\n{actor.address}: paused {pause_text(actor.paused)}", "yellow"))
        if actor.retrying.count:
            told = (
                f"\n{actor.address}: {plural(actor.retrying.count, 'record')} failed and will be tried again"
            )
            lines.append(Text(told, "yellow"))
        if actor.state in {"ready", "asleep"} or actor.reason is None:
            continue
        lines.append(
            Text(f"\n{actor.address} is {actor.state}: {actor.reason}", _STYLES.get(actor.state, ""))
        )
        if actor.traceback:
            lines += [
                Text(f"  {line}", "dim") for line in actor.traceback.rstrip().splitlines()[-TRACEBACK_LINES:]
            ]
        if actor.state == "quarantined":
            lines.append(Text(f"  planaria revive {actor.address}  starts it again", "dim"))
    return lines
