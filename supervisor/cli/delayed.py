"""`planaria delayed`: list and cancel delayed messages."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ...transport.times import utc_text
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .help_text import Command, Group
from .output import note, plural, print_json, print_table
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.descriptions import ScheduledMessage

app = typer.Typer(cls=Group, no_args_is_help=True, help="List and cancel delayed messages.")


@app.command("list", cls=Command)
def list_delayed(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="[TOPIC]", show_default=False, help="List only messages for this topic."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="List at most N messages.")] = 100,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """List the pending delayed messages, and the reason if a message that is due is not delivered.

    --json: {"messages": [{"scheduled_id", "topic", "partition", "key_text", "deliver_at_ms", "reason", ...}]}
    """
    with attached(connect) as client:
        if topic is not None:
            client.describe_topic(topic)  # fails if the topic does not exist
        messages = client.list_scheduled(topic, limit)
    if as_json:
        print_json({"messages": [msgspec.to_builtins(message) for message in messages]})
        return
    if not messages:
        note("no delayed messages")
        return
    columns = Listing("id", "topic", "key", "due", "bytes", "reason", numbers=["bytes"], prose=["reason"])
    print_table(columns, [_row(message) for message in messages])
    if len(messages) == limit:
        note(f"the first {limit}; --limit shows more")


def _row(message: "ScheduledMessage") -> tuple[str, ...]:
    where = message.topic if message.partition is None else f"{message.topic}/{message.partition}"
    key = message.key_text if message.key is None or message.key_text is not None else repr(message.key)
    due = utc_text(message.deliver_at_ms)
    return message.scheduled_id, where, key or "-", due, str(message.size_bytes), message.reason or "-"


@app.command("cancel", cls=Command)
def cancel_delayed(
    scheduled_ids: Annotated[
        list[str],
        typer.Argument(metavar="ID", show_default=False, help="Ids printed by `planaria delayed list`."),
    ],
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Cancel messages by id. The command fails at the first id that is not pending.

    --json: {"cancelled": [id]}
    """
    cancelled: list[Any] = []
    with attached(connect) as client:
        for scheduled_id in scheduled_ids:
            client.cancel_scheduled(scheduled_id)
            cancelled.append(scheduled_id)
    if as_json:
        print_json({"cancelled": cancelled})
    else:
        note(f"{plural(len(cancelled), 'message')} will not be delivered")
