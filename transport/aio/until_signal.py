"""`until_signal` for event loops: a signal's handler has the loop call `stop`, as a task of the program would.

The handlers are those of `signal.signal` under every loop: they use calls that other threads may make.
"""

import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ..client.options import Duration, wait_limit_s
from ..client.until_signal import SIGNALS, SignalHandlers, Stoppable
from .loops import EventLoop, Signal, running_loop


class AsyncUntilSignal(SignalHandlers):
    """The block of `until_signal`, and the state of its signals."""

    _loop: EventLoop
    _has_come: Signal

    async def wait(self, timeout: Duration | None = None) -> bool:
        """Wait for a signal; return False if none has come within `timeout` (seconds or a timedelta; None: no limit)."""
        return await self._loop.wait(self._has_come, wait_limit_s(timeout))

    def _stop(self) -> None:
        self._loop.call_soon(self._stop_here)

    def _stop_here(self) -> None:
        self._has_come.set()
        super()._stop()

    async def __aenter__(self) -> Self:
        self._loop = running_loop()
        self._has_come = self._loop.signal()
        self._replace()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


def until_signal(*loops: Stoppable, signals: Sequence[signal.Signals] = SIGNALS) -> AsyncUntilSignal:
    """Return an async block in which SIGTERM and SIGINT stop these consumers, so that loops over them end in order.

        async with client.work("resize", "IMAGES") as jobs, until_signal(jobs):
            async for job in jobs:
                ...

    Otherwise like `planaria.until_signal`; `await wait()` waits for a signal.
    """
    return AsyncUntilSignal(loops, signals)
