"""Serves the console over HTTP, with limits that hold against slow and hostile connections.

    connections         MAX_CONNECTIONS; beyond it one without a request is closed, or else the new one
    work                WORK_PER_SECOND new connections and pieces of requests; beyond it none is accepted, and a
                        connection that has sent a piece is not read, until the rate is kept again
    a request's head    HEAD_TIMEOUT_S, its body BODY_TIMEOUT_S (answers.py) and MAX_BODY_BYTES (guard.py)
    a waiting reader    holds one merged update (feed.py), and the server stops writing to it

The broker notices none of this: the console is one of its clients, and a process that gives way to the broker's.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...transport.token_bucket import TokenBucket
from .app import console_app

MAX_CONNECTIONS = 512
HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 20
MAX_HEAD_BYTES = 32 << 10
STOP_S = 1
WORK_PER_SECOND = 100
REST_S = 0.02
"""The least time for which a connection is not read, or none accepted. All that arrives meanwhile is one piece."""
ACCEPTS_PER_TURN = 16
BACKLOG = 128
NICENESS = 10
"""That of the process beside the broker's: pages may wait, records may not."""


def give_way() -> None:
    """Lower the priority of this process."""
    os.nice(NICENESS)


class Work:
    """Counts the work that connections make, whatever they send."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._bucket = TokenBucket(WORK_PER_SECOND, self._now())

    def charge(self) -> float:
        """Charge a piece of work; return the time in s for which its cause has to rest, 0 while the rate is kept."""
        self._bucket.charge(1)
        wait_ms = self._bucket.wait_ms(self._now())
        return max(REST_S, wait_ms / 1_000) if wait_ms else 0.0

    def _now(self) -> int:
        return int(self._clock_s() * 1_000)


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 in which a connection that sends no request is closed, sooner when there are too many."""

    def __init__(self, work: Work, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._work = work

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit: asyncio.TimerHandle | None = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)
        if len(self.connections) > MAX_CONNECTIONS:
            idle = next((each for each in self.connections if each is not self and _is_idle(each)), self)
            idle.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        rest_s = self._work.charge()
        if rest_s and not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_later(rest_s, self._read_on)

    def _read_on(self) -> None:
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

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
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_up = on_up
        self._opening: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # It accepts connections by itself: the server's own way takes all that have arrived.
        await super().startup([])
        assert sockets is not None
        self._loop = asyncio.get_running_loop()
        self._work = Work(self._loop.time)
        for listener in sockets:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
        if self.started:
            self._on_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            self._loop.remove_reader(listener)
        await super().shutdown(sockets)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _address = listener.accept()
            except OSError:
                # None is left, it is gone already, or there are no descriptors for it.
                return
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            rest_s = self._work.charge()
            if rest_s:
                self._loop.remove_reader(listener)
                self._loop.call_later(rest_s, self._accept_again, listener)
                return

    def _accept_again(self, listener: socket.socket) -> None:
        if not self.should_exit and listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(
            self._work, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def console_server(
    endpoint: str, server_key: str | None, names: list[str], on_up: Callable[[], None]
) -> uvicorn.Server:
    """Return the server of the console of the broker at `endpoint`; `on_up` is called when it serves.

    `run(sockets=[listener])` serves until SIGTERM or SIGINT.
    """
    options: dict[str, Any] = {
        "ws": "none",
        "loop": "asyncio",
        "log_level": "error",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": STOP_S,
    }
    return _Server(uvicorn.Config(console_app(endpoint, server_key, names), **options), on_up)
