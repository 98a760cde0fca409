"""The event loop of the program, asyncio's or trio's, and the way from the network thread into it.

A hosted subscriber has one of its own (`actors/subscriber/tasks.py`): its actor's loop.

The network thread appends its messages for the loop to a queue and wakes the loop once for each of its turns, never for
each message. Nothing else crosses between the two. No ZeroMQ socket is ever used on the loop.
"""

import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, cast

from ..client.errors import TimedOut
from ..machine import Effect, Event, SetTimer, TimerFired
from ..protocol.errors import PlanariaError

ResultT = TypeVar("ResultT")
Work = Callable[[], Coroutine[Any, Any, None]]
LOOK_MS = 1_000
"""Interval of the looks at a loop, whether it has ended."""

OTHER_LOOP = (
    "the client belongs to another event loop: use it in tasks of that loop, or connect again in this one"
)


class Signal(Protocol):
    """An event of the loop: the part that asyncio.Event and trio.Event have in common."""

    def set(self) -> object: ...

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class EventLoop(Protocol):
    """A running event loop. Waiting raises PlanariaError in a task of another loop, where it would never end."""

    def check(self) -> None:
        """Raise PlanariaError unless the caller runs on this loop."""

    def has_ended(self) -> bool:
        """Return True if it runs no task again."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call from another thread. Does nothing once the loop has ended."""

    def signal(self) -> Signal: ...

    def shield(self) -> AbstractContextManager[object]:
        """Protect the end of a block from a cancellation that is already in effect."""

    async def wait(self, signal: Signal, timeout_s: float | None) -> bool:
        """Return True if the signal was set within `timeout_s` seconds (None: no limit)."""

    async def within(self, work: Work, limit_s: float) -> bool:
        """Await `work`; cancel it after `limit_s` seconds, and return False."""

    async def in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        """Run a blocking call in a worker thread. A cancellation abandons it."""


class AsyncioLoop:
    def __init__(self) -> None:
        # Loaded already if its loop runs; a subscriber's process does without.
        import asyncio  # noqa: PLC0415

        self._asyncio = asyncio
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        if self._asyncio._get_running_loop() is not self._loop:
            raise PlanariaError(OTHER_LOOP)

    def has_ended(self) -> bool:
        return self._loop.is_closed()

    def call_soon(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # closed
            return

    def signal(self) -> Signal:
        self.check()
        return self._asyncio.Event()

    def shield(self) -> AbstractContextManager[object]:
        return nullcontext()  # asyncio delivers a cancellation once

    async def wait(self, signal: Signal, timeout_s: float | None) -> bool:
        self.check()
        if timeout_s is None:
            await signal.wait()
            return True
        try:
            async with self._asyncio.timeout(timeout_s):
                await signal.wait()
        except TimeoutError:
            return False
        return True

    async def within(self, work: Work, limit_s: float) -> bool:
        self.check()
        try:
            async with self._asyncio.timeout(limit_s):
                await work()
        except TimeoutError as error:
            if isinstance(error, TimedOut):  # of the work itself
                raise
            return False
        return True

    async def in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        self.check()
        return await self._asyncio.to_thread(call)


class TrioLoop:
    def __init__(self) -> None:
        # Loaded already, since it runs; asyncio programs do not need it.
        self._trio: Any = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()

    def check(self) -> None:
        lowlevel = self._trio.lowlevel
        if not lowlevel.in_trio_run() or lowlevel.current_trio_token() is not self._token:
            raise PlanariaError(OTHER_LOOP)

    def has_ended(self) -> bool:
        try:
            self._token.run_sync_soon(lambda: None)
        except self._trio.RunFinishedError:
            return True
        return False

    def call_soon(self, callback: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            return

    def signal(self) -> Signal:
        self.check()
        return cast("Signal", self._trio.Event())

    def shield(self) -> AbstractContextManager[object]:
        return cast("AbstractContextManager[object]", self._trio.CancelScope(shield=True))

    async def wait(self, signal: Signal, timeout_s: float | None) -> bool:
        self.check()
        with self._trio.move_on_after(float("inf") if timeout_s is None else max(0.0, timeout_s)):
            await signal.wait()
        return signal.is_set()

    async def within(self, work: Work, limit_s: float) -> bool:
        self.check()
        scope: Any = self._trio.move_on_after(max(0.0, limit_s))
        with scope:
            await work()
        return not scope.cancelled_caught

    async def in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        self.check()
        found = await self._trio.to_thread.run_sync(call, abandon_on_cancel=True)
        return cast("ResultT", found)


def running_loop() -> EventLoop:
    """Return the loop that runs the caller. Raises RuntimeError if none does."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return TrioLoop()
    return AsyncioLoop()


class Bridge:
    """The queue from the network thread into the loop."""

    def __init__(self, loop: EventLoop, let_pass: Callable[["Bridge"], None]) -> None:
        """`let_pass(bridge)` has the network thread call `open` at the end of its turn."""
        self.loop = loop
        self._let_pass = let_pass
        self._queue: deque[Callable[[], object]] = deque()
        self._is_announced = False

    def post(self, callback: Callable[[], object]) -> None:
        """Have the loop call `callback`. Called in the network thread."""
        self._queue.append(callback)
        if not self._is_announced:
            self._is_announced = True
            self._let_pass(self)

    def open(self) -> None:
        """Wake the loop: the turn of the network thread is over."""
        self.loop.call_soon(self._drain)

    def _drain(self) -> None:
        # Before the queue is read: a callback that is appended meanwhile is announced again, or read here.
        self._is_announced = False
        queue = self._queue
        while queue:
            queue.popleft()()


class LoopWatch:
    """Ends a client whose loop has ended while it was open: no task can use or close it any more. Otherwise its consumers
    would keep their partitions, which no task reads. On the network thread."""

    START = TimerFired("look at the loop")

    def __init__(self, loop: EventLoop, end: Callable[[], None]) -> None:
        self._loop = loop
        self._end = end

    def handle(self, event: Event, now: int) -> list[Effect]:
        if not self._loop.has_ended():
            return [SetTimer(self.START.key, now + LOOK_MS)]
        self._end()
        return []


class Flag:
    """A signal that is set from the network thread, and can be cleared. For one waiting task."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._signal = bridge.loop.signal()
        self._is_posted = False

    def set(self) -> None:
        """Called in the network thread."""
        if not self._is_posted:
            self._is_posted = True
            self._bridge.post(self.set_here)

    def set_here(self) -> None:
        """Set it from the loop's own thread."""
        self._signal.set()

    def clear(self) -> None:
        self._is_posted = False
        if self._signal.is_set():
            self._signal = self._bridge.loop.signal()

    async def wait(self, timeout_s: float | None = None) -> bool:
        return await self._bridge.loop.wait(self._signal, timeout_s)


class LoopGate:
    """Opened by the network thread, like a Gate: the loop then calls `callback`."""

    __slots__ = ("_bridge", "_callback")

    def __init__(self, bridge: Bridge, callback: Callable[[], object]) -> None:
        self._bridge = bridge
        self._callback = callback

    def open(self) -> None:
        self._bridge.post(self._callback)


class Turns:
    """Lets one task at a time do something, in the order in which they came. Used on the loop only."""

    def __init__(self, loop: EventLoop) -> None:
        self.is_taken = False
        self._loop = loop
        self._waiting: deque[Signal] = deque()

    def __len__(self) -> int:
        """Return how many tasks wait for their turn."""
        return len(self._waiting)

    async def take(self, timeout_s: float | None = None) -> bool:
        """Wait for the turn. Return False if it has not come within `timeout_s` seconds (None: no limit)."""
        if not self.is_taken:
            self.is_taken = True
            return True
        signal = self._loop.signal()
        self._waiting.append(signal)
        try:
            await self._loop.wait(signal, timeout_s)
        except BaseException:
            if signal.is_set():
                self.pass_on()
            else:
                self._waiting.remove(signal)
            raise
        if not signal.is_set():
            self._waiting.remove(signal)
        return signal.is_set()

    def pass_on(self) -> None:
        """End the turn: the task that has waited longest has the next one."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self.is_taken = False
