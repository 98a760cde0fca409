"""The member of a hosted subscriber: the consumer for tasks, with the calls that only a subscriber makes. Impure.

It takes part in rebalances, its polls can be ended, it is paused and resumed while it polls, and its queries need no
thread. Called by the feed.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from ...transport.addresses import Address, TopicPartition, coordinator_address, partition_address
from ...transport.aio.calls import Caller
from ...transport.aio.consumer import AsyncConsumer
from ...transport.client.consuming import Action, RunCallback
from ...transport.client.offset_queries import committed_offsets_of
from ...transport.client.options import ConsumerOptions
from ...transport.machine import Call
from ...transport.protocol.data import ListOffsets, ListOffsetsReply
from ...transport.protocol.groups import FetchOffsetsReply, PartitionOffset
from ...transport.protocol.message import Reply, Request

OnChange: TypeAlias = Callable[[RunCallback], Coroutine[Any, Any, None]]


class Member(AsyncConsumer):
    def __init__(
        self,
        caller: Caller,
        group: str,
        topics: Sequence[str],
        options: ConsumerOptions,
        on_change: OnChange,
    ) -> None:
        """`on_change` is awaited, inside a poll, before a change of the assignment takes effect."""
        super().__init__(caller, group, topics, options)
        self._of_group = group
        self._on_change = on_change

    async def _perform(self, action: Action) -> None:
        if isinstance(action, RunCallback):
            await self._on_change(action)
        else:
            await super()._perform(action)

    # While a poll is out.

    def end_poll(self) -> None:
        """Have the poll return without messages if it finds none; the next poll, if none is out."""
        self._is_poll_over = True
        self._has_mail.set_here()

    def resume(self, *partitions: tuple[str, int]) -> None:
        """Return messages of these partitions again, also by the poll that is out."""
        super().resume(*partitions)
        self._has_mail.set_here()

    # Queries.

    async def offsets_committed(self, tps: Sequence[TopicPartition]) -> list[PartitionOffset]:
        request = committed_offsets_of(self._of_group, tps)
        reply: FetchOffsetsReply = await self._reply_to(
            coordinator_address(self._of_group), request, FetchOffsetsReply
        )
        return reply.offsets

    async def beginning_of(self, tp: TopicPartition) -> int:
        """Return the start of the partition's log."""
        request = ListOffsets(topic=tp.topic, partition=tp.partition, at="earliest")
        address = partition_address(tp.topic, tp.partition)
        reply: ListOffsetsReply = await self._reply_to(address, request, ListOffsetsReply)
        return reply.offset

    async def _reply_to(self, address: Address, request: Request, reply_type: type[Reply]) -> Any:
        timeout_ms = self._options.request_timeout_ms
        call = Call(None, address, request, reply_type, timeout_ms=timeout_ms, is_retried=True)
        return (await self._caller.exchange(call)).reply

    def origin(self, tp: TopicPartition) -> tuple[str | None, int | None]:
        """Return the topic id and the group's reset epoch of a position, as far as they are known."""
        return self._machine.reader.origin(tp)
