"""The consumer of a share group, for tasks: `client.work`.

Its machine is that of the consumer for threads (`client/sharing.py`): it acknowledges, renews locks and leaves the group
on the network thread. Any number of tasks take messages from one consumer; one of them at a time asks the broker, for
those that wait as well. A request for messages outlives the poll that made it: when the poll is cancelled the next one
takes the answer, and without one its messages are released at once, so no cancellation keeps a message locked.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Literal, Self

from ..calls.connections import Owner
from ..calls.events import Submitted, Withdrawn
from ..client.acknowledgements import Refused
from ..client.acquired import Acquisition, released
from ..client.errors import Closed
from ..client.messages import Message
from ..client.options import Duration, InvalidOption, check_count, wait_limit_s
from ..client.rounds import EndAsked, FlushAsked, RenewAsked
from ..client.share_member import ShareMember, SharePoll
from ..client.share_messages import ShareOptions, locked, verdict_of
from ..client.waiting import Waiter
from ..machine import Event
from ..protocol.errors import ProtocolError
from ..protocol.shares import AcquiredRange
from ..tracing import receiving_async
from .calls import Caller
from .loops import Flag, Turns


class AsyncShareMessage(Message, frozen=True, gc=False, kw_only=True):
    """A message that is locked to this consumer until it is acknowledged.

    `async with message:` accepts it when the block ends. When the block raises, the message fails with the exception as
    the reason; `Release` and `Reject` release and reject it, and a cancellation releases it. The exception propagates.
    An acknowledgement made within the block takes precedence.
    """

    delivery_count: int
    """1 for the first delivery."""
    _consumer: "AsyncShareConsumer"

    async def accept(self) -> None:
        """Accept the message: it is done and is never delivered again.

        This and the calls below raise PlanariaError for a message that is acknowledged or whose lock has expired, and
        Closed. They do not wait: acknowledgements are sent with the next `poll` or `flush`, at the end of the block, or
        within a moment.
        """
        await self._consumer.acknowledge([self], "accept")

    async def release(self) -> None:
        """Release the message: another member may receive it at once, and this delivery does not count as
        an attempt."""
        await self._consumer.acknowledge([self], "release")

    async def fail(self, delay: timedelta | float = 0.0, reason: str = "") -> None:
        """Fail the message: it is delivered again after `delay` (seconds or a timedelta), or dead-lettered after the
        last attempt, with the reason."""
        await self._consumer.acknowledge([self], "fail", delay=delay, reason=reason)

    async def reject(self, reason: str = "") -> None:
        """Reject the message: it is dead-lettered, because no further attempt can help."""
        await self._consumer.acknowledge([self], "reject", reason=reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer._settle(self, *verdict_of(error))


class AsyncShareConsumer(ShareMember[AsyncShareMessage]):
    """Consumes messages of a work queue, in any number of tasks of one event loop. An async context manager and iterator.

    Leaving the block sends the acknowledgements, releases all held messages, and ends iterators in other tasks with
    StopAsyncIteration.
    """

    def __init__(self, caller: Caller, group: str, topics: list[str], options: ShareOptions) -> None:
        if options.acknowledge != "explicit":
            raise InvalidOption("acknowledge: only 'explicit' for tasks; `async with message:` accepts it")
        super().__init__(caller.network, group, topics, options)
        self._caller = caller
        self._turns = Turns(caller.bridge.loop)
        self._wake = Flag(caller.bridge)
        """Set when the task that has the turn is to look again."""
        self._acquiring: _Acquiring | None = None
        self._is_stopped = False

    # Acquiring.

    @receiving_async
    async def poll(self, timeout: Duration | None = None, max_messages: int = 500) -> list[AsyncShareMessage]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        While the broker, the group or a partition is unreachable no messages come, as with a Consumer. Permanent errors
        are raised. A cancelled poll keeps no message locked.
        """
        self._refuse_when_closed()
        check_count("max_messages", max_messages)
        return await self._poll(wait_limit_s(timeout), max_messages)

    def __aiter__(self) -> Self:
        """Yield messages until `stop` or the end of the block. Each is to be acknowledged.

        A task acquires at most one message beyond its own, and one for each task that waits for its next; if no task
        takes such a message within a third of the lock time it is released, without counting an attempt.
        """
        return self

    async def __anext__(self) -> AsyncShareMessage:
        if self._is_closed:
            raise StopAsyncIteration
        try:
            found = await self._poll(None, 1, is_loop=True)
        except Closed:
            raise StopAsyncIteration from None
        if not found:
            raise StopAsyncIteration
        return found[0]

    def stop(self) -> None:
        """End iterators after their current message; `poll` then returns an empty list at once.

        Call it from a task, or from a handler of `loop.add_signal_handler`. Messages stay locked to the consumer until
        the end of the block.
        """
        self._is_stopped = True
        self._wake.set_here()

    @property
    def is_stopped(self) -> bool:
        """True once `stop` was called."""
        return self._is_stopped

    async def _poll(
        self, limit_s: float | None, count: int, *, is_loop: bool = False
    ) -> list[AsyncShareMessage]:
        poll = SharePoll(limit_s, self._network.now_ms())
        try:
            if not await self._turns.take(limit_s):
                return []
            try:
                return await self._poll_in_turn(poll, count, is_loop=is_loop)
            finally:
                self._turns.pass_on()
        finally:
            self._release_answer()

    async def _poll_in_turn(self, poll: SharePoll, count: int, *, is_loop: bool) -> list[AsyncShareMessage]:
        while not self._is_stopped:
            self._refuse_when_closed()
            if left := self._begin_poll(count):
                return left
            wait_ms = poll.wait_ms(self._network.now_ms())
            wanted = count + 1 + len(self._turns) if is_loop else count
            try:
                found = await self._acquire(wanted, wait_ms)
            except ProtocolError as error:
                found = []
                await self._pause(poll.pause_s(error, wait_ms))
            self._refuse_when_closed()  # the task that closed it has released records acquired meanwhile
            if found or poll.is_over(self._network.now_ms()):
                self._keep(found[count:])
                return found[:count]
        return []

    async def _pause(self, wait_s: float) -> None:
        self._wake.clear()
        if not (self._is_closed or self._is_stopped):
            await self._wake.wait(wait_s)

    def _keep(self, unread: list[AsyncShareMessage]) -> None:
        """Keep messages for the next poll."""
        with self._lock:
            self._machine.end_loop(self._machine.loop.begin(unread), self._network.now_ms())
        self._post()

    async def _acquire(self, count: int, wait_ms: int) -> list[AsyncShareMessage]:
        ahead = self._take_ahead(count) if self._acquiring is None else []
        found = await self._read(ahead) if ahead else []
        if not found and (ranges := await self._request(count, wait_ms)):
            found = await self._read(ranges)
        return found

    async def _request(self, count: int, wait_ms: int) -> list[AcquiredRange]:
        """Send the pending acknowledgements, and acquire. Return the ranges."""
        acquiring = self._acquiring
        # The broker answers a new request within that time.
        limit_s = None if acquiring is None else wait_ms / 1000
        if acquiring is None:
            acquiring = self._begin_acquiring(count, wait_ms)
        while acquiring.event is None:
            self._wake.clear()
            if self._is_stopped or self._is_closed or not await self._wake.wait(limit_s):
                return []
        return self._take_answer(acquiring)

    def _begin_acquiring(self, count: int, wait_ms: int) -> "_Acquiring":
        asked_at = self._network.now_ms()
        call = self._acquire_call(count, wait_ms, asked_at)
        acquiring = _Acquiring(partial(self._caller.bridge.post, self._on_answer), asked_at)
        try:
            self._network.begin(acquiring, self._network.owner, Submitted(acquiring, call))
        except BaseException:
            self._network.abandon(acquiring)
            raise
        self._acquiring = acquiring
        return acquiring

    def _on_answer(self) -> None:
        self._wake.set_here()
        self._release_answer()

    def _release_answer(self) -> None:
        """Release messages that were acquired for a poll that was cancelled, unless another one takes them."""
        acquiring = self._acquiring
        if acquiring is None or acquiring.event is None or self._turns.is_taken:
            return
        with suppress(ProtocolError, Closed):  # the next poll asks again, and raises its own error
            self._settle_ranges(released(self._take_answer(acquiring)))

    def _take_answer(self, acquiring: "_Acquiring") -> list[AcquiredRange]:
        self._acquiring = None
        self._network.abandon(acquiring)
        return self._acquired(self._network.answer_to(acquiring).reply, acquiring.asked_at)

    async def _read(self, ranges: list[AcquiredRange]) -> list[AsyncShareMessage]:
        acquisition = Acquisition(self._stretches, ranges, self._options.max_bytes)
        try:
            while (fetch := acquisition.advance()) is not None:
                try:
                    acquisition.handle(await self._caller.exchange(fetch))
                except ProtocolError as error:
                    acquisition.handle(error)
        except BaseException:  # any exception or cancellation: the program does not receive these records
            acquisition.release(ranges)
            raise
        finally:
            self._settle_ranges(acquisition.verdicts)
        return [locked(AsyncShareMessage, message, count, self) for message, count in acquisition.found]

    async def _ask(self, event_for: Callable[[Owner], Event]) -> None:
        """Have the machine do something on the network thread, and wait for its outcome."""
        await self._caller.outcome(self._owner, event_for)

    # Acknowledging.

    async def acknowledge(
        self,
        messages: Iterable[AsyncShareMessage],
        verdict: Literal["accept", "release", "fail", "reject"] = "accept",
        *,
        delay: timedelta | float = 0.0,
        reason: str = "",
    ) -> None:
        """Acknowledge messages. Sent with the next poll or `flush`, at the end of the block, or within a moment.

        Raises InvalidOption, and PlanariaError for a message that this consumer does not hold; all others count.
        """
        self._acknowledge(messages, verdict, delay, reason)

    async def flush(self) -> list[Refused]:
        """Send the pending acknowledgements. Return those that came too late since the last call."""
        self._refuse_when_closed()
        await self._ask(FlushAsked)
        return self._take_refused()

    async def renew(self) -> None:
        """Lock all held messages for another `lock_ms`. Happens automatically unless the option `renew` is False."""
        self._refuse_when_closed()
        await self._ask(RenewAsked)

    # Closing.

    async def close(self) -> None:
        """Send the acknowledgements and release all held messages, so that other members can acquire them at once."""
        if self._is_closed:
            return
        self._caller.bridge.loop.check()
        self._is_closed = True
        self._wake.set_here()  # ends a poll in another task
        acquiring, self._acquiring = self._acquiring, None
        if acquiring is not None:
            self._network.abandon(acquiring)
        with self._lock:
            self._machine.close()
        try:
            await self._ask(lambda owner: EndAsked(owner, self._options.request_timeout_ms))
        finally:
            self._network.post(self._network.owner, Withdrawn(self._owner))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._caller.bridge.loop.shield():
            if kind is None:
                await self.close()
                return
            with suppress(ProtocolError):  # the exception that left the block is the one to report
                await self.close()


class _Acquiring(Waiter):
    """A request for messages, which outlives the poll that made it."""

    def __init__(self, notify: Callable[[], None], asked_at: int) -> None:
        super().__init__(notify)
        self.asked_at = asked_at
