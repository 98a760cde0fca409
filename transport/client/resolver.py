"""Looks up the host of the public endpoint, each time in a thread of its own.

`getaddrinfo` may block for half a minute while a name server does not answer, and the network thread must continue:
requests have deadlines. A lookup is never cancelled. The machine requests one at a time. Called by the network.
"""

import socket
import threading
from collections.abc import Callable

from ..calls.events import Resolved
from ..endpoints import host_and_port, tcp_endpoint


def resolve(endpoint: str, tell: Callable[[Resolved], None]) -> None:
    """Call `tell`, from another thread, with the addresses of the endpoint's host."""
    threading.Thread(target=lambda: tell(_lookup(endpoint)), name="planaria-resolver", daemon=True).start()


def _lookup(endpoint: str) -> Resolved:
    given = host_and_port(endpoint)
    assert given is not None, endpoint
    host, port = given
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A dict keeps the order, which is the resolver's order of preference.
        endpoints = {tcp_endpoint(_spelled(*address), port): None for *_, address in found}
    except (OSError, UnicodeError) as error:
        fault = f"{host!r} cannot be looked up: {getattr(error, 'strerror', None) or error}"
        return Resolved(fault=fault, endpoint=endpoint)
    return Resolved(tuple(endpoints), "" if endpoints else f"{host!r} has no address", endpoint)


def _spelled(address: str, _port: int, _flow: int = 0, scope: int = 0) -> str:
    """Return the address; a link-local one with its interface."""
    return f"{address}%{socket.if_indextoname(scope)}" if scope else address
