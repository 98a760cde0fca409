"""The consumer of a share group, for threads: posts to its machine, waits for outcomes, returns messages.

The machine (`sharing.py`) decides which requests are sent, and when. The program's threads and the network thread call it
under one lock. Records are fetched from their partitions, not through the coordinator, and opened in the program's
thread (`acquired.py`). Called by programs.
"""

import atexit
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Literal, Self

from ..calls.connections import Owner
from ..calls.events import Withdrawn
from ..machine import Effect, Event
from ..protocol.errors import PlanariaError, ProtocolError
from ..protocol.shares import AcquiredRange
from ..tracing import receiving
from .acknowledgements import Refused
from .acquired import Acquisition
from .errors import TimedOut
from .exit_flush import EXIT_FLUSH_S
from .network import Network
from .options import Duration, check_count, wait_limit_s
from .rounds import EndAsked, FlushAsked, RenewAsked
from .share_member import ShareMember, SharePoll
from .share_messages import ShareMessage, ShareOptions, locked


class ShareConsumer(ShareMember[ShareMessage]):
    """Consumes records of a work queue. `poll` and `close` for one thread; acknowledgements and `stop` from any."""

    def __init__(self, network: Network, group: str, topics: list[str], options: ShareOptions) -> None:
        super().__init__(network, group, topics, options)
        self._waits = _StoppableWaits(network)

    # Acquiring.

    @receiving
    def poll(self, timeout: Duration | None = 1.0, max_messages: int = 500) -> list[ShareMessage]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        Messages that a loop over the consumer has not yielded come first. While the broker, the group or a partition
        is unreachable no messages come, as with a Consumer. Permanent errors are raised.
        """
        self._refuse_when_closed()
        check_count("max_messages", max_messages)
        if self._waits.is_stopped:
            return []
        poll = SharePoll(wait_limit_s(timeout), self._network.now_ms())
        if left := self._begin_poll(max_messages):
            return left
        while not self.is_stopped:
            wait_ms = poll.wait_ms(self._network.now_ms())
            try:
                found = self._acquire(max_messages, wait_ms)
            except ProtocolError as error:
                found = []
                self._waits.ended.wait(poll.pause_s(error, wait_ms))
            self._refuse_when_closed()  # the thread that closed it has released records acquired meanwhile
            if found or poll.is_over(self._network.now_ms()):
                return found
        return []

    def stop(self) -> None:
        """End a loop over this consumer after its current message; `poll` then returns an empty list at once.

        Safe in a signal handler and from other threads. Messages stay locked to the consumer until `close`.
        """
        self._waits.stop()

    @property
    def is_stopped(self) -> bool:
        """True once `stop` was called."""
        return self._waits.is_stopped

    def __iter__(self) -> Iterator[ShareMessage]:
        """Yield messages until `stop`, acquiring at most one beyond the current one. The next poll returns
        messages not yielded.

        If no poll follows within a third of the lock time, such a message is released, without counting an
        attempt. With `acknowledge` "implicit" a message is accepted when the next one is requested, or by the
        next poll or `close`.
        """
        while not self._has_ended():
            messages = self.poll(None, max_messages=2)
            with self._lock:
                unread = self._machine.loop.begin(messages)
            try:
                while self._machine.loop.has(unread) and not self._has_ended():
                    message = unread.popleft()
                    yield message
                    with self._lock:
                        self._machine.yielded(message)
            finally:
                with self._lock:
                    self._machine.end_loop(unread, self._network.now_ms())
                self._post()

    def _has_ended(self) -> bool:
        return self._is_closed or self._waits.is_stopped

    def _acquire(self, count: int, wait_ms: int) -> list[ShareMessage]:
        ahead = self._take_ahead(count)
        found = self._read(ahead) if ahead else []
        if not found and (ranges := self._request(count, wait_ms)):
            found = self._read(ranges)
        return found

    def _request(self, count: int, wait_ms: int) -> list[AcquiredRange]:
        """Send the pending acknowledgements, and acquire. Return the ranges."""
        asked_at = self._network.now_ms()
        call = self._acquire_call(count, wait_ms, asked_at, is_waiting=True)
        return self._acquired(self._network.exchange(call, self._waits).reply, asked_at)

    def _read(self, ranges: list[AcquiredRange]) -> list[ShareMessage]:
        acquisition = Acquisition(self._stretches, ranges, self._options.max_bytes)
        try:
            while (fetch := acquisition.advance()) is not None:
                try:
                    acquisition.handle(self._network.exchange(fetch))
                except ProtocolError as error:
                    acquisition.handle(error)
        except BaseException:  # any exception: the program does not receive these records
            acquisition.release(ranges)
            raise
        finally:
            self._settle_ranges(acquisition.verdicts)
        return [
            locked(ShareMessage, message, delivery_count, self)
            for message, delivery_count in acquisition.found
        ]

    def _ask(self, event_for: Callable[[Owner], Event]) -> None:
        """Have the machine do something on the network thread, and wait for its outcome."""
        self._network.outcome(self._owner, event_for)

    # Acknowledging.

    def acknowledge(
        self,
        messages: Iterable[ShareMessage],
        verdict: Literal["accept", "release", "fail", "reject"] = "accept",
        *,
        delay: timedelta | float = 0.0,
        reason: str = "",
    ) -> None:
        """Acknowledge messages. Sent with the next poll, `flush` or `close`, or after a moment at the latest.

        Raises InvalidOption, and PlanariaError for a message that this consumer does not hold; all others count.
        """
        self._acknowledge(messages, verdict, delay, reason)

    def flush(self) -> list[Refused]:
        """Send the pending acknowledgements. Return those that came too late since the last call."""
        self._refuse_when_closed()
        self._ask(FlushAsked)
        return self._take_refused()

    def renew(self) -> None:
        """Lock all held messages for another `lock_ms`. Happens automatically unless the option `renew` is False."""
        self._refuse_when_closed()
        self._ask(RenewAsked)

    # Closing.

    def close(self) -> None:
        """Send the acknowledgements and release all held messages, so that other members can acquire them at once.

        With `acknowledge` "implicit" all returned messages that a loop has not left unread count as accepted.
        """
        if self._is_closed or self._network.is_lost:
            return
        if self._options.acknowledge == "implicit":
            with self._lock:
                self._machine.accept_held()
        self._end()

    def _flush_at_exit(self) -> None:
        """Send the acknowledgements of a program that exits without `close`; release the rest, without a charge."""
        if self._is_closed or self._network.is_lost or not self._network.is_running:
            return
        timeout_ms = min(self._options.request_timeout_ms, int(EXIT_FLUSH_S * 1000))
        with suppress(PlanariaError):
            self._end(timeout_ms)

    def _end(self, timeout_ms: int | None = None) -> None:
        atexit.unregister(self._flush_at_exit)
        self._is_closed = True
        self._waits.ended.set()
        with self._lock:
            self._machine.close()
        timeout_ms = timeout_ms or self._options.request_timeout_ms
        try:
            self._ask(lambda owner: EndAsked(owner, timeout_ms))
        finally:
            self._network.post(self._network.owner, Withdrawn(self._owner))
            self._network.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._is_closed and not self._network.is_lost:
            with suppress(ProtocolError):  # the exception that left the block is the one to report
                self._end()


class _StoppableWaits:
    """The requester of requests that end once `stop` is called, and the pauses between them, which end then, too.

    A signal handler may call `stop`. It runs between any two instructions of the main thread, which may hold any lock: so
    `stop` only sets a flag and posts to the network thread, which wakes the waiting thread.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self.is_stopped = False
        self.ended = threading.Event()
        """Set when a pause is to end."""

    def stop(self) -> None:
        """End the present request and all later ones. Takes no lock."""
        self.is_stopped = True
        self._network.end_calls(self)
        self._network.post(self, None)

    def _refuse_when_closed(self) -> None:
        """Raise TimedOut once stopped; called for each request before it is sent."""
        if self.is_stopped:
            raise TimedOut("stopped")

    def handle(self, event: Event, now: int) -> list[Effect]:
        """End a pause. Runs in the network thread."""
        self.ended.set()
        return []
