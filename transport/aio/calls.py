"""Calls of tasks: post to the network thread, wait for the outcome on the loop. Safe to cancel."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ..calls.connections import Owner
from ..calls.events import Submitted
from ..client.delivery import ProducerBatch
from ..client.errors import TimedOut
from ..client.network import Network
from ..client.waiting import Asker
from ..machine import Answered, Call, Effect, Event
from .loops import Bridge, LoopGate


class TaskWaiter:
    """A task that waits for one outcome."""

    def __init__(self, bridge: Bridge, asker: Asker | None) -> None:
        self.asker = asker
        self.event: Event = None
        self.signal = bridge.loop.signal()
        self._bridge = bridge

    def handle(self, event: Event, now: int) -> list[Effect]:
        if self.event is None:
            self.event = event
            self._bridge.post(self.signal.set)
        return []


class Caller:
    """The way of one client's tasks to its network thread."""

    def __init__(self, network: Network, bridge: Bridge) -> None:
        self.network = network
        self.bridge = bridge

    async def exchange(self, call: Call, asker: Asker | None = None) -> Answered:
        """Wait for the outcome of a call. A cancellation withdraws it; the broker may have executed it nevertheless."""
        return await self.outcome(self.network.owner, lambda waiter: Submitted(waiter, call), asker)

    async def outcome(
        self, owner: Owner, event_for: Callable[[Owner], Event], asker: Asker | None = None
    ) -> Answered:
        """Post to `owner` an event that results in one outcome, and wait for it. A cancellation withdraws its call."""
        waiter = TaskWaiter(self.bridge, asker)
        try:
            self.network.begin(waiter, owner, event_for(waiter))
            await waiter.signal.wait()
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
        gate = LoopGate(self.bridge)
        if batch.attend(gate):
            try:
                await gate.signal.wait()
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
