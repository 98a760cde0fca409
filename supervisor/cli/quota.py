"""`planaria quota`: limit the rates, connections and requests in flight of a client, principal or address."""

from typing import Annotated, Any

import msgspec
import typer

from ...transport.protocol.quotas import RATES
from .connection import DEFAULT_ENDPOINT, ConnectOption, JsonOption, attached
from .help_text import Command, Group
from .output import note, print_json, print_table
from .settings import parse_value
from .tables import Listing

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Limit clients: their rates, connections and requests in flight.",
)

FIELDS = (*RATES, "connections", "requests_in_flight")

ClientArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|default|address:IP",
        show_default=False,
        help="Client id or principal, or address:IP; default and address:default for each without its own limits.",
    ),
]


def _rate(option: str, what: str, unit: str = "a second") -> Any:
    return typer.Option(option, metavar="N", show_default=False, help=f"{what} {unit}, or unlimited.")


@app.command("set", cls=Command)
def set_quota(
    client_id: ClientArgument,
    produce_bytes: Annotated[str | None, _rate("--produce-bytes", "Bytes published, such as 1MB,")] = None,
    fetch_bytes: Annotated[str | None, _rate("--fetch-bytes", "Bytes fetched, such as 1MB,")] = None,
    produce_requests: Annotated[str | None, _rate("--produce-requests", "Requests to publish")] = None,
    fetch_requests: Annotated[str | None, _rate("--fetch-requests", "Requests to fetch")] = None,
    connections: Annotated[str | None, _rate("--connections", "Connections", "at a time")] = None,
    requests_in_flight: Annotated[
        str | None, _rate("--requests-in-flight", "Unanswered requests", "at a time")
    ] = None,
    as_json: JsonOption = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Set limits of one client. They take effect at once and survive restarts; limits not given keep their values.

    --json: {"client_id", "quota": {"produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests",
    "connections", "requests_in_flight"}}; null is unlimited
    """
    rates_given = (produce_bytes, fetch_bytes, produce_requests, fetch_requests)
    given = dict(zip(FIELDS, (*rates_given, connections, requests_in_flight), strict=True))
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
    """List the limits that are set: bytes and requests a second, connections and requests at a time.

    --json: {"quotas": {client_id: {"produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests",
    "connections", "requests_in_flight"}}}; null is unlimited
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
