"""`planaria group`: list, create, describe, reset, delete."""

import time
from typing import Annotated, Literal, TypeAlias

import typer

from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .group_report import GroupReport, entries_of, report_on
from .output import UNKNOWN, console, note, number_text, plural, print_json, print_table, table
from .positions import Move, moves_to, parse_target
from .retries import RetryingRecords, of_share_group, print_retrying
from .share_report import settings_text, show_share

app = typer.Typer(no_args_is_help=True, help="List, describe, reset and delete groups; make share groups.")

GroupArgument: TypeAlias = Annotated[str, typer.Argument(metavar="GROUP", show_default=False)]


@app.command("list")
def list_groups(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the groups: consumer groups, and share groups, which are work queues.

    [dim]--json:[/dim] {"groups": [{"group", "type", "state"}]}; null is
    unknown: its coordinator does not run. Types: consumer, share.
    """
    with attached(connect) as client:
        entries = entries_of(client)
    if as_json:
        print_json({"groups": entries})
        return
    print_table(
        table("group", "type", "state"),
        [(entry.group, entry.type or UNKNOWN, entry.state or UNKNOWN) for entry in entries],
        empty="no groups yet: a consumer with --group makes one",
    )


@app.command()
def create(
    group: GroupArgument,
    kind: Annotated[
        Literal["share"], typer.Option("--type", help="share: a work queue. A consumer group makes itself.")
    ] = "share",
    lock_ms: Annotated[
        int | None,
        typer.Option("--lock-ms", min=100, max=3_600_000, help="How long a record is locked; 30000."),
    ] = None,
    max_deliveries: Annotated[
        int | None,
        typer.Option("--max-deliveries", min=1, max=1_000, help="After so many a record is dead; 5."),
    ] = None,
    dead_letter: Annotated[
        str | None,
        typer.Option(
            "--dead-letter", metavar="TOPIC", help='For dead records; "" for none: they are parked.'
        ),
    ] = None,
    start: Annotated[
        Literal["earliest", "latest"] | None,
        typer.Option("--start", help="Where it begins in a partition that is new to it; earliest."),
    ] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Make a share group, or change one: what is not given stays as it is.

    [dim]Example:[/dim]
      planaria group create resize --dead-letter IMAGES.dead --max-deliveries 3

    [dim]--json:[/dim] {"group", "type", "lock_ms", "max_deliveries",
    "dead_letter", "start"}
    """
    with attached(connect) as client:
        found = client.configure_share_group(
            group, lock_ms=lock_ms, max_deliveries=max_deliveries, dead_letter=dead_letter, start=start
        )
    if as_json:
        settings = {
            name: getattr(found, name) for name in ("lock_ms", "max_deliveries", "dead_letter", "start")
        }
        print_json({"group": group, "type": kind, **settings})
        return
    note(f"share group {group}: {settings_text(found)}")


@app.command()
def describe(
    group: GroupArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Show a group's members, what each has, what is committed, and how far behind that is.

    [dim]--json:[/dim] {"group", "state", "generation", "assignor", "lag",
    "members": [{"member_id", "instance_id", "client_id", "topics",
    "generation", "assignment", "owned"}], "partitions": [{"topic",
    "partition", "committed", "log_end_offset", "lag", "member_id",
    "metadata"}], "retrying_count", "retrying"}; null is unknown; `retrying`
    as in `planaria inflight`. States: empty, rebalancing, stable.
    Of a share group: {"group", "type", "state", "share": {"lock_ms",
    "max_deliveries", "dead_letter", "start", "members", "partitions":
    [{"topic", "partition", "start_offset", "acquired", "returned", "dead"}]},
    "retrying_count", "retrying"}
    """
    with attached(connect) as client:
        description = client.describe_group(group)
        if description.share is not None:
            retrying = of_share_group(client, description)
            show_share(description, description.share, retrying, as_json=as_json)
            return
        found = report_on(client, description)
    if as_json:
        print_json(found)
    else:
        _print_report(found)


@app.command()
def reset(
    group: GroupArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="WHERE",
            show_default=False,
            help="earliest, latest, an offset, a time (2026-01-31, 2026-01-31T12:00, yesterday; local unless it says),"
            " how long ago (24h), or epoch milliseconds (1790000000000ms).",
        ),
    ],
    topic: Annotated[
        str | None, typer.Option("--topic", help="This topic only; else all that the group has offsets in.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, help="This partition only; needs --topic.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take an offset outside the log for the nearer end.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Set where a group goes on. The group must have no members while that is done.

    An offset outside the log is refused; with --force it is moved to the
    nearer end. A time stands for the first message at or after it.

    [dim]Examples:[/dim]
      planaria group reset billing --to earliest --dry-run
      planaria group reset billing --topic ORDERS --partition 0 --to 1500

    [dim]--json:[/dim] {"group", "dry_run", "partitions": [{"topic",
    "partition", "from", "to"}]}; null where nothing was committed
    """
    target = parse_target(to, int(time.time() * 1000))
    if partition is not None and topic is None:
        raise typer.BadParameter("needs --topic", param_hint="--partition")
    with attached(connect) as client:
        moves = moves_to(client, group, target, topic, partition, is_forced=force)
        if not dry_run:
            client.reset_offsets(group, {(move.topic, move.partition): move.after for move in moves})
    if as_json:
        print_json({"group": group, "dry_run": dry_run, "partitions": moves})
    else:
        _print_moves(group, moves, dry_run)


@app.command()
def delete(
    group: GroupArgument,
    is_confirmed: YesOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Forget a group that has no members, and its offsets.

    Asks first in a terminal, and needs --yes elsewhere.
    """
    confirm(f"group {group} with its offsets", is_confirmed=is_confirmed)
    with attached(connect) as client:
        client.delete_group(group)
    note(f"group {group} is deleted")


def _print_report(found: GroupReport) -> None:
    lag = "unknown" if found.lag is None else plural(found.lag, "message")
    console().print(
        f"group {found.group} is {found.state}, generation {found.generation}, assignor {found.assignor}, lag {lag}\n"
    )
    members = table("member", "client", "topics", "partitions", numbers=["partitions"])
    for member in found.members:
        count = sum(len(partitions) for partitions in member.assignment.values())
        name = (
            member.member_id if member.instance_id is None else f"{member.member_id} ({member.instance_id})"
        )
        members.add_row(name, member.client_id or "-", ", ".join(member.topics), str(count))
    if found.members:
        console().print(members)
        console().print()
    numbers = ["partition", "committed", "end", "lag"]
    rows = [
        (
            row.topic,
            str(row.partition),
            number_text(row.committed),
            number_text(row.log_end_offset),
            number_text(row.lag),
            row.member_id or "-",
        )
        for row in found.partitions
    ]
    print_table(
        table("topic", "partition", "committed", "end", "lag", "member", numbers=numbers),
        rows,
        empty="nothing is committed or assigned yet",
    )
    print_retrying(RetryingRecords(found.retrying_count, found.retrying))


def _print_moves(group: str, moves: list[Move], dry_run: bool) -> None:
    rows = [(move.topic, str(move.partition), number_text(move.before), str(move.after)) for move in moves]
    print_table(table("topic", "partition", "from", "to", numbers=["partition", "from", "to"]), rows)
    done = "would be" if dry_run else "is"
    note(f"group {group} {done} reset in {plural(len(moves), 'partition')}")
