"""`planaria quota`: limit the bytes and requests per second that a client may produce and fetch."""

from typing import Annotated, Any

import msgspec
import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .help_text import Command, Group
from .output import note, print_json, print_table
from .settings import parse_value
from .tables import Listing

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Limit the rates at which clients produce and fetch, by client id."
)

FIELDS = ("produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests")

ClientArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLIENT_ID|default",
        show_default=False,
        help="Client id, or default for each client without a quota of its own.",
    ),
]


def _rate(option: str, what: str) -> Any:
    return typer.Option(option, metavar="N", show_default=False, help=f"{what} a second, or unlimited.")


@app.command("set", cls=Command)
def set_quota(
    client_id: ClientArgument,
    produce_bytes: Annotated[str | None, _rate("--produce-bytes", "Bytes published, such as 1MB,")] = None,
    fetch_bytes: Annotated[str | None, _rate("--fetch-bytes", "Bytes fetched, such as 1MB,")] = None,
    produce_requests: Annotated[str | None, _rate("--produce-requests", "Requests that publish,")] = None,
    fetch_requests: Annotated[str | None, _rate("--fetch-requests", "Requests that fetch,")] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Set limits of one client. They take effect at once and survive restarts; limits not given keep their values.

    --json: {"client_id", "quota": {"produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests"}};
    null is unlimited
    """
    given = dict(zip(FIELDS, (produce_bytes, fetch_bytes, produce_requests, fetch_requests), strict=True))
    rates = {field: _parsed(field, text) for field, text in given.items() if text is not None}
    if not rates:
        raise typer.BadParameter("name at least one limit, such as --produce-bytes 1MB")
    with attached(connect) as client:
        client.set_quota(client_id, **rates)
        quota = client.list_quotas()[client_id]
    if as_json:
        print_json({"client_id": client_id, "quota": msgspec.to_builtins(quota)})
    else:
        note(f"{client_id}: " + ", ".join(f"{field} {_text(getattr(quota, field))}" for field in FIELDS))


@app.command("list", cls=Command)
def list_quotas(as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT) -> None:
    """List the limits that are set, in bytes and requests a second.

    --json: {"quotas": {client_id: {"produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests"}}};
    null is unlimited
    """
    with attached(connect) as client:
        quotas = client.list_quotas()
    if as_json:
        print_json({"quotas": msgspec.to_builtins(quotas)})
        return
    if not quotas:
        note("no client has a quota")
        return
    columns = Listing("client", *(field.replace("_", " ") for field in FIELDS))
    rows = [(name, *(_text(getattr(quota, field)) for field in FIELDS)) for name, quota in quotas.items()]
    print_table(columns, rows)


@app.command("remove", cls=Command)
def remove_quota(
    client_id: ClientArgument, as_json: JsonOption = False, connect: ConnectOption = DEFAULT_ENDPOINT
) -> None:
    """Remove the limits of one client. The limits of default apply to it afterwards.

    --json: {"removed": client_id}
    """
    with attached(connect) as client:
        client.remove_quota(client_id)
    if as_json:
        print_json({"removed": client_id})
    else:
        note(f"{client_id} has no quota of its own")


def _parsed(field: str, text: str) -> int:
    option = f"--{field.replace('_', '-')}"
    value = -1 if text.lower() in ("unlimited", "none") else parse_value(field, text, option)
    if not isinstance(value, int) or isinstance(value, bool) or (value < 1 and value != -1):
        raise typer.BadParameter(f"{text!r} is neither a number from 1 up nor unlimited", param_hint=option)
    return value


def _text(rate: int | None) -> str:
    return "unlimited" if rate is None else f"{rate:,}"
