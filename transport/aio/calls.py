"""Calls of tasks: post to the network thread, wait for the outcome on the loop. Safe to cancel."""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from ..calls.connections import Owner
from ..calls.events import Submitted
from ..client.errors import TimedOut
from ..client.network import Network
from ..client.producer_batch import ProducerBatch
from ..client.waiting import Requester, Waiter
from ..machine import Answered, Call, Event
from .loops import Bridge, LoopGate


class Caller:
    """The way of one client's tasks to its network thread."""

    def __init__(self, network: Network, bridge: Bridge) -> None:
        self.network = network
        self.bridge = bridge

    async def exchange(self, call: Call, requester: Requester | None = None) -> Answered:
        """Wait for the outcome of a call. A cancellation withdraws it; the broker may have executed it nevertheless."""
        return await self.outcome(self.network.owner, lambda waiter: Submitted(waiter, call), requester)

    async def outcome(
        self, owner: Owner, event_for: Callable[[Owner], Event], requester: Requester | None = None
    ) -> Answered:
        """Post to `owner` an event that results in one outcome, and wait for it. A cancellation withdraws its call."""
        signal = self.bridge.loop.signal()
        waiter = Waiter(partial(self.bridge.post, signal.set), requester)
        try:
            self.network.begin(waiter, owner, event_for(waiter))
            await signal.wait()
        finally:
            self.network.abandon(waiter)
        return self.network.answer_to(waiter)

    async def partitions_of(self, topic: str, timeout_ms: int, least: int = 1) -> int:
        """Return the number of partitions of a topic. Raises UnknownTopic, TimedOut."""
        finding: Generator[Call, Any, int] = self.network.finding_partitions(topic, timeout_ms, least)
        answer: Any = None
        while True:
            try:
                call = finding.send(answer)
            except StopIteration as found:
                return int(found.value)
            answer = (await self.exchange(call)).reply

    async def finish(self, batch: ProducerBatch) -> None:
        """Wait until a batch is acknowledged or has failed."""
        signal = self.bridge.loop.signal()
        gate = LoopGate(self.bridge, signal.set)
        if batch.attend(gate):
            try:
                await signal.wait()
            finally:
                if not batch.is_done:
                    batch.leave(gate)

    async def within(
        self, limit_s: float | None, work: Callable[[], Coroutine[Any, Any, None]], what: str
    ) -> None:
        """Await `work`, for `limit_s` seconds at most. Raises TimedOut with `what`."""
        if limit_s is None:
            await work()
        elif not await self.bridge.loop.within(work, limit_s):
            raise TimedOut(f"{what} after {limit_s} s")
