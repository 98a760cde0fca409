"""`planaria console`: serve the pages that show a broker and operate it."""

import sys
from importlib.util import find_spec
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, pinned_server_key
from .failures import CommandFailed
from .output import note

if TYPE_CHECKING:
    from uvicorn import Server

PACKAGES = ("jinja2", "starlette", "uvicorn")
HANDOVER_S = 5.0
DEFAULT_LISTEN = "127.0.0.1:5573"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def console(
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="HOST:PORT", help="Address for browsers; port 0 takes a free one."),
    ] = DEFAULT_LISTEN,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Additional host name by which browsers reach the console. Repeatable.",
        ),
    ] = None,
    insecure_public: Annotated[
        bool,
        typer.Option("--insecure-public", help="Listen at a public address without authentication."),
    ] = False,
    until_stdin_ends: Annotated[
        bool,
        typer.Option(
            "--until-stdin-ends", help="Exit at the end of standard input, which the supervisor keeps open."
        ),
    ] = False,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Serve the console: pages in a browser that show the broker and operate it. Ctrl-C stops it.

    Where the broker has authentication, users sign in with their token or password; set PLANARIA_SERVER_KEY to the
    broker's public key, or PLANARIA_KEY to any key file that has it. Needs: pip install 'planaria[console]'

    Examples:
      planaria console
      planaria console --connect tcp://broker.example:5570 --listen 0.0.0.0:5573 --allow-host console.example
    """
    check_packages()
    from ..console import server  # noqa: PLC0415

    host, port = _address(listen)
    server_key = pinned_server_key(connect)
    if server_key is None and not _is_loopback(host) and not insecure_public:
        raise CommandFailed(
            f"{listen} can be reached from other machines, and the broker has no authentication that this "
            "command knows of: set PLANARIA_SERVER_KEY, or use --insecure-public"
        )
    try:
        # A predecessor that ends at the same time has the port for a moment more.
        listener = server.listen(host, port, HANDOVER_S if until_stdin_ends else 0.0)
    except OSError as error:
        raise CommandFailed(f"cannot listen on {listen}: {error.strerror or error}") from error
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    names = [shown, *LOOPBACK_NAMES, *(allow_host or [])]
    served = server.console_server(
        connect, server_key, names, lambda: note(f"planaria: console of {connect} on {url}")
    )
    if until_stdin_ends:
        Thread(target=_stop_at_end_of_input, args=(served,), daemon=True).start()
    server.give_way()
    served.run(sockets=[listener])


def check_packages() -> None:
    """Raise CommandFailed, with the remedy, if a package that the console needs is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandFailed(
            f"the console needs packages that are not here ({', '.join(missing)}): pip install 'planaria[console]'"
        )


def _stop_at_end_of_input(served: "Server") -> None:
    while sys.stdin.buffer.read(1):
        pass
    served.should_exit = True


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
