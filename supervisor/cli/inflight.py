"""`planaria inflight`: which records of a topic hosted handlers have at hand, and since when."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .output import duration_text, note, print_json, print_table, table

if TYPE_CHECKING:
    from ...transport.protocol.operations import StatusReply


def inflight(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)],
    group: Annotated[
        str | None, typer.Option("--group", "-g", show_default=False, help="Only of this group.")
    ] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show which records of TOPIC hosted handlers have at hand, as of the last heartbeats.

    [dim]--json:[/dim] {"records": [{"group", "topic", "partition", "offset", "member", "pid", "attempt", "since_ms"}]}
    """
    with attached(connect) as client:
        client.describe_topic(topic)  # a person who misspelled it is told
        if group is not None:
            client.describe_group(group)
        records = records_of(client.status(), topic, group)
    if as_json:
        print_json({"records": records})
    elif records:
        now_ms = int(time.time() * 1000)
        columns = table(
            "partition", "offset", "group", "member", "pid", "attempt", "for",
            numbers=["partition", "offset", "pid", "attempt", "for"],
        )  # fmt: skip
        print_table(columns, [_row(record, now_ms) for record in records])
    else:
        note(f"no hosted handler has a record of {topic} at hand")


def records_of(found: "StatusReply", topic: str, group: str | None) -> list[dict[str, Any]]:
    """In the order of the log."""
    records: list[dict[str, Any]] = []
    for actor in found.actors:
        name = actor.address.removeprefix("subscriber/").rpartition("/")[0]
        who = {"group": name, "member": actor.address, "pid": actor.pid}
        if group in (None, name):
            records += [who | msgspec.to_builtins(each) for each in actor.in_flight if each.topic == topic]
    return sorted(records, key=lambda record: (record["partition"], record["offset"], record["group"]))


def _row(record: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    told = (str(record[name]) for name in ("partition", "offset", "group", "member", "pid", "attempt"))
    return *told, duration_text(max(0, now_ms - record["since_ms"]))
