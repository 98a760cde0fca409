"""How a command reaches the broker: the option --connect, and a client that has found somebody at the other end.

Called by every command that attaches. A command waits CONNECT_TIMEOUT_S at most for a broker that is not there; once it
has been greeted, the client's own patience holds.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ...transport.endpoints import DEFAULT_ENDPOINT
from ...transport.protocol.errors import ErrorBody, ProtocolError
from ...transport.protocol.message import PROTOCOL_VERSION
from ...transport.protocol.session import Hello, HelloReply
from .failures import CommandFailed

if TYPE_CHECKING:
    import zmq

    from ...transport.client.client import Client

__all__ = [
    "CONNECT_VARIABLE",
    "DEFAULT_ENDPOINT",
    "ConnectOption",
    "JsonOption",
    "attached",
    "checked_endpoint",
]

CLIENT_ID = "planaria"
CONNECT_VARIABLE = "PLANARIA_CONNECT"
CONNECT_TIMEOUT_S = 2.5
GREETING_INTERVAL_S = 0.5
"""A greeting is repeated so often: the gateway that took the last one may have died with it."""
_ENDPOINT = re.compile(r"tcp://(?:\[[^/\]]+\]|[^/:\s]+):[0-9]{1,5}|ipc://.+")


def checked_endpoint(endpoint: str) -> str:
    """An endpoint one can connect to. Raises BadParameter."""
    if not _ENDPOINT.fullmatch(endpoint):
        raise typer.BadParameter(f"{endpoint!r} is not like {DEFAULT_ENDPOINT}")
    return endpoint


ConnectOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--connect",
        metavar="URL",
        envvar=CONNECT_VARIABLE,
        callback=checked_endpoint,
        help="Endpoint of the broker.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def attached(endpoint: str) -> Iterator["Client"]:
    """A client of the broker at `endpoint`. Raises CommandFailed when nobody answers there."""
    # The client brings ZeroMQ and a thread along; --help needs neither.
    from ...transport.client.client import Client  # noqa: PLC0415

    greet(endpoint)
    with Client(endpoint, client_id=CLIENT_ID) as client:
        yield client


def greet(endpoint: str) -> None:
    """Make sure that a broker of our version is there. Raises CommandFailed, ProtocolError."""
    import zmq  # noqa: PLC0415

    from ...transport import sockets  # noqa: PLC0415

    with sockets.new_context() as context:
        try:
            socket = sockets.unnamed_link(context, endpoint)
        except zmq.ZMQError as error:
            raise CommandFailed(f"cannot connect to {endpoint}: {error.strerror}") from error
        with socket:
            reply = _greeted(socket)
    if isinstance(reply, ErrorBody):
        raise ProtocolError.from_body(reply)
    if reply is None:
        raise CommandFailed(f'no broker at {endpoint}: is "planaria serve" running?')


def _greeted(socket: "zmq.Socket[bytes]") -> "HelloReply | ErrorBody | None":
    from ...transport.codec import decode_reply, encode_header  # noqa: PLC0415

    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while (left_s := deadline - time.monotonic()) > 0:
        socket.send(encode_header(Hello(id=0, version=PROTOCOL_VERSION, client_id=CLIENT_ID)))
        if socket.poll(int(min(left_s, GREETING_INTERVAL_S) * 1000) + 1):
            reply: HelloReply | ErrorBody = decode_reply(socket.recv_multipart()[0], HelloReply)
            return reply
    return None
