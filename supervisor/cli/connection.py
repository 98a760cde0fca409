"""Connection of a command to the broker: the option --connect, and a client whose broker has answered.

Called by every command that attaches. A command waits at most CONNECT_TIMEOUT_S for the broker's first answer; after
that, the client's own timeouts apply.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ...transport.client.options import REQUEST_TIMEOUT_MS
from ...transport.endpoints import (
    DEFAULT_ENDPOINT,
    are_tls,
    listed_endpoints,
    numeric_endpoint,
)
from .failures import CommandFailed

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ..admin_link import AdminLink

__all__ = [
    "CONNECT_VARIABLE",
    "DEFAULT_ENDPOINT",
    "ConnectOption",
    "JsonOption",
    "attached",
    "checked_endpoints",
    "operating",
]

CLIENT_ID = "planaria"
CONNECT_VARIABLE = "PLANARIA_CONNECT"
CONNECT_VARIABLES = [CONNECT_VARIABLE, "PLANARIA_ENDPOINT"]
"""The second says where `serve` listens, so a terminal in which it is set needs no other."""
CONNECT_TIMEOUT_S = 2.5


def credentials(endpoints: str) -> dict[str, Any]:
    """Return the credentials in the environment and in the configuration, as options of a client."""
    from ...transport.client.configuration import options_for  # noqa: PLC0415

    return options_for(endpoints, os.environ)


def pinned_server_key(endpoints: str) -> str | None:
    """Return the broker's public key by which this command connects."""
    from ...transport.security.client_credentials import credentials_from  # noqa: PLC0415

    keys = credentials_from(**credentials(endpoints), over_tls=are_tls(endpoints)).keys
    return None if keys is None else keys.server_key


def checked_endpoints(context: typer.Context, parameter: typer.CallbackParam, endpoints: str) -> str:
    """Return the endpoints if all are valid, with this machine for `*`; those of the client's configuration if none are
    given. Raises BadParameter."""
    source = context.get_parameter_source(str(parameter.name))
    if source is not None and source.name == "DEFAULT":
        endpoints = _configured_endpoints() or endpoints
    try:
        return ",".join(listed_endpoints(endpoints.replace("tcp://*:", "tcp://127.0.0.1:")))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _configured_endpoints() -> str | None:
    """Return the endpoints in the file of the client's configuration."""
    from ...transport.client.configuration import from_file  # noqa: PLC0415

    urls = [each.url for each in from_file(os.environ) if each.url is not None]
    return None if not urls else urls[0] if isinstance(urls[0], str) else ",".join(urls[0])


ConnectOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--connect",
        metavar="URL",
        envvar=CONNECT_VARIABLES,
        callback=checked_endpoints,
        help="Endpoint of the broker; of a cluster, those of several nodes: tcp://a:5570,b:5570.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def attached(endpoints: str, request_timeout_ms: int = REQUEST_TIMEOUT_MS) -> Iterator["Client"]:
    """Open a client of the broker at one of the endpoints. Raises CommandFailed when no broker answers there."""
    # Imported late: the client loads ZeroMQ and starts a thread; --help needs neither.
    from ...transport.client.client import Client  # noqa: PLC0415
    from ...transport.client.errors import TimedOut  # noqa: PLC0415

    with Client(
        endpoints, client_id=CLIENT_ID, request_timeout_ms=request_timeout_ms, **credentials(endpoints)
    ) as client:
        try:
            client.wait_for_broker(CONNECT_TIMEOUT_S)
        except TimedOut as error:
            listed = listed_endpoints(endpoints)
            if any(numeric_endpoint(endpoint) is None for endpoint in listed):
                raise CommandFailed(error.message) from error
            raise CommandFailed(
                f'no broker at {" or ".join(listed)}: is "planaria serve" running?'
            ) from error
        yield client


@contextmanager
def operating(endpoints: str, timeout_ms: int | None = None) -> Iterator["AdminLink | Client"]:
    """Open the connection that answers `status`, `kill` and `revive`. Raises CommandFailed.

    On the broker's machine this is the supervisor, independent of its gateway; elsewhere the gateway. Of several
    endpoints, the first that a broker of this machine serves counts. `timeout_ms`: for each request; None: the default.
    """
    from ..admin_link import TIMEOUT_MS, AdminLink  # noqa: PLC0415
    from ..run_directory import is_listening, supervisors_at  # noqa: PLC0415

    controls = [control for each in listed_endpoints(endpoints) for control in supervisors_at(each)]
    if controls:
        with AdminLink(controls[0], lambda: not is_listening(controls[0]), timeout_ms or TIMEOUT_MS) as link:
            yield link
        return
    with attached(endpoints, timeout_ms or REQUEST_TIMEOUT_MS) as client:
        yield client
