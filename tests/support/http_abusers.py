"""Programs that misuse the HTTP endpoint, each a process of its own: `python http_abusers.py NAME HOST:PORT SECONDS`."""

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable

CONNECTIONS = 10_000
HELD = 5_000
"""Connections that a program keeps at once: it has descriptors for no more, on some machines."""
PAGE = b"GET /metrics/detailed HTTP/1.1\r\nHost: localhost\r\n\r\n"


def slow(address: tuple[str, int], until: float) -> None:
    """Open connection after connection, begin a request on each, and never end it."""
    held: list[socket.socket] = []
    opened = 0
    while time.monotonic() < until:
        if opened < CONNECTIONS:
            each = opening(address)
            opened += 1
            held.append(each)
            if len(held) > HELD:
                held.pop(0).close()
        for each in held[-50:]:
            try:
                each.send(b"G")
            except OSError:
                continue
    print(f"{opened} connections", file=sys.stderr)


def scrapes(address: tuple[str, int], until: float) -> None:
    """Ask for the largest page as often as possible on 200 connections, and read none."""
    held = [opening(address) for _ in range(200)]
    while time.monotonic() < until:
        for number, each in enumerate(held):
            try:
                each.send(20 * PAGE)
            except BlockingIOError:
                continue
            except OSError:
                each.close()
                held[number] = opening(address)


def garbage(address: tuple[str, int], until: float) -> None:
    """Send bytes that are no request, as fast as possible, and connect again at once."""
    while time.monotonic() < until:
        each = opening(address)
        try:
            each.send(b"\x16\x03\x01" * 10_000)
        except OSError:
            pass
        each.close()


def publishes(address: tuple[str, int], until: float) -> None:
    """Publish through the bridge on 100 connections, as fast as it takes."""
    body = b'{"records": [{"json": 1}]}'
    request = (
        b"POST /topics/ABUSED/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    selector = selectors.DefaultSelector()
    for _ in range(100):
        each = socket.create_connection(address, 60)
        each.setblocking(False)
        each.send(request)
        selector.register(each, selectors.EVENT_READ)
    while time.monotonic() < until:
        for key, _ in selector.select(0.1):
            each = key.fileobj  # type: ignore[assignment]
            try:
                is_open = bool(each.recv(65_536)) and each.send(request) > 0
            except OSError:
                is_open = False
            if not is_open:
                selector.unregister(each)


def pages(address: tuple[str, int], until: float) -> None:
    """Ask for the first page on 100 connections, as often as it is answered, and read little of it."""
    held = [opening(address) for _ in range(100)]
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while time.monotonic() < until:
        for number, each in enumerate(held):
            try:
                each.send(request)
                each.recv(1_000)
            except BlockingIOError:
                continue
            except OSError:
                each.close()
                held[number] = opening(address)


def opening(address: tuple[str, int]) -> socket.socket:
    """Return a connection that is being made."""
    each = socket.socket()
    each.setblocking(False)
    try:
        each.connect(address)
    except OSError:
        pass
    return each


ABUSERS: dict[str, Callable[[tuple[str, int], float], None]] = {
    each.__name__: each for each in (slow, scrapes, garbage, publishes)
}
OF_THE_CONSOLE: dict[str, Callable[[tuple[str, int], float], None]] = {
    each.__name__: each for each in (slow, garbage, pages)
}

if __name__ == "__main__":
    # Strangers are on other machines: here they shall not take the processors of the broker.
    os.nice(19)
    name, endpoint, seconds = sys.argv[1:]
    host, _, port = endpoint.rpartition(":")
    (ABUSERS | OF_THE_CONSOLE)[name]((host, int(port)), time.monotonic() + float(seconds))
