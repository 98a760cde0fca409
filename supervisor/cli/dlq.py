"""`planaria dlq`: list, show, redrive, purge the letters of a dead-letter topic. How they look is in letters.py."""

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed
from .letters import (
    letter_filter,
    parse_place,
    plain,
    print_histogram,
    print_letter,
    print_letters,
    print_report,
    print_trials,
)
from .output import console, error_console, note, plural, print_json

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.dead_letters import DeadLetter

app = typer.Typer(no_args_is_help=True, help="List, show, send back and delete dead letters.")

TopicArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="TOPIC", show_default=False, help="The dead-letter topic, such as ORDERS.dlq."),
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Those whose reason or exception has this text.")
]
GroupOption: TypeAlias = Annotated[str | None, typer.Option("--group", help="Those of this group.")]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Failed since: 2026-01-31T12:00 (local unless it says), or 90m, 2h, 3d ago.",
    ),
]
OffsetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--offset", metavar="PARTITION:OFFSET", show_default=False, help="This letter. Repeatable."),
]


@app.command("list")
def list_letters(
    topic: TopicArgument,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="So many of the newest are shown.")] = 20,
    is_all: Annotated[bool, typer.Option("--all", help="Those that were sent back already as well.")] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show how many letters there are for which reasons, and the newest.

    [dim]--json:[/dim] {"topic", "letters": count, "reasons": [{"reason",
    "letters"}], "newest": [as "dlq show", without the traceback]}
    """
    from ...transport.client.dead_letters import histogram, read_letters  # noqa: PLC0415
    from ...transport.client.redrive import Redrive  # noqa: PLC0415

    wanted = letter_filter(reason, group, since, None)
    with attached(connect) as client:
        if is_all:
            letters = [letter for letter in read_letters(client, topic) if wanted.matches(letter)]
        else:
            letters = Redrive(client, topic).pending(wanted)
    if letters and all(letter.topic is None and letter.group is None for letter in letters):
        error_console().print(
            f"{topic} holds no dead letters: none of its messages says where it failed", soft_wrap=True
        )
    newest = sorted(letters, key=lambda letter: letter.failed_ms, reverse=True)[:limit]
    if as_json:
        reasons = [{"reason": text, "letters": count} for text, count in histogram(letters)]
        shown = [plain(letter, is_whole=False) for letter in newest]
        print_json({"topic": topic, "letters": len(letters), "reasons": reasons, "newest": shown})
        return
    note(f"{topic} has {plural(len(letters), 'letter')}" + ("" if is_all else " to be sent back"))
    if letters:
        console().print()
        print_histogram(histogram(letters))
    if newest:
        console().print()
        print_letters(newest)


@app.command()
def show(
    topic: TopicArgument,
    place: Annotated[str, typer.Argument(metavar="[PARTITION:]OFFSET", show_default=False)],
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show one letter: where it comes from, why it failed, what it holds.

    [dim]--json:[/dim] {"partition", "offset", "from": {"topic", "partition",
    "offset", "timestamp_ms"}, "group", "failures", "deliveries",
    "first_failure_ms", "last_failure_ms", "reason", "exception",
    "traceback", "exit", "redrives", "message": as "consume --format json"}
    """
    where = parse_place(place)
    with attached(connect) as client:
        letter = _letter_at(client, topic, where)
    if as_json:
        print_json(plain(letter, is_whole=True))
    else:
        print_letter(letter)


@app.command()
def redrive(
    topic: TopicArgument,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TOPIC", help="Not to where they came from, but here.")
    ] = None,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    offset: OffsetOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="So many at most.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", min=0.1, help="So many a second at most.")] = None,
    max_redrives: Annotated[
        int, typer.Option("--max-redrives", min=1, help="Leave those that were sent back so often already.")
    ] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; with --handler, try each on today's code.")
    ] = False,
    handler: Annotated[
        str | None, typer.Option("--handler", metavar="MODULE:FUNCTION", help="For --dry-run.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds one trial may take.")] = 30.0,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Send letters back to where they came from, each once.

    Killed at any moment it can be run again. What was sent is noted in the
    topic TOPIC.redriven; the letters stay until they are purged.

    [dim]Examples:[/dim]
      planaria dlq redrive ORDERS.dlq --dry-run --handler shop:charge
      planaria dlq redrive ORDERS.dlq --reason Timeout --since 2h --rate 50

    [dim]--json:[/dim] {"run", "moved", "held_back", "homeless", "refused",
    "settled"}; with --dry-run {"letters": [{"partition", "offset", "to",
    "passed", "reason", "traceback"}], "held_back", "homeless"}
    """
    from ...transport.client.redrive import Redrive, who  # noqa: PLC0415

    if handler is not None and not dry_run:
        raise typer.BadParameter("needs --dry-run", param_hint="--handler")
    if handler is not None and not re.fullmatch(r"[\w.]+:\w+", handler):
        raise typer.BadParameter(f"{handler!r} is not like shop:charge", param_hint="--handler")
    wanted = letter_filter(reason, group, since, offset)
    with attached(connect) as client:
        job = Redrive(client, topic, target=to, max_redrives=max_redrives, rate=rate, actor=who())
        if dry_run:
            letters, left_out = job.judge(job.pending(wanted))
        else:
            report = job.run(wanted, limit)
    if dry_run:
        is_good = print_trials(letters[:limit], left_out, to, handler, timeout, as_json=as_json)
        raise typer.Exit(0 if is_good else 1)
    if as_json:
        print_json(report)
    else:
        print_report(report)


@app.command()
def purge(
    topic: TopicArgument,
    is_confirmed: YesOption = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete all letters, whether sent back or not. Asks first in a terminal, and needs --yes elsewhere.

    [dim]--json:[/dim] {"topic", "deleted": offsets}
    """
    with attached(connect) as client:
        ends = {n: client.list_offsets(topic, n).offset for n in _partitions(client, topic)}
        starts = {n: client.list_offsets(topic, n, "earliest").offset for n in ends}
        count = sum(ends[n] - starts[n] for n in ends)
        confirm(f"{plural(count, 'letter')} of {topic}", is_confirmed=is_confirmed)
        for partition, end in ends.items():
            client.delete_records(topic, partition, end)
    if as_json:
        print_json({"topic": topic, "deleted": count})
    else:
        note(f"{plural(count, 'letter')} of {topic} deleted")


def _partitions(client: "Client", topic: str) -> range:
    return range(len(client.describe_topic(topic).partitions))


def _letter_at(client: "Client", topic: str, place: tuple[int, int]) -> "DeadLetter":
    from ...transport.client.dead_letters import letter_of, read_partition  # noqa: PLC0415

    partition, offset = place
    if partition not in _partitions(client, topic):
        raise CommandFailed(f"{topic} has no partition {partition}")
    found = next(read_partition(client, topic, partition, offset), None)
    if found is None or found.offset != offset:
        raise CommandFailed(f"{topic}/{partition} has no letter at {offset}")
    return letter_of(found)
