"""`planaria transaction`: list transactional ids and their open transactions."""

import time
from typing import TYPE_CHECKING

import msgspec
import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .help_text import Command, Group
from .output import UNKNOWN, duration_text, note, plural, print_json, print_table
from .tables import Listing

if TYPE_CHECKING:
    from ...transport.client.descriptions import TransactionDescription

app = typer.Typer(cls=Group, no_args_is_help=True, help="Show transactional ids and their transactions.")


@app.command("list", cls=Command)
def list_transactions(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List all transactional ids with the state of the last transaction of each.

    --json: {"transactions": [{"transactional_id", "state", "started_ms", "partitions", "groups", ...}]}
    """
    with attached(connect) as client:
        transactions = client.list_transactions()
    if as_json:
        print_json({"transactions": [msgspec.to_builtins(each) for each in transactions]})
        return
    if not transactions:
        note("there are no transactional ids")
        return
    now_ms = time.time_ns() // 1_000_000
    columns = Listing("id", "state", "epoch", "open for", "timeout", "takes part", numbers=["epoch"])
    print_table(columns, [_row(each, now_ms) for each in transactions])


def _row(each: "TransactionDescription", now_ms: int) -> tuple[str, ...]:
    open_for = UNKNOWN if each.started_ms is None else duration_text(max(0, now_ms - each.started_ms))
    timeout = duration_text(each.timeout_ms)
    return each.transactional_id, each.state, str(each.producer_epoch), open_for, timeout, _participants(each)


def _participants(each: "TransactionDescription") -> str:
    partitions = sum(len(numbers) for numbers in each.partitions.values())
    counts = [(partitions, "partition"), (len(each.groups), "group")]
    return ", ".join(plural(count, noun) for count, noun in counts if count) or UNKNOWN
