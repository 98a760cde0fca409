"""`planaria delayed`: which messages are held back, and calling them off."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .output import note, plural, print_json, print_table, table
from .times import utc_text

if TYPE_CHECKING:
    from ...transport.protocol.delayed import ScheduledMessage

app = typer.Typer(no_args_is_help=True, help="List and cancel messages that are to be delivered later.")


@app.command("list")
def list_delayed(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="[TOPIC]", show_default=False, help="Only those for this topic."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 100,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Show what is held back, and since when what is due could not be delivered.

    [dim]--json:[/dim] {"messages": [{"scheduled_id", "topic", "partition", "key_text", "deliver_at_ms", "reason", ...}]}
    """
    with attached(connect) as client:
        messages = client.list_scheduled(topic, limit)
    if as_json:
        print_json({"messages": [msgspec.to_builtins(message) for message in messages]})
        return
    if not messages:
        note("no message is held back")
        return
    columns = table("id", "topic", "key", "due", "bytes", "reason", numbers=["bytes"])
    print_table(columns, [_row(message) for message in messages])
    if len(messages) == limit:
        note(f"the first {limit}; --limit shows more")


def _row(message: "ScheduledMessage") -> tuple[str, ...]:
    where = message.topic if message.partition is None else f"{message.topic}/{message.partition}"
    key = message.key_text if message.key is None or message.key_text is not None else repr(message.key)
    due = utc_text(message.deliver_at_ms)
    return message.scheduled_id, where, key or "-", due, str(message.size_bytes), message.reason or "-"


@app.command("cancel")
def cancel_delayed(
    scheduled_ids: Annotated[list[str], typer.Argument(metavar="ID...", show_default=False)],
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Call messages off by their ids; the first that is not held back any more ends it with an error.

    [dim]--json:[/dim] {"cancelled": [id]}
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
