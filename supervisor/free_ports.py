"""Ports on loopback for programs that start later, and start again. Impure.

A port that is only looked at may be found free by two programs at once, and the port of a machine that is down is free
for all. So a port belongs to the process that asked for it until that process ends: it holds a Unix socket of the port's
name. Such names are Linux's alone and leave no file; elsewhere a port is only looked at.
"""

import random
import socket
import sys
from contextlib import suppress

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the kernel's range for outgoing connections."""


def free_ports(count: int) -> list[int]:
    """Return ports without a listener that `free_ports` returns to no other process while this one runs."""
    draw = random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = draw.choice(PORTS)
        with suppress(OSError):
            _claim(port)
            found.append(port)
    return found


def _claim(port: int) -> None:
    """Hold the port until the process ends. Raise OSError if it is claimed, or has a listener."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform == "linux":
            claim.bind(f"\0planaria-port-{port}")
        with socket.socket() as probe:
            probe.bind((LOOPBACK, port))
    except OSError:
        claim.close()
        raise
    claim.detach()  # the descriptor stays open
