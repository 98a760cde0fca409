"""`planaria group`: list, create, describe, pause, resume, reset, delete."""

import re
import time
from typing import Annotated, Literal, TypeAlias

import msgspec
import typer

from ...transport.addresses import TopicPartition
from ...transport.durations import duration_ms
from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .group_report import GroupEntry, GroupReport, alarms_of, entries_of, report_on
from .help_text import Command, Group
from .output import UNKNOWN, note, number_text, plural, print_json, print_table, show
from .pauses import pause_text, print_pause
from .positions import Move, moves_to, parse_target
from .retries import RetryingRecords, of_share_group, print_alarms, print_retrying
from .settings import parse_value
from .share_report import settings_text, show_share
from .tables import Listing

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="List, describe, pause, reset and delete groups; create share groups.",
)
GroupArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="GROUP", show_default=False, help="Name of the group.")
]


FairOption: TypeAlias = Annotated[
    bool | None,
    typer.Option("--fair/--no-fair", show_default=False, help="Let keys take turns; initially off."),
]
InFlightOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-in-flight-per-key",
        min=0,
        max=1_000,
        metavar="N",
        help="Maximum number of locked records of a key; 0: no limit.",
    ),
]
RateOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--rate-per-key",
        min=0,
        max=100_000,
        metavar="N",
        help="Maximum number of records of a key a second; 0: no limit.",
    ),
]
WeightOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="KEY=N",
        help="Records of a key in one turn, 1 to 100. Repeatable; replaces all weights; = removes them.",
    ),
]
CoalesceOption: TypeAlias = Annotated[
    Literal["none", "latest"] | None,
    typer.Option(
        "--coalesce", metavar="none|latest", help="latest: deliver only the newest waiting record of a key."
    ),
]
MaxWaitOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-wait", metavar="DURATION", help="Time for which --coalesce collects records, such as 500ms."
    ),
]
ExpiredOption: TypeAlias = Annotated[
    Literal["deliver", "skip", "dead_letter"] | None,
    typer.Option(
        "--expired",
        metavar="deliver|skip|dead_letter",
        help="Treatment of expired records; initially deliver.",
    ),
]


@app.command("list", cls=Command)
def list_groups(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List consumer groups and share groups (work queues).

    --json: {"groups": [{"group", "type", "state", "paused": {"reason",
    "since_ms", "until_ms"}}]}; null is unknown: its coordinator sleeps, or
    does not run; or not paused. Types: consumer, share. States: empty,
    rebalancing, stable, pausing, paused, asleep (empty, and idle for
    coordinator_idle_ms; the next request wakes it).
    """
    with attached(connect) as client:
        entries = entries_of(client)
    if as_json:
        print_json({"groups": entries})
        return
    print_table(
        Listing("group", "type", "state"),
        [(entry.group, entry.type or UNKNOWN, _state_text(entry)) for entry in entries],
        empty="no groups yet: a consumer with --group creates one",
    )


@app.command(cls=Command)
def create(
    group: GroupArgument,
    kind: Annotated[
        Literal["share"],
        typer.Option(
            "--type", metavar="share", help="Type of the group; consumer groups are created on first use."
        ),
    ] = "share",
    lock_ms: Annotated[
        int | None,
        typer.Option(
            "--lock-ms",
            min=100,
            max=3_600_000,
            metavar="MS",
            help="Time for which a record is locked; initially 30000.",
        ),
    ] = None,
    max_deliveries: Annotated[
        int | None,
        typer.Option(
            "--max-deliveries",
            min=1,
            max=1_000,
            metavar="N",
            help="Deliveries after which a record is dead; initially 5.",
        ),
    ] = None,
    dead_letter: Annotated[
        str | None,
        typer.Option(
            "--dead-letter", metavar="TOPIC", help='Topic to which dead records are copied; "" for none.'
        ),
    ] = None,
    start: Annotated[
        Literal["earliest", "latest"] | None,
        typer.Option(
            "--start",
            metavar="earliest|latest",
            help="Start position in a new partition; initially earliest.",
        ),
    ] = None,
    fair: FairOption = None,
    max_in_flight_per_key: InFlightOption = None,
    rate_per_key: RateOption = None,
    weight: WeightOption = None,
    coalesce: CoalesceOption = None,
    max_wait: MaxWaitOption = None,
    expired: ExpiredOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Create a share group or change its settings. Settings that are not given keep their values.

    Example:
      planaria group create resize --dead-letter IMAGES.dead --max-deliveries 3
      planaria group create jobs --fair --weight gold=5 --weight silver=2

    --json: {"group", "type", "lock_ms", "max_deliveries",
    "dead_letter", "start", "fair", "max_in_flight_per_key", "rate_per_key",
    "weights", "coalesce", "max_wait_ms", "expired"}
    """
    with attached(connect) as client:
        if dead_letter:
            client.describe_topic(dead_letter)  # fails before the group is created
        found = client.configure_share_group(
            group, lock_ms=lock_ms, max_deliveries=max_deliveries, dead_letter=dead_letter, start=start,
            fair=fair, max_in_flight_per_key=max_in_flight_per_key, rate_per_key=rate_per_key,
            weights=_weights(weight), coalesce=coalesce, expired=expired,
            max_wait_ms=None if max_wait is None else parse_value("max_wait_ms", max_wait, "--max-wait"),
        )  # fmt: skip
    if as_json:
        print_json({"group": group, "type": kind, **msgspec.to_builtins(found)})
        return
    note(f"share group {group}: {settings_text(found)}")


def _weights(pairs: list[str] | None) -> dict[str, int] | None:
    """Parse `["gold=5"]`; `["="]` stands for no weights."""
    if pairs is None:
        return None
    found = {}
    for pair in pairs:
        key, _, text = pair.rpartition("=")
        if not key and not text:
            continue
        if not key or not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
            raise typer.BadParameter(f"{pair!r} is not like gold=5, with 1 to 100", param_hint="--weight")
        found[key] = int(text)
    return found


@app.command(cls=Command)
def describe(
    group: GroupArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Show the members of a group, their partitions, the committed offsets and the lag.

    --json: {"group", "state", "generation", "assignor", "lag",
    "members": [{"member_id", "instance_id", "client_id", "topics",
    "generation", "assignment", "owned"}], "partitions": [{"topic",
    "partition", "committed", "log_end_offset", "lag", "member_id",
    "metadata"}], "paused": {"reason", "since_ms", "until_ms"}, "alarms",
    "retrying_count", "retrying"}; null is unknown, or not paused; `retrying`
    as in `planaria inflight`. States: empty, rebalancing, stable, pausing
    (paused, and members still hold partitions or records), paused.
    Of a share group: {"group", "type", "state", "share": {the settings of
    `group create`, "members", "partitions": [{"topic", "partition",
    "start_offset", "next_offset", "acquired", "returned", "dead", "held",
    "retrying"}]}, "paused", "alarms", "retrying_count", "retrying"}
    """
    with attached(connect) as client:
        description = client.describe_group(group)
        if description.share is not None:
            retrying = of_share_group(client, description)
            alarms = alarms_of(client.status(), group)
            show_share(description, description.share, retrying, alarms, as_json=as_json)
            return
        found = report_on(client, description)
    if as_json:
        print_json(found)
    else:
        _print_report(found)


@app.command(cls=Command)
def pause(
    group: GroupArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Shown by describe, list and status.")
    ] = "",
    duration: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            show_default=False,
            help="Resume after this time (90s, 15m, 1h, 3d); otherwise by resume alone.",
        ),
    ] = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Pause a group: its members stay and receive nothing until it is resumed.

    Members of a consumer group finish their records in progress, commit and
    give up their partitions; records that members of a share group hold are
    finished. The pause outlives restarts. A second pause replaces the first
    one's reason and end.

    Example:
      planaria group pause billing --reason "the bank is down" --for 1h
    """
    for_ms = None if duration is None else duration_ms(duration)
    if duration is not None and not for_ms:
        raise typer.BadParameter(f"{duration!r} is not like 90s, 15m, 1h, 3d", param_hint="--for")
    with attached(connect) as client:
        client.pause_group(group, reason=reason, for_ms=for_ms)
    note(f"group {group} is paused{'' if duration is None else f' for {duration}'}")


@app.command(cls=Command)
def resume(group: GroupArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """End the pause of a group. Nothing happens if it is not paused."""
    with attached(connect) as client:
        client.resume_group(group)
    note(f"group {group} is not paused")


@app.command(cls=Command)
def reset(
    group: GroupArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="WHERE",
            show_default=False,
            help="earliest, latest, an offset, a time (2026-01-31, 2026-01-31T12:00, yesterday; local without a zone),"
            " an age (24h), or epoch milliseconds (1790000000000ms).",
        ),
    ],
    topic: Annotated[
        str | None,
        typer.Option(
            "--topic", metavar="TOPIC", help="Only this topic; otherwise every topic with committed offsets."
        ),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option("--partition", min=0, metavar="N", help="Only this partition; requires --topic."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the new offsets without setting them.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Move an offset outside the log to its nearer end.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Set the committed offsets of a group without members, or of a paused one whose members hold no partition.

    An offset outside the log is refused unless --force is given. A time
    selects the first message with that timestamp or a later one.

    Examples:
      planaria group reset billing --to earliest --dry-run
      planaria group reset billing --topic ORDERS --partition 0 --to 1500

    --json: {"group", "dry_run", "partitions": [{"topic",
    "partition", "from", "to"}]}; null where nothing was committed
    """
    target = parse_target(to, int(time.time() * 1000))
    if partition is not None and topic is None:
        raise typer.BadParameter("requires --topic", param_hint="--partition")
    with attached(connect) as client:
        moves = moves_to(client, group, target, topic, partition, is_forced=force)
        if not dry_run:
            client.reset_offsets(
                group, {TopicPartition(move.topic, move.partition): move.after for move in moves}
            )
    if as_json:
        print_json({"group": group, "dry_run": dry_run, "partitions": moves})
    else:
        _print_moves(group, moves, dry_run)


@app.command(cls=Command)
def delete(
    group: GroupArgument,
    is_confirmed: YesOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete a group without members, and its offsets.

    Asks for confirmation; without a terminal, --yes is required.
    """
    confirm(f"group {group} with its offsets", is_confirmed=is_confirmed)
    with attached(connect) as client:
        client.delete_group(group)
    note(f"group {group} is deleted")


def _state_text(entry: GroupEntry) -> str:
    state = entry.state or UNKNOWN
    return state if entry.paused is None else f"{state}, {pause_text(entry.paused)}"


def _print_report(found: GroupReport) -> None:
    lag = "unknown" if found.lag is None else plural(found.lag, "message")
    note(
        f"group {found.group} is {found.state}, generation {found.generation}, assignor {found.assignor}, lag {lag}\n"
    )
    members = Listing("member", "client", "topics", "partitions", numbers=["partitions"])
    for member in found.members:
        count = sum(len(partitions) for partitions in member.assignment.values())
        name = (
            member.member_id if member.instance_id is None else f"{member.member_id} ({member.instance_id})"
        )
        members.add_row(name, member.client_id or "-", ", ".join(member.topics), str(count))
    if found.members:
        show(members)
        note("")
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
        Listing("topic", "partition", "committed", "end", "lag", "member", numbers=numbers),
        rows,
        empty="nothing is committed or assigned yet",
    )
    print_pause(found.paused)
    print_retrying(RetryingRecords(found.retrying_count, found.retrying))
    print_alarms(found.alarms)


def _print_moves(group: str, moves: list[Move], dry_run: bool) -> None:
    rows = [(move.topic, str(move.partition), number_text(move.before), str(move.after)) for move in moves]
    print_table(Listing("topic", "partition", "from", "to", numbers=["partition", "from", "to"]), rows)
    done = "would be" if dry_run else "is"
    note(f"group {group} {done} reset in {plural(len(moves), 'partition')}")
