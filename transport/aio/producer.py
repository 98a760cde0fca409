"""The producer for tasks. Its accumulator and its half on the network thread are those of the producer for threads.

Publishing never blocks the loop: a full buffer raises BufferFull in `publish_nowait` and suspends `publish`. Messages to
a topic whose partitions are not known yet wait in order, and pass when the broker has named them. `publish_nowait` may be
called from any thread: the accumulator takes messages from all of them, and a lock guards those that wait.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from msgspec import Struct

from ..addresses import TopicPartition
from ..batch import RecordFields
from ..calls.events import Submitted
from ..client.batches import HeldPartitions
from ..client.delivery import RecordMetadata
from ..client.destinations import Destinations
from ..client.errors import BufferFull, Closed, TimedOut, UnknownTopic, error_from
from ..client.network import Network
from ..client.options import Duration, ProducerOptions, wait_limit_s
from ..client.producer import INTERRUPTED_FLUSH_S, BatchingProducer
from ..client.producer_batch import ProducerBatch
from ..client.waiting import Requester, Waiter
from ..keywords import PublishDetails
from ..machine import Answered, Call, Effect, Event
from .calls import Caller
from .loops import LoopGate, Signal

MAX_EARLY = 10_000
"""Messages that may wait for the partitions of their topic."""


class PublishHandle(Struct, gc=False, eq=False):
    """A published message. `await handle` waits for its acknowledgement and returns its RecordMetadata.

    It may be awaited by several tasks, more than once. Raises as `Delivery.result` does. A cancelled wait does not
    take the message back.
    """

    _batch: ProducerBatch | None
    _record: RecordFields | None
    _early: "_EarlyMessage | None" = None
    """Present if the message had to wait for its batch."""

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        return self._result().__await__()

    def done(self) -> bool:
        """Return True if the message is acknowledged or has failed."""
        if self._batch is None:
            assert self._early is not None
            return self._early.error is not None
        return self._batch.is_done

    async def _result(self) -> RecordMetadata:
        if self._batch is None:
            assert self._early is not None
            await self._early.accepted()
            if self._early.error is not None:
                raise self._early.error
        batch = self._batch
        assert batch is not None
        assert self._record is not None
        batch.is_awaited = True
        await batch.caller.finish(batch)
        if batch.error is not None:
            raise batch.error
        return batch.location_of(self._record)


def _batch_for_tasks(caller: Caller, *details: Any) -> ProducerBatch:
    """Return a batch whose publishers are tasks."""
    batch = ProducerBatch(*details)
    batch.caller = caller
    batch.handle = PublishHandle
    return batch


class _EarlyMessage:
    """A message to a topic whose partitions are not known yet: until it is in a batch, or has failed."""

    def __init__(self, caller: Caller, placed: tuple[Any, ...]) -> None:
        self.handle = PublishHandle(None, None, self)
        self.placed = placed
        """The message, encoded, as `Accumulator.place` takes it."""
        self.error: Exception | None = None
        self._caller = caller
        self._signals: list[Signal] = []

    async def accepted(self) -> None:
        """Wait until the message is in a batch, or has failed."""
        if self.handle._batch is None and self.error is None:
            signal = self._caller.bridge.loop.signal()
            self._signals.append(signal)
            await signal.wait()

    def accept(self, handle: PublishHandle | None, error: Exception | None = None) -> None:
        """Take the place of the message in a batch, or its failure."""
        if handle is not None:
            self.handle._batch, self.handle._record = handle._batch, handle._record
        self.error = error
        signals, self._signals = self._signals, []
        for signal in signals:
            signal.set()


class AsyncProducer:
    """Publishes messages, each once and in order within its partition; for all tasks of one event loop."""

    def __init__(
        self,
        caller: Caller,
        options: ProducerOptions,
        on_done: Callable[[TopicPartition, Exception | None], None] | None = None,
        on_refused: Callable[[Exception], None] | None = None,
    ) -> None:
        """Take `on_done`, as in BatchingProducer, and `on_refused`, called with the error of each message that comes into
        no batch after `publish_nowait` has returned."""
        self._caller = caller
        self._on_refused = on_refused
        self._batching = BatchingProducer(
            caller.network,
            options,
            on_done,
            may_wait=lambda: False,
            destinations=_KnownDestinations,
            make_batch=partial(_batch_for_tasks, caller),
            place=self._place,
        )
        # Hides the method of this name, as in the producer for threads.
        self.__dict__["publish_nowait"] = self._batching.publish
        self._metadata_timeout_ms = min(options.request_timeout_ms, options.max_block_ms)
        self._early: dict[str, _EarlyMessages] = {}
        self._early_lock = threading.Lock()
        self._is_closed = False

    def publish_nowait(self, topic: str, value: Any, **details: Unpack[PublishDetails]) -> PublishHandle:
        """Hand a message over, and return at once. The arguments are those of `Producer.publish`. From any thread; the
        handle is awaited by a task.

        Raises BufferFull if more than `buffer_bytes` wait for the broker, InvalidOption, Closed. A topic that does not
        exist fails the handle.
        """
        raise NotImplementedError  # the accumulator's method is bound in its place

    async def publish(self, topic: str, value: Any, **details: Unpack[PublishDetails]) -> RecordMetadata:
        """Publish a message and wait for its acknowledgement. A full buffer suspends the caller until there is room.

        The arguments and errors are those of `Producer.publish` and `Delivery.result`. A cancelled call may have
        published its message.
        """
        return await self._publish_with_room(lambda: self.publish_nowait(topic, value, **details))

    async def _publish_with_room(self, publish_nowait: Callable[[], PublishHandle]) -> RecordMetadata:
        """Hand a message over once there is room, and wait for its acknowledgement."""
        return await (await self._handed_over(publish_nowait))

    async def _handed_over(self, publish_nowait: Callable[[], PublishHandle]) -> PublishHandle:
        """Hand a message over once there is room."""
        self._caller.bridge.loop.check()
        while True:
            try:
                return publish_nowait()
            except BufferFull:
                await self._room()

    async def flush(self, timeout: Duration | None = None) -> None:
        """Wait until each message published so far is acknowledged or has failed. Raises TimedOut.

        `timeout` is in seconds or a timedelta; None: without limit.
        """
        await self._caller.within(wait_limit_s(timeout), self._flush, "messages are not acknowledged")

    async def _flush(self) -> None:
        await self._settle_early()
        with self._batching.flushing():
            for batch in self._batching.accumulator.unfinished():
                await self._caller.finish(batch)

    async def close(self, timeout: Duration | None = None) -> None:
        """Flush, then refuse further messages.

        Messages not acknowledged after `timeout` fail, and TimedOut is raised. It is in seconds or a timedelta; None:
        bounded by `delivery_timeout_ms` only.
        """
        if self._is_closed:
            return
        self._caller.bridge.loop.check()
        self._is_closed = True
        limit_s = wait_limit_s(timeout)
        try:
            await self._caller.within(limit_s, self._settle, "messages are not acknowledged")
        finally:
            self._refuse_early(Closed("the producer is closed"))
            self._batching.begin_close()
            self._batching.end_close()

    async def _settle(self) -> None:
        await self._settle_early()
        self._batching.begin_close()
        await self._flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._caller.bridge.loop.shield():
            if kind is None:
                await self.close()
                return
            with suppress(TimedOut):  # the exception that ends the block is the one to report
                await self.close(INTERRUPTED_FLUSH_S)

    # Messages to topics that are not known yet.

    def _is_unknown(self, topic: str, partition: int | None) -> bool:
        count = self._batching.destinations.partitions_known(topic)
        return count is None or (partition is not None and partition >= count)

    def _place(self, topic: str, partition: int | None, *rest: Any) -> PublishHandle:
        """Put an encoded message into a batch, or let it wait until the partitions of its topic are known."""
        if topic in self._early or self._is_unknown(topic, partition):
            with self._early_lock:
                if topic in self._early or self._is_unknown(topic, partition):
                    return self._keep_early(topic, partition, rest)
        return self._batching.accumulator.place(topic, partition, *rest)  # type: ignore[no-any-return]

    def _keep_early(self, topic: str, partition: int | None, rest: tuple[Any, ...]) -> PublishHandle:
        if self._is_closed:
            raise Closed("the producer is closed")
        self._caller.network.refuse_when_closed()
        early = self._early.get(topic)
        if early is None:
            finding = self._caller.network.finding_partitions(
                topic, self._metadata_timeout_ms, 1 if partition is None else partition + 1
            )
            early = self._early[topic] = _EarlyMessages(self._caller, finding, lambda: self._pass(topic))
            # Later messages of the topic come here too, and do not overtake.
            self._batching.accumulator.hide(topic)
            early.begin()
        if len(early.messages) >= MAX_EARLY:
            raise BufferFull(f"{MAX_EARLY} messages wait for the partitions of {topic!r}")
        message = _EarlyMessage(self._caller, (topic, partition, *rest))
        early.messages.append(message)
        return message.handle

    def _pass(self, topic: str) -> None:
        """Place the messages that waited for the partitions of their topic, as far as there is room."""
        with self._early_lock:
            self._pass_early(topic, self._early[topic])

    def _pass_early(self, topic: str, early: "_EarlyMessages") -> None:
        accumulator = self._batching.accumulator
        if early.count is not None:
            destinations = self._batching.destinations
            assert isinstance(destinations, _KnownDestinations)
            destinations.learn(topic, early.count)
        while early.messages:
            message = early.messages[0]
            handle, error = None, early.error
            if error is None:
                try:
                    handle = accumulator.place(*message.placed)
                except BufferFull as full:
                    if accumulator.attend_room(LoopGate(self._caller.bridge, lambda: self._pass(topic))):
                        accumulator.hide(topic)
                        return
                    error = full
                except Exception as refused:  # noqa: BLE001 - raised where the handle is awaited
                    error = refused
            early.messages.popleft()
            message.accept(handle, error)
            if error is not None and self._on_refused is not None:
                self._on_refused(error)
        del self._early[topic]

    async def _settle_early(self) -> None:
        """Wait until the messages to topics that were not known are in batches, or have failed."""
        for early in list(self._early.values()):
            await early.settle()

    def _refuse_early(self, error: Exception) -> None:
        """Fail the messages to topics that are not known yet."""
        with self._early_lock:
            for early in self._early.values():
                while early.messages:
                    early.messages.popleft().accept(None, error)

    async def _check(self, topic: str, size_bytes: int) -> None:
        """Raise the error with which a message of that size would be refused, as far as it is known beforehand."""
        destinations = self._batching.destinations
        assert isinstance(destinations, _KnownDestinations)
        if destinations.partitions_known(topic) is None:
            destinations.learn(topic, await self._caller.partitions_of(topic, self._metadata_timeout_ms))
        destinations.check(topic, None, size_bytes)

    async def _room(self) -> None:
        if self._early:
            early = next(iter(self._early.values()))
            if len(early.messages) >= MAX_EARLY:
                with suppress(Exception):
                    await early.messages[0].handle
                return
        signal = self._caller.bridge.loop.signal()
        if self._batching.accumulator.attend_room(LoopGate(self._caller.bridge, signal.set)):
            await signal.wait()


class _KnownDestinations(Destinations):
    """The destinations on an event loop: they never ask the broker, because that would block."""

    def __init__(
        self, network: Network, requester: Requester, held: HeldPartitions, options: ProducerOptions
    ) -> None:
        super().__init__(network, requester, held, options)
        self._found: dict[str, int] = {}
        """Numbers of partitions that a search has found before the client's metadata has the topic."""

    def learn(self, topic: str, count: int) -> None:
        self._found[topic] = count

    def partitions_known(self, topic: str) -> int | None:
        known = super().partitions_known(topic)
        if known is None:
            return self._found.get(topic)
        if self._found:
            self._found.pop(topic, None)
        return known

    def find(self, topic: str, timeout_ms: int, least: int = 1) -> int:
        known = self.partitions_known(topic)
        if known is None:
            raise UnknownTopic(topic)
        return known


class _EarlyMessages(Waiter):
    """Messages that wait for the partitions of a topic, and the search for these, on the network thread."""

    def __init__(
        self, caller: Caller, finding: Generator[Call, Any, int], on_found: Callable[[], None]
    ) -> None:
        super().__init__(partial(caller.bridge.post, self._found))
        self.messages: deque[_EarlyMessage] = deque()
        self.error: Exception | None = None
        self.count: int | None = None
        """The number of partitions that the search has found."""
        self._caller = caller
        self._finding = finding
        self._on_found = on_found

    def begin(self) -> None:
        network: Network = self._caller.network
        try:
            first = next(self._finding)
        except StopIteration:
            self._caller.bridge.loop.call_soon(self._on_found)
            return
        network.begin(self, network.owner, Submitted(self, first))

    async def settle(self) -> None:
        """Wait until the messages have been handed over, or have failed."""
        for message in list(self.messages):
            await message.accepted()

    def handle(self, event: Event, now: int) -> list[Effect]:
        if self.event is not None:  # the network ends before the loop has taken the outcome
            return []
        try:
            if isinstance(event, Answered):
                return [self._finding.send(event.reply)]
            self.error = error_from(event.error)
        except StopIteration as found:
            self.count = int(found.value)
        except Exception as error:  # noqa: BLE001 - the messages fail with it
            self.error = error
        return super().handle(event, now)

    def _found(self) -> None:
        self._caller.network.abandon(self)
        self._on_found()
