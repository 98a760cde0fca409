"""The consumer for tasks: posts to the network thread, waits for its mail on the loop.

Its machine and its half on the network thread are those of the consumer for threads (`client/consuming.py`,
`client/consumer_bridge.py`). A rebalance runs no code of the program: `assignment_changed` reports it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic, time_ns
from types import TracebackType
from typing import Any, Self

from ..addresses import TopicPartition
from ..calls.events import Withdrawn
from ..client.assigned_partitions import AssignedPartitions
from ..client.commits import CommitFirst, GivenOffsets, Metadata, Offsets, Partition, commit_call
from ..client.consumer_bridge import Stopped
from ..client.consuming import Action
from ..client.errors import Closed, TimedOut
from ..client.messages import Message, MessageBatch, unexpired
from ..client.network import Network
from ..client.offset_queries import OffsetQueries
from ..client.options import (
    ConsumerOptions,
    Duration,
    as_partition,
    check_count,
    wait_limit_s,
)
from ..client.reader import Reader
from ..protocol.errors import ProtocolError
from ..protocol.groups import CommitOffsets
from ..tracing import receiving_async, settling
from .admin import AsyncOffsetQueries
from .calls import Caller
from .loops import Flag


class _Queries(OffsetQueries):
    def __init__(
        self, network: Network, group: str | None, options: ConsumerOptions, refuse: Callable[[], None]
    ) -> None:
        super().__init__(network, group, options.isolation, options.request_timeout_ms)
        self._refuse = refuse

    def _refuse_when_closed(self) -> None:
        self._refuse()


class AsyncConsumer(AssignedPartitions, AsyncOffsetQueries):
    """Read partitions, as a group member or without a group; for one task at a time. An async context manager.

    Entering the block joins the group, leaving it commits (with `auto_commit`) and leaves the group, and ends iterators
    in other tasks with StopAsyncIteration.
    """

    def __init__(
        self,
        caller: Caller,
        group: str | None,
        topics: Sequence[str],
        options: ConsumerOptions,
        starts: Mapping[TopicPartition, int | None] | None = None,
    ) -> None:
        """Take the combinations of `Consumer`."""
        self._has_mail = Flag(caller.bridge)
        AssignedPartitions.__init__(self, caller.network, group, topics, options, starts, self._has_mail)
        queries = _Queries(caller.network, group, options, self._refuse_when_closed)
        AsyncOffsetQueries.__init__(self, caller, queries)
        self._changed = Flag(caller.bridge)
        self._is_poll_over = False
        """True if the present poll is to return, by order of a hosted subscriber."""

    async def __aenter__(self) -> Self:
        timeout_ms = self._options.request_timeout_ms
        followed = self._machine.growth.topics
        self._begin_reading(
            {topic: await self._caller.partitions_of(topic, timeout_ms) for topic in followed}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        machine = self._machine
        with self._caller.bridge.loop.shield():
            await self._end(machine.positions() if kind is None else machine.settled_positions())

    # Reading.

    @receiving_async
    async def poll(self, timeout: Duration | None = None, max_messages: int = 500) -> list[Message]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        The errors are those of `Consumer.poll`. A cancelled poll loses no message.
        """
        return await self._poll(timeout, self._taking(max_messages))

    async def poll_batches(
        self, timeout: Duration | None = None, max_batches: int = 16
    ) -> list[MessageBatch]:
        """Like `poll`, but return whole, verified batches. The first may begin before the position."""
        check_count("max_batches", max_batches)
        return await self._poll(timeout, lambda: self._machine.reader.take_batches(max_batches))

    async def _poll(
        self,
        timeout: Duration | None,
        take: Callable[[], list[Any]],
        gathering: "_Gathering | None" = None,
    ) -> list[Any]:
        self._refuse_when_closed()
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        machine, bridge = self._machine, self._bridge
        bridge.is_polling = True
        try:
            machine.begin_poll()
            while True:
                await self._catch_up()
                if machine.growth.is_followed:
                    machine.follow_growth(self._network.topics.partition_count)
                try:
                    found = machine.found(take, monotonic())
                finally:
                    self._post()
                if found is not None:
                    return found
                if self._is_poll_over:
                    return []
                left_s = None if deadline is None else deadline - monotonic()
                if not bridge.mailbox and left_s is not None and left_s <= 0:
                    return []
                if gathering is not None:
                    left_s = gathering.longest_wait_s(left_s)
                left_s = machine.commits.longest_wait_s(machine.growth.longest_wait_s(left_s), monotonic())
                await self._has_mail.wait(left_s)
                self._refuse_when_closed()
        finally:
            self._is_poll_over = False
            bridge.last_poll_ms = self._network.now_ms()
            bridge.is_polling = False

    async def _catch_up(self) -> None:
        """Take the mail, and perform the actions that follow from it."""
        self._has_mail.clear()
        self._machine.accept(self._bridge.mailbox)
        try:
            while (action := self._machine.next_action()) is not None:
                self._post()
                error = None
                try:
                    await self._perform(action)
                except BaseException as raised:  # noqa: BLE001 - raised when the change is complete
                    error = raised
                self._machine.performed(action, error)
        finally:
            self._post()

    async def _perform(self, action: Action) -> None:
        if isinstance(action, CommitFirst):
            await self._commit(action)
        else:
            self._changed.set_here()

    async def _commit(self, action: CommitFirst) -> None:
        await self._caller.exchange(commit_call(action.request, self._options.request_timeout_ms))

    def __aiter__(self) -> "Messages":
        """Yield messages until `stop` or the end of the block. A message counts as read when the next is requested."""
        return Messages(self)

    def batches(self, max: int = 500, max_wait: Duration = 0.2) -> "Batches":
        """Yield lists of at most `max` messages, gathered for up to `max_wait` (seconds or a timedelta) after the first.

        The messages of a list count as read when the next list is requested.
        """
        check_count("max", max)
        return Batches(self, max, wait_limit_s(max_wait))

    def stop(self) -> None:
        """End iterators after their current message; `poll` then returns an empty list at once.

        Call it from a task, or from a handler of `loop.add_signal_handler`. The consumer stays in its group until the
        end of the block.
        """
        self._machine.is_stopped = True
        self._network.post(self._bridge, Stopped())

    # Offsets.

    async def commit(
        self, offsets: Message | GivenOffsets | None = None, metadata: Metadata | None = None
    ) -> None:
        """Commit the given offsets, or the position after all returned messages, and wait until they are durable.

        As `Consumer.commit`. A cancelled commit may have been made.
        """
        self._refuse_when_closed()
        self._machine.accept(self._bridge.mailbox)
        action = self._machine.commit_of(offsets, metadata)
        if action is not None:
            with settling("commit", self):
                await self._commit(action)
            self._machine.performed(action, None)

    async def _commit_for_transaction(
        self, offsets: GivenOffsets | None = None, metadata: Metadata | None = None
    ) -> CommitOffsets | None:
        """Return the request that `commit` would send, for a transaction, as `Consumer._commit_for_transaction`."""
        self._refuse_when_closed()
        self._machine.commits.check(is_in_transaction=True)
        if offsets is None:
            await self._catch_up()
        else:
            self._machine.accept(self._bridge.mailbox)
        return self._machine.commit_for_transaction(offsets, metadata)

    async def seek_to_time(self, time: datetime | int, partitions: Iterable[Partition] | None = None) -> None:
        """Continue at the first message of a time or later, as `Consumer.seek_to_time`."""
        wanted = self._assigned_or(partitions)
        # The ends first: a message that is appended between the two requests is then found by its time.
        ends = await self.end_offsets(wanted)
        for tp, found in (await self.offsets_for_times(dict.fromkeys(ends, time))).items():
            self.seek(*tp, ends[tp] if found < 0 else found)

    async def seek_to_committed(self) -> None:
        """Read again the messages that were returned and not committed, as `Consumer.seek_to_committed`."""
        self._refuse_when_closed()
        await self._catch_up()
        begun = self._machine.reader.beginnings()
        committed = await self.committed(sorted(begun))
        self._refuse_when_closed()
        self._machine.rewind(begun, committed)
        self._post()

    async def position(self, topic: str, partition: int, timeout: Duration | None = None) -> int:
        """Return the offset of the next message, as `Consumer.position`. Raises TimedOut."""
        self._refuse_when_closed()
        tp = as_partition("partition", (topic, partition))
        self._machine.check_owned(tp)
        limit_s = wait_limit_s(timeout)
        deadline = None if limit_s is None else monotonic() + limit_s
        while (found := self._machine.known_position(tp)) is None:
            left_s = None if deadline is None else deadline - monotonic()
            if left_s is not None and left_s <= 0:
                raise TimedOut(f"the start of {topic}/{partition} is not known after {limit_s} s")
            await self._has_mail.wait(left_s)
            self._refuse_when_closed()
            await self._catch_up()
        return found

    # Assignment.

    async def assignment_changed(self) -> list[TopicPartition]:
        """Wait until a poll finds that the assignment has changed, and return the new one."""
        self._changed.clear()
        await self._changed.wait()
        return self.assignment()

    # Closing.

    async def close(self, *, leave_group: bool | None = None) -> None:
        """Commit the returned messages (with `auto_commit`) and leave the group, as `Consumer.close`."""
        await self._end(self._machine.positions(), leave_group)

    async def _end(self, positions: Offsets, leave_group: bool | None = None) -> None:
        machine = self._machine
        if machine.is_closed:
            return
        self._caller.bridge.loop.check()
        action = machine.close(positions)
        self._has_mail.set_here()  # ends a poll in another task
        try:
            if action is not None:
                with suppress(ProtocolError):  # fenced or out of reach: these messages are delivered again
                    await self._commit(action)
        finally:
            machine.leave(
                is_notified=self._options.instance_id is None if leave_group is None else leave_group
            )
            self._post()
            while machine.state != "left" and self._network.is_running:
                await self._has_mail.wait()  # set when the network ends, too
                self._has_mail.clear()
                machine.accept(self._bridge.mailbox)
            self._network.post(self._network.owner, Withdrawn(self._bridge))

    def _abandon(self) -> None:
        """Close a consumer without a group: nothing is committed, and nothing is waited for."""
        if not self._machine.is_closed:
            self._machine.close({})
            self._machine.leave(is_notified=False)
            self._post()
            self._network.post(self._network.owner, Withdrawn(self._bridge))


class Messages:
    """The iterator of `async for message in consumer`."""

    def __init__(self, consumer: AsyncConsumer) -> None:
        self._consumer = consumer
        self._present: Iterator[Message] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        consumer = self._consumer
        machine = consumer._machine
        while True:
            for message in self._present:
                return message
            if machine.is_closed or machine.is_stopped:
                raise StopAsyncIteration
            try:
                messages = await consumer.poll()
            except Closed:
                raise StopAsyncIteration from None
            self._present = machine.yield_all(messages)


class Batches:
    """The iterator of `consumer.batches()`."""

    def __init__(self, consumer: AsyncConsumer, max_messages: int, max_wait_s: float) -> None:
        self._consumer = consumer
        self._max_messages = max_messages
        self._max_wait_s = max_wait_s

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        consumer = self._consumer
        machine = consumer._machine
        if machine.is_closed or machine.is_stopped:
            raise StopAsyncIteration
        while True:
            gathering = _Gathering(machine.reader, self._max_messages, self._max_wait_s)
            try:
                found = await consumer._poll(None, gathering.take, gathering)
            except Closed:
                raise StopAsyncIteration from None
            if not found:
                raise StopAsyncIteration
            if not consumer._options.skip_expired or (found := unexpired(found, time_ns() // 1_000_000)):
                return found


class _Gathering:
    """Takes messages when there are enough, or when the first has waited long enough."""

    def __init__(self, reader: Reader, max_messages: int, max_wait_s: float) -> None:
        self._reader = reader
        self._max_messages = max_messages
        self._max_wait_s = max_wait_s
        self._due_s: float | None = None

    def take(self) -> list[Message]:
        found = self._reader.take(self._max_messages)
        now_s = monotonic()
        if found and self._due_s is None:
            self._due_s = now_s + self._max_wait_s
        if not found or len(found) == self._max_messages or (self._due_s or 0.0) <= now_s:
            return found
        self._reader.give_back(found, self._reader.epochs())
        return []

    def longest_wait_s(self, left_s: float | None) -> float | None:
        """Return how long a poll with `left_s` seconds left may wait for more."""
        if self._due_s is None:
            return left_s
        due_s = max(0.0, self._due_s - monotonic())
        return due_s if left_s is None else min(left_s, due_s)
