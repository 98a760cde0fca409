"""`planaria topic`: create, list, describe, alter, delete."""

from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from ...transport.client.descriptions import PartitionDescription, TopicDescription
from ...transport.client.errors import TopicExists
from ...transport.protocol.topics import TopicConfig
from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .failures import CommandFailed
from .help_text import Command, Group
from .output import (
    bytes_text,
    duration_text,
    note,
    number_text,
    plural,
    print_json,
    print_table,
)
from .settings import parse_settings
from .tables import Listing

app = typer.Typer(cls=Group, no_args_is_help=True, help="Create, list, describe, alter and delete topics.")

TopicArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TOPIC", show_default=False, help="Name of the topic.")
]
SettingsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Set a key of the configuration, with its unit if it has one: retention_ms=7d, segment_bytes=64MiB."
        f" Repeatable. Keys: {', '.join(TopicConfig.__struct_fields__)}.",
    ),
]


@app.command(cls=Command)
def create(
    topic: TopicArgument,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", min=1, metavar="N", help="Number of partitions.")
    ] = 1,
    settings: SettingsOption = None,
    if_not_exists: Annotated[
        bool,
        typer.Option(
            "--if-not-exists",
            help="Accept an existing topic with at least this number of partitions, and do not change it.",
        ),
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Create a topic. It is ready for use when the command returns.

    Examples:
      planaria topic create ORDERS --partitions 3
      planaria topic create AUDIT --set retention_ms=unlimited --set flush=batch

    --json: as "topic describe".
    """
    config = _config(settings)
    with attached(connect) as client:
        try:
            found = client.create_topic(topic, partitions, if_not_exists=if_not_exists, **config)
        except TopicExists as error:
            if not if_not_exists:
                raise
            there = error.message.partition(";")[0]
            way_out = f'"planaria topic alter {topic} --partitions {partitions}" adds partitions'
            raise CommandFailed(f"{there}; {way_out} ({error.code})") from error
    if as_json:
        print_json(found)
    else:
        note(f"topic {topic} has {plural(len(found.partitions), 'partition')}")


@app.command("list", cls=Command)
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="Include the broker's own topics.")] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """List the topics and their numbers of partitions.

    --json: {"topics": [{"topic", "partitions"}]}
    """
    with attached(connect) as client:
        topics = sorted(client.list_topics(internal=internal), key=lambda summary: summary.topic)
    if as_json:
        print_json({"topics": topics})
        return
    rows = [(summary.topic, str(summary.partitions)) for summary in topics]
    print_table(
        Listing("topic", "partitions", numbers=["partitions"]),
        rows,
        empty='no topics yet: "planaria topic create NAME" creates one',
    )


@app.command(cls=Command)
def describe(
    topic: TopicArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Show the configuration of a topic, and the offsets, size and state of its partitions.

    --json: {"topic", "topic_id", "config": {...}, "partitions":
    [{"partition", "online", "incarnation", "leader_epoch",
    "log_start_offset", "high_watermark", "log_end_offset", "size_bytes",
    "reason"}]}; null is unknown
    """
    with attached(connect) as client:
        found = client.describe_topic(topic)
    if as_json:
        print_json(found)
    else:
        _print_description(found)


@app.command(cls=Command)
def alter(
    topic: TopicArgument,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions", "-p", min=1, metavar="N", help="New number of partitions; it cannot be reduced."
        ),
    ] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Change the configuration of a topic or add partitions. Keys not given keep their values.

    With more partitions, messages of a key may go to another partition than before.

    Examples:
      planaria topic alter ORDERS --set retention_ms=30d
      planaria topic alter ORDERS --partitions 6

    --json: as "topic describe".
    """
    config = _config(settings)
    if partitions is None and not config:
        raise typer.BadParameter("nothing to change", param_hint="--partitions or --set")
    with attached(connect) as client:
        found = client.alter_topic(topic, partitions, **config)
    if as_json:
        print_json(found)
    else:
        _print_description(found)


@app.command(cls=Command)
def delete(
    topic: TopicArgument,
    is_confirmed: YesOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete a topic and all its messages. Asks for confirmation; without a terminal, --yes is required."""
    confirm(f"topic {topic} with all its messages", is_confirmed=is_confirmed)
    with attached(connect) as client:
        client.delete_topic(topic)
    note(f"topic {topic} is deleted")


def _config(settings: list[str] | None) -> dict[str, Any]:
    return parse_settings(settings or [], TopicConfig.__struct_fields__)


def _print_description(found: TopicDescription) -> None:
    settings = msgspec.structs.asdict(found.config)
    width = max(map(len, settings))
    note(f"topic {found.topic}, id {found.topic_id}")
    if found.mirror is not None:
        reason = f": {found.mirror.reason}" if found.mirror.reason else ""
        note(f"mirror {found.mirror.mirror}, {found.mirror.state}{reason}")
    note("".join(f"  {key:{width}}  {_setting_text(key, value)}\n" for key, value in settings.items()))
    print_table(
        Listing(
            "partition",
            "start",
            "end",
            "size",
            "state",
            numbers=["partition", "start", "end", "size"],
            prose=["state"],
        ),
        [_row(partition) for partition in found.partitions],
    )


def _row(partition: PartitionDescription) -> tuple[str, ...]:
    return (
        str(partition.partition),
        number_text(partition.log_start_offset),
        number_text(partition.log_end_offset),
        bytes_text(partition.size_bytes),
        "online" if partition.online else f"offline: {partition.reason or 'unknown'}",
    )


def _setting_text(key: str, value: Any) -> str:
    if value == -1:
        return "unlimited"
    if key.endswith("_ms"):
        return duration_text(value)
    return bytes_text(value) if key.endswith("_bytes") else str(value)
