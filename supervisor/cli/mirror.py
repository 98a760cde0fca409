"""`planaria mirror`: topics of another broker that are copied here, their promotion, and the way back."""

import re
import time
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import typer

from ...transport.patterns import WILDCARD
from ...transport.protocol.mirrors import (
    ListMirrors,
    ListMirrorsReply,
    MirroredTopic,
    MirrorReport,
    PromoteMirror,
    PromoteMirrorReply,
)
from ...transport.protocol.topics import DescribeTopic, DescribeTopicReply
from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached, checked_endpoints
from .failures import CommandFailed
from .help_text import Command, Group
from .mirror_status import end_of, lost_at, note_not_copied, print_status, time_of
from .output import note, plural, print_json, print_table
from .settings import parse_value
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.client import Client

PROMOTE_TIMEOUT_MS = 60_000
FAILBACK_TIMEOUT_S = 60.0
POLL_S = 0.2
NOT_COPIED = "not copied: delayed messages not yet due, share groups, transactional ids, quotas, principals, deployments"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Copy topics of another broker to this one, and promote the copies.",
)

NameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MIRROR", show_default=False, help="Name of the mirror.")
]
FileOption: TypeAlias = Annotated[
    str, typer.Option(metavar="FILE", help="File on every node of this broker.")
]
PatternsArgument: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="PATTERN", show_default=False, help="Topics, or patterns with * and ?.")
]
GroupsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        metavar="PATTERN",
        help="Group whose offsets are copied, or a pattern. Repeatable; * by default.",
    ),
]
ServerKeyOption: TypeAlias = Annotated[str, typer.Option(metavar="KEY", help="Public key of the source.")]
UserOption: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="User of the source.")]
RateOption: TypeAlias = Annotated[
    str,
    typer.Option("--bytes-per-second", metavar="N", help="Limit of the traffic, such as 10MB, or unlimited."),
]


@app.command("create", cls=Command)
def create(
    mirror: NameArgument,
    topics: PatternsArgument,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", callback=checked_endpoints, help="Endpoints of the broker to copy."
        ),
    ],
    groups: GroupsOption = None,
    rate: RateOption = "unlimited",
    key_file: FileOption = "",
    server_key: ServerKeyOption = "",
    user: UserOption = "",
    password_file: FileOption = "",
    token_file: FileOption = "",
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Copy topics of another broker from now on, including matching topics that are created later.

    Examples:
      planaria mirror create backup 'ORDERS*' PAYMENTS --from tcp://paris:5570
      planaria mirror create backup '*' --from tcp://paris:5570 --key-file /etc/planaria/mirror.key
    """
    _check_patterns("PATTERN", topics)
    _check_patterns("--group", groups or [])
    limit = _limit(rate, "--bytes-per-second")
    with attached(connect) as client:
        client.create_mirror(
            mirror,
            topics,
            source=source,
            groups=groups or "*",
            bytes_per_second=limit,
            key_file=key_file,
            server_key=server_key,
            user=user,
            password_file=password_file,
            token_file=token_file,
        )
    note(f"{mirror}: copies {', '.join(topics)} from {source}")
    note(NOT_COPIED)


@app.command("list", cls=Command)
def list_mirrors(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the mirrors of this broker.

    --json: {"mirrors": [{"mirror", "spec", "state", "reason", "last_contact_ms",
    "copied_bytes", "topics", "groups", "groups_not_copied", "delayed", "delayed_at_ms"}]}
    """
    found = _reports(connect)
    if as_json:
        print_json({"mirrors": msgspec.to_builtins(found)})
        return
    if not found:
        note("there are no mirrors")
        return
    rows = [
        (
            each.mirror,
            each.spec.source,
            ", ".join(each.spec.topics),
            each.state,
            str(len(each.topics)),
            time_of(each.last_contact_ms),
            each.reason,
        )
        for each in found
    ]
    print_table(Listing("mirror", "source", "patterns", "state", "topics", "last contact", "reason"), rows)


@app.command("status", cls=Command)
def status(
    mirror: Annotated[str | None, typer.Argument(metavar="[MIRROR]", help="Show only this mirror.")] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show each copied partition: its end, the source's, and the lag in offsets, bytes and seconds.

    --json: as of mirror list, and "left": {MIRROR: [{"topic", "state", "reason"}]} for topics that
    take no producers, though their mirror was deleted.
    """
    with attached(connect) as client:
        reply = client._ask(ListMirrors(), ListMirrorsReply)
    found = [each for each in reply.mirrors if mirror in (None, each.mirror)]
    left = {name: topics for name, topics in reply.left.items() if mirror in (None, name)}
    if mirror is not None and not (found or left):
        raise CommandFailed(f'there is no mirror {mirror!r}; "planaria mirror list" shows all of them')
    if as_json:
        print_json({"mirrors": msgspec.to_builtins(found), "left": msgspec.to_builtins(left)})
        return
    print_status(found, left)


@app.command("pause", cls=Command)
def pause(mirror: NameArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Stop copying, until the mirror is resumed. Its topics stay read-only."""
    with attached(connect) as client:
        client.pause_mirror(mirror)
    note(f"{mirror}: paused")


@app.command("resume", cls=Command)
def resume(mirror: NameArgument, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """Copy again after a pause; copying of FAULTED topics is retried as well."""
    with attached(connect) as client:
        client.resume_mirror(mirror)
    note(f"{mirror}: resumed")


@app.command("throttle", cls=Command)
def throttle(
    mirror: NameArgument,
    rate: Annotated[
        str,
        typer.Argument(
            metavar="BYTES", show_default=False, help="Bytes a second, such as 10MB, or unlimited."
        ),
    ],
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Limit the traffic of a mirror."""
    limit = _limit(rate, "BYTES")
    with attached(connect) as client:
        client.throttle_mirror(mirror, limit)
    note(f"{mirror}: {'no limit' if limit < 0 else f'{limit:,} bytes a second'}")


@app.command("promote", cls=Command)
def promote(
    mirror: NameArgument,
    topics: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOPIC]...", help="Promote only these topics; by default all of the mirror."),
    ] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Promote the copies: they accept producers from now on.

    Prints the fork of each partition: the first offset that was not copied, the end of the source as last
    reported, and when. Repeating it is harmless, and prints the same.

    --json: {"topics": [{"topic", "forks": [{"partition", "offset", "leader_epoch", "first_epoch",
    "source_high_watermark", "heard_at_ms"}]}]}
    """
    with attached(connect, PROMOTE_TIMEOUT_MS) as client:
        found = client._ask(PromoteMirror(mirror=mirror, topics=topics or None), PromoteMirrorReply).topics
        reports = client._ask(ListMirrors(), ListMirrorsReply).mirrors
    if as_json:
        print_json({"topics": msgspec.to_builtins(found)})
        return
    rows = [
        (
            each.topic,
            str(fork.partition),
            str(fork.offset),
            end_of(fork),
            time_of(fork.heard_at_ms),
            lost_at(fork),
        )
        for each in found
        for fork in each.forks
    ]
    print_table(Listing("topic", "partition", "fork", "source's end", "as of", "not copied"), rows)
    note(f"{mirror}: {plural(len(found), 'topic')} promoted")
    note_not_copied([each for each in reports if each.mirror == mirror], [each.topic for each in found])


@app.command("failback", cls=Command)
def failback(
    mirror: NameArgument,
    topics: PatternsArgument,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", callback=checked_endpoints, help="Endpoints of the promoted broker."
        ),
    ],
    groups: GroupsOption = None,
    rate: RateOption = "unlimited",
    key_file: FileOption = "",
    server_key: ServerKeyOption = "",
    user: UserOption = "",
    password_file: FileOption = "",
    token_file: FileOption = "",
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Make this broker, the former source, follow the broker that was promoted.

    Records that the promoted broker does not have are copied to separate topics, and removed. The command
    waits for that, and prints where they are. If it is interrupted, the broker continues.

    --json: {"topics": [{"topic", "state", "reason", "diverged", "partitions": [{"partition", "first", "next"}]}]}

    Example:
      planaria mirror failback rome 'ORDERS*' --from tcp://rome:5570
    """
    _check_patterns("PATTERN", topics)
    _check_patterns("--group", groups or [])
    limit = _limit(rate, "--bytes-per-second")
    with attached(connect) as client:
        client.create_mirror(
            mirror,
            topics,
            source=source,
            groups=groups or "*",
            bytes_per_second=limit,
            key_file=key_file,
            server_key=server_key,
            user=user,
            password_file=password_file,
            token_file=token_file,
            failback=True,
        )
        found = _rejoined(client, mirror)
        set_aside = {each.topic: _set_aside(client, each.diverged) for each in found if each.diverged}
    if as_json:
        columns = ("partition", "first", "next")
        shown = [
            {
                "topic": each.topic,
                "state": each.state,
                "reason": each.reason,
                "diverged": each.diverged,
                "partitions": [dict(zip(columns, row, strict=True)) for row in set_aside.get(each.topic, ())],
            }
            for each in found
        ]
        print_json({"topics": shown})
        _check_rejoined(mirror, found)
        return
    rows = [
        (each.topic, each.state, each.diverged, *cells)
        for each in found
        for cells in [tuple(map(str, row)) for row in set_aside.get(each.topic, ())] or [("", "none", "")]
    ]
    print_table(Listing("topic", "state", "kept in", "partition", "from offset", "up to"), rows)
    for each in found:
        if each.reason and each.state == "following":
            note(f"{each.topic}: {each.reason}")
    _check_rejoined(mirror, found)
    note(f"{mirror}: copies {', '.join(topics)} from {source}")
    note(NOT_COPIED)


def _check_rejoined(mirror: str, topics: list[MirroredTopic]) -> None:
    """Raise CommandFailed if a topic does not follow."""
    for each in topics:
        if each.state in ("refused", "faulted"):
            raise CommandFailed(
                f"{each.topic} is {each.state}: {each.reason}; mirror {mirror} stays and tries again:"
                f' "planaria mirror delete {mirror}" ends that'
            )


def _check_patterns(option: str, patterns: list[str]) -> None:
    for pattern in patterns:
        if not re.fullmatch(WILDCARD, pattern):
            raise typer.BadParameter(
                f"{pattern[:200]!r} is neither a name nor a pattern: 1 to 200 of the characters A-Z a-z 0-9 . _ - * ?",
                param_hint=option,
            )


def _rejoined(client: "Client", mirror: str) -> list[MirroredTopic]:
    """Return the topics of a mirror once each has rejoined, or cannot."""
    ends_at = time.monotonic() + FAILBACK_TIMEOUT_S
    while True:
        reports = client._ask(ListMirrors(), ListMirrorsReply).mirrors
        report = next((each for each in reports if each.mirror == mirror), None)
        if report is None:
            raise CommandFailed(f"mirror {mirror!r} was deleted meanwhile")
        if report.topics and all(_is_settled(each) for each in report.topics):
            return report.topics
        if time.monotonic() >= ends_at:
            why = report.reason or ("it rejoins still" if report.topics else "the source has no such topic")
            raise CommandFailed(
                f'{mirror}: {why}; it continues in the background: see "planaria mirror status"'
            )
        time.sleep(POLL_S)


def _is_settled(topic: MirroredTopic) -> bool:
    return bool(topic.partitions) if topic.state == "following" else topic.state != "rejoining"


def _set_aside(client: "Client", topic: str) -> list[tuple[int, int, int]]:
    """Return the partitions of a topic with records set aside: number, first offset, next offset."""
    return [
        (each.partition, each.log_start_offset, each.high_watermark)
        for each in client._ask(DescribeTopic(topic=topic), DescribeTopicReply).partitions
        if each.high_watermark > each.log_start_offset
    ]


@app.command("delete", cls=Command)
def delete(
    mirror: NameArgument, is_confirmed: YesOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Delete a mirror. Its topics stay: those that were not promoted are read-only, and can still be promoted."""
    confirm(f"mirror {mirror!r}", is_confirmed=is_confirmed)
    with attached(connect) as client:
        client.delete_mirror(mirror)
    note(f"{mirror}: deleted")


def _reports(connect: str) -> list[MirrorReport]:
    with attached(connect) as client:
        return client._ask(ListMirrors(), ListMirrorsReply).mirrors


def _limit(text: str, option: str) -> int:
    """Return bytes a second, -1 without a limit. Raises BadParameter."""
    value = -1 if text.lower() in ("unlimited", "none", "-1") else parse_value("rate_bytes", text, option)
    assert isinstance(value, int)
    return value
