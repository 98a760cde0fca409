"""Programs that misuse the handshakes of an endpoint: `python handshake_abusers.py NAME PORT SECONDS CONNECTIONS`."""

import os
import random
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"
HELLOS = (
    b"",
    GREETING[:10],
    GREETING + b"NULL".ljust(20, b"\0") + bytes(32),
    GREETING + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x04\xc8\x05HELLO" + os.urandom(194),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(505),
    os.urandom(700),
)


def half_open(port: int, until: float, connections: int) -> None:
    """Keep connections open that never go on, and replace those that are closed."""
    with selectors.DefaultSelector() as selector:
        while time.monotonic() < until:
            for _ in range(min(200, connections - len(selector.get_map()))):
                with suppress(OSError):
                    made = socket.create_connection(("127.0.0.1", port), 1.0)
                    made.sendall(random.choice(HELLOS)[: random.randrange(80)])
                    selector.register(made, selectors.EVENT_READ)
            for key, _ in selector.select(0.01):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):
                    if key.fileobj.recv(4_096):
                        continue
                selector.unregister(key.fileobj)
                key.fileobj.close()


def fuzzed(port: int, until: float, connections: int) -> None:
    """Make connections as fast as they are taken, each with a few bytes of some handshake."""
    chance = random.Random(1)
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as made:
            hello = bytearray(chance.choice(HELLOS))
            for _ in range(chance.randrange(4)):
                if hello:
                    hello[chance.randrange(len(hello))] ^= chance.randrange(1, 256)
            made.sendall(hello[: chance.randrange(len(hello) + 1)])
            if chance.random() < 0.3:
                made.settimeout(0.01)
                made.recv(100)


ABUSERS: dict[str, Callable[[int, float, int], None]] = {"half_open": half_open, "fuzzed": fuzzed}

if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    name, to_port, seconds, count = sys.argv[1:]
    ABUSERS[name](int(to_port), time.monotonic() + float(seconds), int(count))
