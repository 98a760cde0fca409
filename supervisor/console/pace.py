"""Gives work its turns (turns.py) on the event loop: requests, newcomers, parts of streams, calls to the broker.

Two budgets, so that one user's long search does not stop the pages of the others:

    of the loop     everything that the event loop does: accepting, reading, refusing, rendering, sending
    of calls        threads that read from the broker, and decode its answers

Used by server.py for connections, by answers.py for calls.
"""

import asyncio
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from threading import Lock
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .turns import Turns

ResultT = TypeVar("ResultT")
LOOP_SHARE = 0.15
"""Share of one processor."""
LOOP_BURST_S = 0.25
"""Processor time that may be used at once after a quiet while."""
CALLS_SHARE = 0.25
CALLS_BURST_S = 1.0
MAX_CALLS = 8
"""Calls at once: the time of a call is known at its end."""
REST_S = 0.01
"""The least time for which nothing has a turn once the share is used up."""
PREFIX_OF_A_SITE = 64
"""Bits of an IPv6 address that one client does not choose for itself."""


class Pace:
    """Safe to use from the event loop only."""

    def __init__(self, share: float, burst_s: float, used_s: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._turns: Turns[Callable[[], None]] = Turns(share, burst_s, time.monotonic, used_s)
        self._is_scheduled = False

    def is_free(self, flow: str) -> bool:
        """Return True if work of this flow may be done now. If not, `wait`."""
        return self._turns.is_free(flow)

    def wait(self, flow: str, go: Callable[[], None]) -> None:
        """Call `go` when it has its turn."""
        self._turns.wait(flow, go)
        self._schedule()

    async def turn(self, flow: str) -> None:
        """Return when the caller may go on."""
        if self.is_free(flow):
            return
        come = self._loop.create_future()
        self.wait(flow, lambda: None if come.done() else come.set_result(None))
        await come

    def _schedule(self) -> None:
        if self._is_scheduled or not self._turns.has_waiting:
            return
        self._is_scheduled = True
        wait_s = self._turns.wait_s()
        if wait_s:
            self._loop.call_later(max(REST_S, wait_s), self._go_on)
        else:
            # Behind the steps that the last turn has begun, so that its flow is charged for them.
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled = False
        go = self._turns.next()
        try:
            if go is not None:
                go()
        finally:
            self._schedule()


class Calls:
    """Runs calls to the broker in threads, each in its turn."""

    def __init__(self) -> None:
        self._used_s = 0.0
        self._lock = Lock()
        self._pace = Pace(CALLS_SHARE, CALLS_BURST_S, lambda: self._used_s)
        self._limiter = CapacityLimiter(MAX_CALLS)

    async def run(self, flow: str, call: Callable[[], ResultT]) -> ResultT:
        await self._pace.turn(flow)
        return await to_thread.run_sync(self._timed, call, abandon_on_cancel=True, limiter=self._limiter)

    def _timed(self, call: Callable[[], ResultT]) -> ResultT:
        began_s = time.thread_time()
        try:
            return call()
        finally:
            with self._lock:
                self._used_s += time.thread_time() - began_s


class PacedStreams:
    """The outermost part of the application: each part of a stream has a turn, and the parts that come meanwhile are one
    (feed.py)."""

    def __init__(self, app: ASGIApp, pace: Callable[[], Pace]) -> None:
        self._app, self._pace = app, pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def paced(message: Message) -> None:
            if message.get("more_body"):
                await self._pace().turn(flow_of(scope))
            await send(message)

        await self._app(scope, receive, paced)


def count_for_user(request: Request, user: str) -> None:
    """Let a request, and the later ones of its connection, count as those of a signed-in user."""
    request.state.flow = f"user {user}"


def flow_of(scope: Scope) -> str:
    marked: str | None = scope.get("state", {}).get("flow")
    client = scope.get("client")
    return marked or flow_of_address(client[0] if client else "")


def flow_of_address(host: str) -> str:
    """Return the flow of a client who has not signed in."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, PREFIX_OF_A_SITE), strict=False)) if address.version == 6 else host
