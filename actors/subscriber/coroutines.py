"""The event loop of a subscriber whose handler is an `async def` function. Impure.

One asyncio loop for the whole process, in a thread of its own, so that the handler may keep connections that belong to a
loop. The workers' threads wait for their coroutines: with `concurrency=n`, up to n of them run at a time. asyncio is
imported when the first such handler is loaded.
"""

import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from .handler import takes_context


class Coroutines:
    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - a subscriber with a plain handler needs no event loop

        self._start = asyncio.run_coroutine_threadsafe
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="planaria-async", daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        """The thread that runs the coroutines."""
        assert self._thread.ident is not None
        return self._thread.ident

    def awaiting(self, handler: Callable[..., Any]) -> Callable[..., object]:
        """Return a function that calls the handler and waits for the result of its coroutine."""
        start, loop = self._start, self._loop
        if takes_context(handler):
            return lambda message, context: start(handler(message, context), loop).result()
        return lambda message: start(handler(message), loop).result()

    def _run(self) -> None:
        import asyncio  # noqa: PLC0415

        asyncio.set_event_loop(self._loop)
        while True:
            # A handler's sys.exit() ends the loop's run, and is its record's failure like any exception.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()


def run_alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in an event loop of its own, in the caller's thread."""
    import asyncio  # noqa: PLC0415

    return asyncio.run(coroutine)
