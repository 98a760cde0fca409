"""Bounded reads for tasks. The offsets at which they begin and end are requested in a worker thread of the loop."""

from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Self

from ..client.bounded import BoundedRead
from ..client.messages import Message
from ..client.reading import RECHECK_S, Reading
from .calls import Caller
from .consumer import AsyncConsumer


class AsyncReading:
    """The messages of a bounded read, which begins when the first is requested: an asynchronous iterator, and a block.

    A loop that runs to the end needs no block; nor does one that is left early, if the iterator is not kept.
    """

    def __init__(self, caller: Caller, what: Reading) -> None:
        self._caller = caller
        self._what = what
        self._read: BoundedRead | None = None
        self._consumer: AsyncConsumer | None = None
        self._present: Iterator[Message] = iter(())
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while True:
            for message in self._present:
                return message
            if self._is_over:
                await self.aclose()
                raise StopAsyncIteration
            await self._go_on()

    async def _go_on(self) -> None:
        """Take the next messages, if there are any within RECHECK_S."""
        network, loop = self._caller.network, self._caller.bridge.loop
        if self._read is None:
            self._read = BoundedRead(await loop.in_thread(partial(self._what.spans, network)))
        read = self._read
        if self._consumer is None:
            self._is_over = not read.starts
            if self._is_over:
                return
            consumer = AsyncConsumer(self._caller, None, (), self._what.options, starts=read.starts)
            self._consumer = await consumer.__aenter__()
        machine = self._consumer._machine
        parts = await self._consumer._poll(RECHECK_S, lambda: read.take(machine))
        for part in parts:
            self._present = iter(part.messages)
            self._is_over = part.is_last
        if not parts:
            read.lower(await loop.in_thread(partial(self._what.lowered, network, read.ends)))

    async def aclose(self) -> None:
        """End the read."""
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._present = iter(())
        if self._consumer is not None:
            self._consumer._abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __del__(self) -> None:
        self._end()
