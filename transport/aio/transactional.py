"""A producer that writes in transactions, for tasks, and the transaction object that programs use.

    async with producer.transaction() as tx:
        tx.publish_nowait("PAYMENTS", value, key=...)
        await tx.commit_offsets(consumer)

Its machine (`client/transacting.py`) and its half on the network thread are those of the producer for threads. After a
cancellation the next claim settles the transaction, as after an end without an answer.
"""

from collections.abc import Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

from ..client.commits import GivenOffsets, Metadata, commit_call
from ..client.delivery import RecordMetadata
from ..client.errors import Closed
from ..client.options import Duration, ProducerOptions
from ..client.producer_bridge import Concluded, Posted
from ..client.transacting import Transacting, aborted_by
from ..keywords import MessageDetails
from ..machine import Answered
from ..protocol.errors import PlanariaError
from ..protocol.groups import CommitOffsets
from .calls import Caller
from .consumer import AsyncConsumer
from .loops import Turns
from .producer import AsyncProducer, PublishHandle


class AsyncTransactionalProducer:
    """Publishes in consecutive transactions, one at a time; an async context manager.

    Any number of tasks may publish in the open transaction.
    """

    def __init__(self, caller: Caller, options: ProducerOptions) -> None:
        self._caller = caller
        self._request_timeout_ms = options.request_timeout_ms
        self._machine = Transacting(options)
        self._producer = AsyncProducer(caller, options, self._machine.on_done, self._refuse_commit)
        self._batching = self._producer._batching
        self._batching.accumulator.suspend(
            PlanariaError("publish within a transaction: async with producer.transaction() as tx")
        )
        self._turns = Turns(caller.bridge.loop)
        """Taken while an identity is claimed."""
        self._current: AsyncTransaction | None = None
        self._refusal: Exception | None = None
        """The reason why the present transaction cannot commit."""
        self._is_closed = False

    @property
    def transactional_id(self) -> str:
        """The id that it was created with."""
        return self._machine.transactional_id

    def transaction(self) -> "AsyncTransaction":
        """Return a transaction, which begins where it is entered, or awaited.

        Beginning raises ProducerFenced when another producer has the transactional id, TimedOut, or Closed.
        """
        self._refuse_when_closed()
        return AsyncTransaction(self)

    async def claim(self) -> None:
        """Take the transactional id now and end the open transaction of an earlier holder. Otherwise the
        first transaction does.

        For programs that read before they write: an open transaction may keep the offsets that they start
        from unreadable. Raises as the beginning of a transaction does.
        """
        self._refuse_when_closed()
        await self._turns.take()
        try:
            await self._claim()
        finally:
            self._turns.pass_on()

    def _refuse_when_closed(self) -> None:
        self._caller.network.refuse_when_closed()
        if self._is_closed:
            raise Closed("the producer is closed")

    async def _claim(self) -> None:
        call = self._machine.claim()
        if call is None:
            return
        try:
            reply = (await self._caller.exchange(call, self)).reply
        except BaseException as error:
            self._machine.on_claim_failed(error)
            raise
        self._machine.on_claimed(reply)

    # Called by the transaction.

    async def _begin(self, transaction: "AsyncTransaction") -> None:
        self._refuse_when_closed()
        await self._turns.take()
        try:
            self._machine.refuse_while_open()
            await self._claim()
            self._refuse_when_closed()
            self._refusal = None
            self._current = transaction
            self._batching.begin(self._machine.begin())
        finally:
            self._turns.pass_on()

    def _refuse_commit(self, error: Exception) -> None:
        self._refusal = self._refusal or error

    async def _commit_offsets(self, request: CommitOffsets) -> None:
        call = commit_call(self._machine.offsets(request), self._request_timeout_ms)
        try:
            await self._caller.exchange(call)
        except PlanariaError:
            raise
        except BaseException:  # cancelled: whether the offsets are part of it is not known
            self._refuse_commit(PlanariaError("commit_offsets was cancelled"))
            raise

    async def _commit(self) -> None:
        try:
            await self._producer._settle_early()
        except BaseException:
            with self._caller.bridge.loop.shield(), suppress(PlanariaError):
                await self._abort()
            raise
        refusal = self._refusal
        if refusal is None:
            await self._end(is_commit=True)
            return
        with suppress(PlanariaError):
            await self._abort()
        if self._machine.state == "fenced":
            self._machine.claim()  # raises ProducerFenced
        raise aborted_by(refusal)

    async def _abort(self) -> None:
        self._producer._refuse_early(PlanariaError("the transaction was aborted"))
        await self._end(is_commit=False)

    async def _end(self, *, is_commit: bool) -> None:
        """End the transaction once every message is acknowledged. Raises the error that prevented it."""
        self._current = None
        self._batching.accumulator.suspend(PlanariaError("the transaction has ended"))
        self._machine.end(is_commit=is_commit)
        try:
            if not is_commit:
                await self._drop()
            reply = (await self._conclude()).reply
        except BaseException as error:
            explained = self._machine.on_end_failed(error)
            if explained is error:
                raise
            raise explained  # noqa: B904 - it has its cause
        self._machine.on_ended(reply)

    async def _conclude(self) -> Answered:
        """Wait until all messages are done, and for the reply to the request that then ends the transaction."""
        try:
            return await self._caller.outcome(
                self._batching.bridge, lambda waiter: Concluded(waiter, self._machine.end_call)
            )
        except PlanariaError:
            raise
        except BaseException:
            with self._caller.bridge.loop.shield():
                await self._drop()
            raise

    async def _drop(self) -> None:
        """Fail all messages that are not done, and wait for that."""
        self._caller.network.post(self._batching.bridge, Posted.DROPPED)
        for batch in self._batching.accumulator.unfinished():
            await self._caller.finish(batch)

    async def close(self, timeout: Duration | None = None) -> None:
        """Abort the open transaction, and refuse further ones.

        `timeout` (seconds or a timedelta; None: without limit) bounds the wait for the broker. Raises TimedOut.
        """
        if self._is_closed:
            return
        self._caller.bridge.loop.check()
        self._is_closed = True
        self._caller.network.end_calls(self)
        current = self._current
        if current is not None:
            await current.abort()
        await self._producer.close(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._caller.bridge.loop.shield():
            if kind is None:
                await self.close()
                return
            with suppress(PlanariaError):  # the exception that left the block is the one to report
                await self.close()


class AsyncTransaction:
    """Committed at the end of its `async with` block, aborted by an exception or a cancellation that leaves the block."""

    def __init__(self, producer: AsyncTransactionalProducer) -> None:
        self._owner = producer
        self._has_begun = self._has_ended = False

    def publish_nowait(self, topic: str, value: Any, **details: Unpack[MessageDetails]) -> PublishHandle:
        """Hand a message over, and return at once. `await handle` waits until the broker has it.

        The arguments are those of `Transaction.publish`. A message that fails, also one to a topic that does not exist,
        makes the transaction abort. Raises BufferFull, InvalidOption, and PlanariaError when the transaction has ended.
        Do not use a reference to `tx.publish_nowait` after the end: it publishes in the transaction that is open then.
        """
        self._refuse_unless_open()
        raise NotImplementedError  # the producer's method is bound in its place while the transaction is open

    async def publish(self, topic: str, value: Any, **details: Unpack[MessageDetails]) -> RecordMetadata:
        """Publish a message and wait until the broker has it. It takes effect once the transaction commits.

        A full buffer suspends the caller until there is room. A cancelled call may have published its message.
        """
        producer = self._owner._producer

        def hand_over() -> PublishHandle:
            self._refuse_unless_open()
            return producer.publish_nowait(topic, value, **details)

        return await producer._publish_with_room(hand_over)

    async def _hand_over(self, topic: str, value: Any, **options: Any) -> None:
        """Hand a message over once there is room. One that fails makes the transaction abort."""
        producer = self._owner._producer
        await producer._handed_over(lambda: self.publish_nowait(topic, value, **options))

    async def commit_offsets(
        self,
        consumer: AsyncConsumer,
        offsets: GivenOffsets | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Commit the given offsets, or those after the consumer's returned messages, if and when the transaction
        commits.

        Raises CommitFailed when the partitions are no longer its member's; then the transaction can only abort. The same
        holds after a cancellation.
        """
        self._refuse_unless_open()
        request = await consumer._commit_for_transaction(offsets, metadata)
        self._refuse_unless_open()
        if request is not None:
            await self._owner._commit_offsets(request)

    async def commit(self) -> None:
        """Wait for every message, then commit. Once this returns the transaction is durable.

        Raises TransactionAborted when a part failed or it timed out, TransactionUncertain when no reply arrived,
        ProducerFenced when another producer has the transactional id. Cancelled, it may have committed or not.
        """
        self._refuse_unless_open()
        self._close()
        await self._owner._commit()

    async def abort(self) -> None:
        """Abort: none of it will be read. A transaction that has ended is unchanged."""
        if self._has_ended or not self._has_begun:
            return
        self._close()
        await self._owner._abort()

    def _close(self) -> None:
        self._has_ended = True
        self.__dict__.pop("publish_nowait", None)

    def _refuse_unless_open(self) -> None:
        if self._has_ended:
            raise PlanariaError("the transaction has ended")
        if not self._has_begun:
            raise PlanariaError("the transaction has not begun: async with producer.transaction() as tx")

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._has_begun:
            raise PlanariaError("the transaction has begun already")
        await self._owner._begin(self)
        # Replaces the method of this name until the end, as in the transaction for threads.
        self.__dict__["publish_nowait"] = self._owner._producer.publish_nowait
        self._has_begun = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._has_ended:
                await self.commit()
            return
        with self._owner._caller.bridge.loop.shield(), suppress(PlanariaError):
            await self.abort()
