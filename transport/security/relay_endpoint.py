"""The endpoint of the gateway for connections that the TLS door relays: a file in the run directory.

It has the name that the gateway's own socket would have, of which there is none, so the supervisor removes it with the
incarnation. Written by the gateway before it is ready, read by the door.
"""

from pathlib import Path

from ..addresses import Address
from ..endpoints import endpoint_for


def write_relay_endpoint(run_directory: str, gateway: Address, incarnation: int, endpoint: str) -> None:
    _file(run_directory, gateway, incarnation).write_text(endpoint, encoding="ascii")


def read_relay_endpoint(run_directory: str, gateway: Address, incarnation: int) -> str:
    """Return the endpoint. Raises FileNotFoundError if this incarnation has ended."""
    return _file(run_directory, gateway, incarnation).read_text(encoding="ascii")


def _file(run_directory: str, gateway: Address, incarnation: int) -> Path:
    return Path(endpoint_for(run_directory, gateway, incarnation).removeprefix("ipc://"))
