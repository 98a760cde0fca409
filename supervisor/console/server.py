"""Serves the console over HTTP, with limits that hold against slow and hostile connections.

    connections         MAX_CONNECTIONS; beyond it one that awaits a request is closed
    work                LOOP_SHARE of a processor (pace.py) for all that connections make the process do; beyond it
                        newcomers, requests and parts of streams wait for their turns, and are not read meanwhile
    a request's head    HEAD_TIMEOUT_S, its body BODY_TIMEOUT_S (answers.py) and MAX_BODY_BYTES (guard.py)
    a waiting reader    holds one merged update (feed.py), and the server stops writing to it

The broker notices none of this: the console is one of its clients, and a process that gives way to the broker's.
"""

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import console_app
from .pace import LOOP_BURST_S, LOOP_SHARE, Calls, Pace, PacedStreams, flow_of, flow_of_address

MAX_CONNECTIONS = 512
HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 20
MAX_HEAD_BYTES = 32 << 10
STOP_S = 1
ACCEPTS_PER_TURN = 8
BACKLOG = 128
RECEIVE_BYTES = 64 << 10
"""Buffer of a connection in the system, so one that waits for its turn has sent no more than this."""
NEWCOMERS = "newcomers"
"""The flow of the listening sockets."""
NICENESS = 10
"""That of the process beside the broker's: pages may wait, records may not."""
AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lower the priority of this process.

    A kernel with autogroups (sched(7)) compares the processes of one session only, and divides the processors among
    sessions: the console beside a broker has a session of its own, whose priority is lowered as well.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid() and AUTOGROUP.exists():
        with suppress(OSError):  # where the system's files are not to be changed
            AUTOGROUP.write_text(str(NICENESS))


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 in which each request waits for its turn, and a connection that sends none is closed, sooner when there
    are too many."""

    def __init__(self, pace: Pace, idle: "dict[BoundedProtocol, None]", **arguments: Any) -> None:
        """`idle`: the connections of which no request is being answered, the one that has been so for longest first."""
        super().__init__(**arguments)
        self._pace, self._idle = pace, idle
        self._limit: asyncio.TimerHandle | None = None
        self._is_waiting = self._has_turn = False
        self.flow_name = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow_name = flow_of_address(self.client[0] if self.client else "")
        self._await_request(HEAD_TIMEOUT_S)
        if len(self.connections) > MAX_CONNECTIONS:
            self._displace()

    def _displace(self) -> None:
        """Close the oldest idle connection of the flow that has most connections; if it has none, of any."""
        crowds = Counter(each.flow_name for each in self.connections if isinstance(each, BoundedProtocol))
        [(crowd, _)] = crowds.most_common(1)
        oldest = next((each for each in self._idle if each.flow_name == crowd), next(iter(self._idle)))
        oldest.transport.close()

    def handle_events(self) -> None:
        if not self._has_turn and not self._pace.is_free(self.flow_name):
            self.transport.pause_reading()
            if not self._is_waiting:
                self._is_waiting = True
                self._pace.wait(self.flow_name, self._go_on)
            return
        super().handle_events()
        if not _is_idle(self):
            self._end_wait_for_request()

    def _go_on(self) -> None:
        self._is_waiting = False
        if self.transport.is_closing():
            return
        if not self.flow.read_paused:
            self.transport.resume_reading()
        self._has_turn = True
        try:
            self.handle_events()
        finally:
            self._has_turn = False

    def connection_lost(self, error: Exception | None) -> None:
        self._end_wait_for_request()
        super().connection_lost(error)

    def on_response_complete(self) -> None:
        self.flow_name = flow_of(dict(self.scope))
        if not self.transport.is_closing():
            self._await_request(KEEP_ALIVE_S + HEAD_TIMEOUT_S)
        super().on_response_complete()

    def _await_request(self, timeout_s: float) -> None:
        self._end_wait_for_request()
        self._idle[self] = None
        self._limit = self.loop.call_later(timeout_s, self._give_up)

    def _end_wait_for_request(self) -> None:
        self._idle.pop(self, None)
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

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
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette, options: dict[str, Any], on_up: Callable[[], None]) -> None:
        super().__init__(uvicorn.Config(PacedStreams(app, lambda: self._pace), **options))
        self._app = app
        self._on_up = on_up
        self._opening: set[asyncio.Task[Any]] = set()
        self._idle: dict[BoundedProtocol, None] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pace = self._app.state.pace = Pace(LOOP_SHARE, LOOP_BURST_S, time.thread_time)
        self._app.state.calls = Calls()
        # It accepts connections by itself: the server's own way takes all that have arrived.
        await super().startup([])
        assert sockets is not None
        for listener in sockets:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._on_newcomers, listener)
        if self.started:
            self._on_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            self._loop.remove_reader(listener)
        await super().shutdown(sockets)

    def _on_newcomers(self, listener: socket.socket) -> None:
        if self._pace.is_free(NEWCOMERS):
            self._accept(listener)
        else:
            self._loop.remove_reader(listener)
            self._pace.wait(NEWCOMERS, lambda: self._accept_again(listener))

    def _accept_again(self, listener: socket.socket) -> None:
        if not self.should_exit and listener.fileno() >= 0:
            self._loop.add_reader(listener, self._on_newcomers, listener)
            self._accept(listener)

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

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(
            self._pace,
            self._idle,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
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
    return _Server(console_app(endpoint, server_key, names), options, on_up)
