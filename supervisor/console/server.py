"""Serves the console over HTTP, with limits that hold against slow and hostile connections.

    connections         MAX_CONNECTIONS; beyond it one without a request is closed, or else the new one
    a request's head    HEAD_TIMEOUT_S, its body BODY_TIMEOUT_S (answers.py) and MAX_BODY_BYTES (guard.py)
    a waiting reader    holds one merged update (feed.py), and the server stops writing to it

The broker notices none of this: the console is one of its clients.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import console_app

MAX_CONNECTIONS = 512
HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 20
MAX_HEAD_BYTES = 32 << 10
STOP_S = 1


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 in which a connection that sends no request is closed, sooner when there are too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit: asyncio.TimerHandle | None = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)
        if len(self.connections) > MAX_CONNECTIONS:
            idle = next((each for each in self.connections if each is not self and _is_idle(each)), self)
            idle.transport.close()

    def handle_events(self) -> None:
        super().handle_events()
        if self._limit is not None and not _is_idle(self):
            self._limit.cancel()
            self._limit = None

    def connection_lost(self, error: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        super().connection_lost(error)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            # For the head of the next request.
            self._limit = self.loop.call_later(KEEP_ALIVE_S + HEAD_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        self._limit = None
        if not self.transport.is_closing():
            self.transport.close()


def _is_idle(connection: Any) -> bool:
    """Return True if no request of the connection is being answered."""
    return connection.cycle is None or connection.cycle.response_complete


def listen(host: str, port: int, patience_s: float = 0.0) -> socket.socket:
    """Return a listening socket; of a port that is taken, when it is free within this time. Raises OSError."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return _listener(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise
        time.sleep(0.05)


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_up = on_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_up()


def console_server(
    endpoint: str, server_key: str | None, names: list[str], on_up: Callable[[], None]
) -> uvicorn.Server:
    """Return the server of the console of the broker at `endpoint`; `on_up` is called when it serves.

    `run(sockets=[listener])` serves until SIGTERM or SIGINT.
    """
    options: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "none",
        "loop": "asyncio",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": STOP_S,
    }
    return _Server(uvicorn.Config(console_app(endpoint, server_key, names), **options), on_up)
