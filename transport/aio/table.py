"""A topic as a dict, for tasks. It is kept current by the thread of `client/table.py`; reading it never waits."""

from collections.abc import Generator
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..client.delivery import RecordMetadata
from ..client.errors import TimedOut
from ..client.messages import Message
from ..client.options import Duration, wait_limit_s
from ..client.table import Follower, TableView
from .calls import Caller


class AsyncTable(TableView):
    """The values of a topic by key, as of now: a read-only Mapping. An async context manager."""

    def __init__(self, caller: Caller, follower: Follower) -> None:
        super().__init__(follower)
        self._caller = caller

    async def wait_for(
        self,
        message: RecordMetadata | Message | int,
        partition: int | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Wait until a message has been read, as `Table.wait_for`. Raises TimedOut, InvalidOption."""
        limit_s = wait_limit_s(timeout)
        loop, follower = self._caller.bridge.loop, self._follower
        signal = loop.signal()
        notify = partial(loop.call_soon, signal.set)
        follower.call_when(self._ends_behind(message, partition), notify)
        try:
            is_set = await loop.wait(signal, limit_s)
        finally:
            follower.forget(notify)
        follower.check()
        if not is_set:
            raise TimedOut(f"the table has not read the message within {limit_s} s")

    async def close(self) -> None:
        """End the thread. Waiting calls raise Closed."""
        await self._caller.bridge.loop.in_thread(self._follower.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._caller.bridge.loop.shield():
            await self.close()


class OpeningTable:
    """A table that is read where it is entered, or awaited: `async with client.table(...)`, `await client.table(...)`."""

    def __init__(self, caller: Caller, make: partial[Follower]) -> None:
        self._caller = caller
        self._make = make
        self._table: AsyncTable | None = None

    def __await__(self) -> Generator[Any, Any, AsyncTable]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncTable:
        follower = await self._caller.bridge.loop.in_thread(self._make)
        self._table = AsyncTable(self._caller, follower)
        return self._table

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._table is not None
        await self._table.__aexit__(kind, error, trace)
