"""Endpoints of addresses. Pure naming: the run directory and the incarnation make every endpoint unique forever.

A second bind of an `ipc://` path succeeds silently and steals the new connections, so no two incarnations may ever share
a path: `partition/ORDERS/0` in its third incarnation is `RUN/partition-ORDERS-0.3`. The kernel allows 107 bytes for
the path of a socket (macOS: 103); a longer name is replaced by a digest of it.
"""

import hashlib
import ipaddress
import re
import sys
from collections.abc import Iterable
from typing import TypeAlias

from .addresses import Address

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"
"""The endpoint of a broker and of its clients, unless another is configured."""

Endpoints: TypeAlias = str | Iterable[str]
"""Endpoints of one broker's nodes: one, several in one string (`tcp://a:5570,b:5570`), or a list."""

MAX_PATH_BYTES = 103 if sys.platform == "darwin" else 107


MAX_PORT = 65_535
CONNECTED_IN_WORDS = "of the form tcp://HOST:PORT or tls://HOST:PORT, with an IPv6 address in brackets"
_CONNECTED = re.compile(
    r"(tcp|tls)://(?P<host>\[[^\[\]/\s]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?):(?P<port>[0-9]{1,5})"
)


class PathTooLong(ValueError):
    """The run directory leaves no room for a socket's name."""


def endpoint_for(run_directory: str, address: Address, incarnation: int) -> str:
    """Return the `ipc://` endpoint of one incarnation of an actor."""
    return _ipc(run_directory, f"{address.replace('/', '-')}.{incarnation}")


def control_endpoint(run_directory: str) -> str:
    """Return the endpoint of the supervisor."""
    return _ipc(run_directory, "supervisor")


def peer_id(address: Address, incarnation: int) -> bytes:
    """Return the ZeroMQ routing id of one incarnation of an actor."""
    return f"{address}.{incarnation}".encode()


def is_tls(endpoint: object) -> bool:
    """Return True for an endpoint of a TLS door."""
    return isinstance(endpoint, str) and endpoint.startswith("tls://")


def settled(endpoints: Endpoints) -> Endpoints:
    """Return endpoints that can be read more than once."""
    if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
        return endpoints
    return tuple(endpoints)


def are_tls(endpoints: Endpoints) -> bool:
    """Return True if the first of some endpoints, and so all of them, are of TLS doors."""
    if isinstance(endpoints, str):
        return is_tls(endpoints)
    return isinstance(endpoints, tuple) and bool(endpoints) and is_tls(endpoints[0])


def host_and_port(endpoint: object) -> tuple[str, int] | None:
    """Return host and port of an endpoint to connect to; None if it is not of the form tcp://HOST:PORT or
    tls://HOST:PORT.

    The host is a name, an IPv4 address, or an IPv6 address in brackets.
    """
    found = _CONNECTED.fullmatch(endpoint) if isinstance(endpoint, str) else None
    if found is None or not 1 <= int(found["port"]) <= MAX_PORT:
        return None
    host, port = found["host"], int(found["port"])
    if not host.startswith("["):
        return host, port
    return (host[1:-1], port) if _is_ipv6(host[1:-1]) else None


def listed_endpoints(given: object) -> tuple[str, ...]:
    """Return the endpoints to connect to, each once. Raises ValueError, which names the malformed one."""
    if isinstance(given, str):
        listed: list[object] = [part if "://" in part else f"tcp://{part}" for part in given.split(",")]
        listed[0] = given.partition(",")[0]
    elif isinstance(given, Iterable):
        listed = list(given)
    else:
        listed = [given]
    for endpoint in listed:
        if host_and_port(endpoint) is None:
            raise ValueError(f"{endpoint!r} is not {CONNECTED_IN_WORDS}")
    if not listed:
        raise ValueError("there is none")
    if len({is_tls(endpoint) for endpoint in listed}) > 1:
        raise ValueError("tcp:// and tls:// endpoints cannot be used together")
    return tuple(dict.fromkeys(str(endpoint) for endpoint in listed))


def is_loopback(endpoint: str) -> bool:
    """Return True if only this machine reaches an endpoint that a broker listens at."""
    host = endpoint.partition("://")[2].rpartition(":")[0].strip("[]").partition("%")[0]
    if endpoint.startswith("ipc://") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def host_of(text: str) -> str:
    """Return the address of a client as the system gives it, an IPv4 one as such, without the interface."""
    found = ipaddress.ip_address(text.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def tcp_endpoint(address: str, port: int) -> str:
    """Return the endpoint of a numeric address, formatted like ZeroMQ's monitor does."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def numeric_endpoint(endpoint: str) -> str | None:
    """Return the endpoint in that format if its host is an address; None if the host is a name that has to be
    looked up, and for TLS."""
    found = host_and_port(endpoint)
    if found is None:
        return endpoint  # ipc
    if is_tls(endpoint):
        return None
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return tcp_endpoint(str(address) if mapped is None else f"::ffff:{mapped}", found[1])


def _ipc(run_directory: str, name: str) -> str:
    path = f"{run_directory}/{name}"
    if len(path.encode()) > MAX_PATH_BYTES:
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        path = f"{run_directory}/{digest}"
    if len(path.encode()) > MAX_PATH_BYTES:
        raise PathTooLong(
            f"run directory {run_directory!r} is too long for sockets ({MAX_PATH_BYTES} bytes a path)"
        )
    return f"ipc://{path}"
