"""Reads the mechanism in a broker's ZMTP greeting, each time on a connection and in a thread of its own.

    offset   0         1 to 8    9      10       11       12 to 31                    32 to 63
    bytes    ff        zeros     7f     major    minor    mechanism, padded by zeros  as-server, filler

A peer sends the whole greeting as soon as it has the first 11 bytes of the other's, and compares the mechanisms when it
has all 64: whoever sends 11 and waits receives the greeting of a peer of any mechanism. Called by the network.
"""

import socket
import threading
from collections.abc import Callable

from ..calls.events import GreetingRead
from ..endpoints import host_and_port
from ..sockets import CONNECT_TIMEOUT_MS, HANDSHAKE_MS

GREETING_BYTES = 64
_BEGIN = b"\xff" + bytes(8) + b"\x7f\x03"
_MECHANISM = slice(12, 32)


def read_greeting(endpoint: str, tell: Callable[[GreetingRead], None]) -> None:
    """Call `tell`, from another thread, with the mechanism of the broker at a `tcp` endpoint."""

    def read() -> None:
        tell(GreetingRead(endpoint, _mechanism(endpoint)))

    threading.Thread(target=read, name="planaria-greeting", daemon=True).start()


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
