"""`planaria dlq`: list, show, redrive and purge the letters of a dead-letter topic. letters.py renders them."""

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed
from .help_text import Command, Group
from .letters import (
    letter_filter,
    parse_position,
    plain,
    print_histogram,
    print_letter,
    print_letters,
    print_report,
    print_trials,
)
from .output import note, plural, print_json

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.dead_letters import DeadLetter

app = typer.Typer(cls=Group, no_args_is_help=True, help="List, show, redrive and purge dead letters.")

TopicArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="TOPIC", show_default=False, help="Dead-letter topic, such as ORDERS.dlq."),
]
ReasonOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Only letters whose reason or exception contains this text."
    ),
]
GroupOption: TypeAlias = Annotated[
    str | None, typer.Option("--group", metavar="GROUP", help="Only letters of this group.")
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only failures since 2026-01-31T12:00 (local time unless it names a zone), or 90m, 2h, 3d ago.",
    ),
]
OffsetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--offset", metavar="PARTITION:OFFSET", show_default=False, help="Only this letter. Repeatable."
    ),
]
ToOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--to", metavar="TOPIC", help="Send to this topic instead of the original topic."),
]
HandlerOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--handler", metavar="MODULE:FUNCTION", help="Handler to run with --dry-run."),
]
DryRunOption: TypeAlias = Annotated[
    bool,
    typer.Option("--dry-run", help="Send nothing; with --handler, run the handler on each letter instead."),
]

_NO_LETTERS = "{} holds no dead letters"


@app.command("list", cls=Command)
def list_letters(
    topic: TopicArgument,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="Show the newest N letters.")
    ] = 20,
    is_all: Annotated[
        bool, typer.Option("--all", help="Include letters that were already redriven.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Count the letters by reason, and show the newest.

    --json: {"topic", "letters": count, "reasons": [{"reason",
    "letters"}], "newest": [as "dlq show", without the traceback]}
    """
    from ...transport.client.dead_letters import histogram, read_letters  # noqa: PLC0415
    from ...transport.client.redrive import Redrive  # noqa: PLC0415

    wanted = letter_filter(reason, group, since, None)
    with attached(connect) as client:
        is_empty = not _holds_letters(client, topic)
        if is_all:
            letters = [letter for letter in read_letters(client, topic) if wanted.matches(letter)]
        else:
            letters = Redrive(client, topic).pending(wanted)
    newest = sorted(letters, key=lambda letter: letter.failed_ms, reverse=True)[:limit]
    if as_json:
        reasons = [{"reason": text, "letters": count} for text, count in histogram(letters)]
        shown = [plain(letter, is_whole=False) for letter in newest]
        print_json({"topic": topic, "letters": len(letters), "reasons": reasons, "newest": shown})
        return
    if is_empty:
        note(_NO_LETTERS.format(topic))
        return
    note(f"{topic} has {plural(len(letters), 'letter')}" + ("" if is_all else " to be sent back"))
    if letters:
        note("")
        print_histogram(histogram(letters))
    if newest:
        note("")
        print_letters(newest)


@app.command(cls=Command)
def show(
    topic: TopicArgument,
    position: Annotated[
        str,
        typer.Argument(
            metavar="[PARTITION:]OFFSET",
            show_default=False,
            help="Partition and offset of the letter; the partition defaults to 0.",
        ),
    ],
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show one letter: its origin, its failures and its content.

    --json: {"partition", "offset", "from": {"topic", "partition",
    "offset", "timestamp_ms"}, "group", "failures", "deliveries",
    "first_failure_ms", "last_failure_ms", "reason", "exception",
    "traceback", "exit", "redrives", "message": as "consume --format json"}
    """
    where = parse_position(position)
    with attached(connect) as client:
        _holds_letters(client, topic)
        letter = _letter_at(client, topic, where)
    if as_json:
        print_json(plain(letter, is_whole=True))
    else:
        print_letter(letter)


@app.command(cls=Command)
def redrive(
    topic: TopicArgument,
    to: ToOption = None,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    offset: OffsetOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Send at most N letters.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, metavar="N", help="Send at most N letters a second.")
    ] = None,
    max_redrives: Annotated[
        int,
        typer.Option(
            "--max-redrives", min=1, metavar="N", help="Skip letters that were already redriven N times."
        ),
    ] = 3,
    dry_run: DryRunOption = False,
    handler: HandlerOption = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time limit of one run of the handler."),
    ] = 30.0,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Send letters back to the topics they came from, each letter once.

    The command can be killed and run again at any moment: letters that were
    sent are recorded in the topic TOPIC.redriven. The letters stay in TOPIC
    until they are purged. With --dry-run --handler the exit code is 1 when a
    letter fails.

    Examples:
      planaria dlq redrive ORDERS.dlq --dry-run --handler shop:charge
      planaria dlq redrive ORDERS.dlq --reason Timeout --since 2h --rate 50

    --json: {"run", "moved", "held_back", "no_origin", "refused",
    "already_moved"}; with --dry-run {"letters": [{"partition", "offset", "to",
    "passed", "reason", "traceback"}], "held_back", "no_origin"}
    """
    from ...transport.client.redrive import Redrive, who  # noqa: PLC0415

    if handler is not None and not dry_run:
        raise typer.BadParameter("needs --dry-run", param_hint="--handler")
    if handler is not None and not re.fullmatch(r"[\w.]+:\w+", handler):
        raise typer.BadParameter(f"{handler!r} is not like shop:charge", param_hint="--handler")
    wanted = letter_filter(reason, group, since, offset)
    with attached(connect) as client:
        job = Redrive(client, topic, target=to, max_redrives=max_redrives, rate=rate, actor=who())
        if is_empty := not _holds_letters(client, topic):
            letters, left_out = job.judge([])
            report = left_out
        elif dry_run:
            letters, left_out = job.judge(job.pending(wanted))
        else:
            report = job.run(wanted, limit)
    if is_empty and not as_json:
        note(_NO_LETTERS.format(topic))
        return
    if dry_run:
        is_good = print_trials(letters[:limit], left_out, to, handler, timeout, as_json=as_json)
        raise typer.Exit(0 if is_good else 1)
    if as_json:
        print_json(report)
    else:
        print_report(report)


@app.command(cls=Command)
def purge(
    topic: TopicArgument,
    is_confirmed: YesOption = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete all letters, whether redriven or not. Asks for confirmation; without a terminal, --yes is required.

    --json: {"topic", "deleted": offsets}
    """
    with attached(connect) as client:
        is_empty = not _holds_letters(client, topic)
        ends = {n: client.list_offsets(topic, n).offset for n in _partitions(client, topic)}
        starts = {n: client.list_offsets(topic, n, "earliest").offset for n in ends}
        count = sum(ends[n] - starts[n] for n in ends)
        if not is_empty:
            confirm(f"{plural(count, 'letter')} of {topic}", is_confirmed=is_confirmed)
        for partition, end in ends.items():
            client.delete_records(topic, partition, end)
    if as_json:
        print_json({"topic": topic, "deleted": count})
    elif is_empty:
        note(_NO_LETTERS.format(topic))
    else:
        note(f"{plural(count, 'letter')} of {topic} deleted")


def _holds_letters(client: "Client", topic: str) -> bool:
    """Return False when the topic is empty. Raises CommandFailed when it has messages but no dead letter."""
    from ...transport.client.dead_letters import read_partition  # noqa: PLC0415
    from ...transport.dead_letters import is_dead_letter  # noqa: PLC0415

    is_empty = True
    for partition in _partitions(client, topic):
        for message in read_partition(client, topic, partition):
            if is_dead_letter(message.headers):
                return True
            is_empty = False
    if not is_empty:
        told = _NO_LETTERS.format(topic)
        raise CommandFailed(f"{told}: its messages are not dead letters")
    return False


def _partitions(client: "Client", topic: str) -> range:
    return range(len(client.describe_topic(topic).partitions))


def _letter_at(client: "Client", topic: str, position: tuple[int, int]) -> "DeadLetter":
    from ...transport.client.dead_letters import letter_of, read_partition  # noqa: PLC0415

    partition, offset = position
    if partition not in _partitions(client, topic):
        raise CommandFailed(f"{topic} has no partition {partition}")
    found = next(read_partition(client, topic, partition, offset), None)
    if found is None or found.offset != offset:
        raise CommandFailed(f"{topic}/{partition} has no letter at {offset}")
    return letter_of(found)
