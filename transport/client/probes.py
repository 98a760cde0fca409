"""Probes of an endpoint, each in a thread of its own because it may take long: the addresses of its host, its greeting.

The network thread must continue meanwhile: requests have deadlines. A probe is never cancelled, and the machine requests
one of a kind at a time. `getaddrinfo` may block for half a minute while a name server does not answer. Called by the
network.

A broker's greeting (ZMTP) names its mechanism:

    offset   0         1 to 8    9      10       11       12 to 31                    32 to 63
    bytes    ff        zeros     7f     major    minor    mechanism, padded by zeros  as-server, filler

A peer sends the whole greeting as soon as it has the first 11 bytes of the other's, and compares the mechanisms when it
has all 64: one who sends 11 and waits receives the greeting of a peer of any mechanism.
"""

import socket
import threading
from collections.abc import Callable

from ..calls.events import GreetingRead, Resolved
from ..endpoints import host_and_port, tcp_endpoint
from ..sockets import CONNECT_TIMEOUT_MS, HANDSHAKE_MS

GREETING_BYTES = 64
_BEGIN = b"\xff" + bytes(8) + b"\x7f\x03"
_MECHANISM = slice(12, 32)


def resolve(endpoint: str, report: Callable[[Resolved], None]) -> None:
    """Call `report`, from another thread, with the addresses of the endpoint's host."""
    _in_thread("planaria-resolver", lambda: report(_lookup(endpoint)))


def read_greeting(endpoint: str, report: Callable[[GreetingRead], None]) -> None:
    """Call `report`, from another thread, with the mechanism of the broker at a `tcp` endpoint."""
    _in_thread("planaria-greeting", lambda: report(GreetingRead(endpoint, _mechanism(endpoint))))


def _in_thread(name: str, probe: Callable[[], None]) -> None:
    threading.Thread(target=probe, name=name, daemon=True).start()


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


def _mechanism(endpoint: str) -> str:
    """Return the mechanism's name; empty if no greeting comes."""
    found = host_and_port(endpoint)
    if found is None:  # the relay of a TLS connection, which takes one connection
        return ""
    received = b""
    try:
        with socket.create_connection(found, CONNECT_TIMEOUT_MS / 1_000) as connection:
            connection.settimeout(HANDSHAKE_MS / 1_000)
            connection.sendall(_BEGIN)
            while len(received) < GREETING_BYTES:
                more = connection.recv(GREETING_BYTES - len(received))
                if not more:
                    return ""
                received += more
    except OSError:
        return ""
    if received[0] != _BEGIN[0] or received[9] != _BEGIN[9]:  # another protocol
        return ""
    return received[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
