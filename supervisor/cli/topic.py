"""`planaria topic`: create, list, describe, alter, delete."""

from typing import Annotated, Any, TypeAlias

import msgspec
import typer

from ...transport.protocol.topics import DescribeTopicReply, PartitionDescription, TopicConfig
from .confirmation import YesOption, confirm
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .output import (
    bytes_text,
    duration_text,
    note,
    number_text,
    plural,
    print_json,
    print_table,
    table,
)
from .settings import parse_settings

app = typer.Typer(no_args_is_help=True, help="Create, list, describe, alter and delete topics.")

TopicArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]
SettingsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help=f"{', '.join(TopicConfig.__struct_fields__)}. With units: retention_ms=7d, segment_bytes=64MiB."
        " Repeatable.",
    ),
]


@app.command()
def create(
    topic: TopicArgument,
    partitions: Annotated[int, typer.Option("--partitions", "-p", min=1, help="How many logs it has.")] = 1,
    settings: SettingsOption = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Leave a topic that is there as it is.")
    ] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Create a topic. It serves when the command returns.

    [dim]Examples:[/dim]
      planaria topic create ORDERS --partitions 3
      planaria topic create AUDIT --set retention_ms=unlimited --set flush=batch

    [dim]--json:[/dim] as "topic describe".
    """
    config = _config(settings)
    with attached(connect) as client:
        found = client.create_topic(topic, partitions, if_not_exists=if_not_exists, **config)
    if as_json:
        print_json(found)
    else:
        note(f"topic {topic} has {plural(len(found.partitions), 'partition')}")


@app.command("list")
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="The broker's own topics as well.")] = False,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """List the topics and how many partitions each has.

    [dim]--json:[/dim] {"topics": [{"topic", "partitions"}]}
    """
    with attached(connect) as client:
        topics = sorted(client.list_topics(internal=internal), key=lambda summary: summary.topic)
    if as_json:
        print_json({"topics": topics})
        return
    rows = [(summary.topic, str(summary.partitions)) for summary in topics]
    print_table(
        table("topic", "partitions", numbers=["partitions"]),
        rows,
        empty='no topics yet: "planaria topic create NAME" makes one',
    )


@app.command()
def describe(
    topic: TopicArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Show a topic's configuration and the figures of its partitions.

    [dim]--json:[/dim] {"topic", "topic_id", "config": {...}, "partitions":
    [{"partition", "online", "incarnation", "leader_epoch",
    "log_start_offset", "high_watermark", "log_end_offset", "size_bytes",
    "reason"}]}; -1 is unknown
    """
    with attached(connect) as client:
        found = client.describe_topic(topic)
    if as_json:
        print_json(found)
    else:
        _print_description(found)


@app.command()
def alter(
    topic: TopicArgument,
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", "-p", min=1, help="The new number: it can grow, never shrink."),
    ] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Change a topic's configuration, or let it grow. What is not named stays.

    Keys move to other partitions when their number changes.

    [dim]Examples:[/dim]
      planaria topic alter ORDERS --set retention_ms=30d
      planaria topic alter ORDERS --partitions 6

    [dim]--json:[/dim] as "topic describe".
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


@app.command()
def delete(
    topic: TopicArgument,
    is_confirmed: YesOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Delete a topic and every message in it. Asks first in a terminal, and needs --yes elsewhere."""
    confirm(f"topic {topic} with all its messages", is_confirmed=is_confirmed)
    with attached(connect) as client:
        client.delete_topic(topic)
    note(f"topic {topic} is deleted")


def _config(settings: list[str] | None) -> dict[str, Any]:
    return parse_settings(settings or [], TopicConfig.__struct_fields__)


def _print_description(found: DescribeTopicReply) -> None:
    settings = msgspec.structs.asdict(found.config)
    width = max(map(len, settings))
    note(f"topic {found.topic}, id {found.topic_id}")
    note("".join(f"  {key:{width}}  {_setting_text(key, value)}\n" for key, value in settings.items()))
    print_table(
        table("partition", "start", "end", "size", "state", numbers=["partition", "start", "end", "size"]),
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
