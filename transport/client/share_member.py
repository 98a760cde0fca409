"""A member of a share group without the calls that wait: the common part of its two shells.

It has the machine, which two threads call, under its lock: each step of a poll, and the verdicts, which are recorded and
posted. The base of the share consumers for threads (`share_consumer.py`) and for tasks (`transport/aio/work.py`).
"""

import random
import threading
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Generic, cast

from .. import tracing
from ..calls.retry import RetryPolicy
from ..codec import sendable
from ..machine import Call, Effect, Event
from ..protocol.errors import ProtocolError
from ..protocol.shares import AcquiredRange, AcquireReply, Verdict
from .acknowledgements import ACCEPTED, RELEASED, Delivered, Refused, Said
from .acquired import RangeVerdict, Stretches
from .errors import Closed, TimedOut
from .network import Network
from .options import InvalidOption
from .schedule import milliseconds_of
from .share_messages import ShareOptions
from .sharing import MessageT, Sharing

MAX_WAIT_MS = 30_000
"""Longest time that a request waits for records; a poll makes several."""
_RETRY = RetryPolicy()


class LockedMachine(Generic[MessageT]):
    """The machine on the network thread, under the lock of its consumer."""

    def __init__(self, machine: Sharing[MessageT], lock: threading.Lock) -> None:
        self._machine = machine
        self._lock = lock

    def handle(self, event: Event, now: int) -> list[Effect]:
        with self._lock:
            return self._machine.handle(event, now)


class ShareMember(Generic[MessageT]):
    """Takes verdicts, and the steps of a poll."""

    def __init__(self, network: Network, group: str, topics: list[str], options: ShareOptions) -> None:
        self._network = network
        self._group = group
        self._options = options
        member_id = options.member_id or f"{group}-{uuid.uuid4().hex[:12]}"
        self._machine: Sharing[MessageT] = Sharing(group, topics, member_id, options, network.now_ms())
        self._lock = threading.Lock()
        """Held for each call of the machine, never while waiting."""
        self._owner = LockedMachine(self._machine, self._lock)
        self._stretches = Stretches(options.request_timeout_ms)
        self._is_closed = False

    # The steps of a poll.

    def _begin_poll(self, count: int) -> list[MessageT]:
        """Return at most `count` messages that a loop has left."""
        with self._lock:
            left = self._machine.begin_poll(count, self._network.now_ms())
        self._post()
        return left

    def _take_ahead(self, count: int) -> list[AcquiredRange]:
        """Return ranges that a flush has acquired for this poll."""
        with self._lock:
            return self._machine.take_ahead(count, self._network.now_ms())

    def _acquire_call(self, count: int, wait_ms: int, asked_at: int, *, is_waiting: bool = False) -> Call:
        """Send the pending verdicts. Return the request for records."""
        with self._lock:
            call = self._machine.acquire(count, wait_ms, asked_at)
        self._post(is_waiting=is_waiting)
        return call

    def _acquired(self, reply: AcquireReply, asked_at: int) -> list[AcquiredRange]:
        """Hold the records of the reply, and return their ranges."""
        with self._lock:
            self._machine.acquired(reply, asked_at)
        self._post()
        return reply.ranges or []

    def _settle_ranges(self, verdicts: Sequence[RangeVerdict]) -> None:
        """Record verdicts about those of the records that are still held."""
        with self._lock:
            self._machine.settle(verdicts)
        self._post()

    def _take_refused(self) -> list[Refused]:
        with self._lock:
            return self._machine.holdings.take_refused()

    # Verdicts.

    def _acknowledge(
        self, messages: Iterable[Delivered], verdict: Verdict, delay: timedelta | float, reason: str
    ) -> None:
        given = list(messages)
        if tracing.active is None:
            self._say(given, verdict, delay, reason)
            return
        with tracing.active.settling(verdict, self, given):
            self._say(given, verdict, delay, reason)

    def _say(
        self, messages: Sequence[Delivered], verdict: Verdict, delay: timedelta | float, reason: str
    ) -> None:
        self._refuse_when_closed()
        # Most verdicts have neither delay nor reason, and are given message by message.
        is_plain = reason == "" and type(delay) is float and delay == 0.0 and type(verdict) is str
        said = _PLAIN.get(verdict) if is_plain else None
        if said is None:
            said = _checked(verdict, delay, reason)
        machine = self._machine
        try:
            with self._lock:
                machine.acknowledge(messages, said)
        finally:
            if machine.posts:
                self._post()

    def _settle(self, message: Delivered, verdict: Verdict, reason: str = "") -> None:
        """Like `_acknowledge`; do nothing if the message is acknowledged, the consumer closed, or the lock lost."""
        if self._is_closed:
            return
        self._network.refuse_when_closed()
        said = Said(verdict, 0, sendable(reason)[:1_000], message.delivery_count)
        self._settle_ranges([(message.topic_partition, (message.offset,), said)])

    def _post(self, *, is_waiting: bool = False) -> None:
        """Post the machine's events. `is_waiting`: the calling thread waits in its next step."""
        posts = self._machine.posts
        while posts:
            with suppress(IndexError):  # another thread has posted it
                self._network.post(self._owner, posts.popleft(), is_waiting=is_waiting)

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Closed("the share consumer is closed")
        self._network.refuse_when_closed()


class SharePoll:
    """The times of one poll: of its requests, of the pauses after failures, and of its end."""

    def __init__(self, limit_s: float | None, now: int) -> None:
        self._give_up_at = None if limit_s is None else now + int(limit_s * 1000)
        self._failures = 0

    def wait_ms(self, now: int) -> int:
        """Return how long the next request may wait for records."""
        return MAX_WAIT_MS if self._give_up_at is None else max(0, min(self._give_up_at - now, MAX_WAIT_MS))

    def pause_s(self, error: ProtocolError, wait_ms: int) -> float:
        """Return the pause after a request that failed. Raises the error if it will not pass."""
        if not (error.retriable or isinstance(error, TimedOut)):
            raise error
        self._failures += 1
        return min(_RETRY.delay_ms(self._failures, random.random), wait_ms) / 1000

    def is_over(self, now: int) -> bool:
        return self._give_up_at is not None and now >= self._give_up_at


def _checked(verdict: Any, delay: timedelta | float, reason: Any) -> Said:
    if not isinstance(verdict, str) or verdict not in _PLAIN:
        raise InvalidOption(f"verdict: {verdict!r} is unknown; choose one of {', '.join(_PLAIN)}")
    if not isinstance(reason, str):
        raise InvalidOption(f"reason: must be text, not {reason!r}")
    return Said(cast("Verdict", verdict), milliseconds_of(delay), sendable(reason)[:1_000])


_PLAIN: dict[str, Said] = {
    "accept": ACCEPTED,
    "release": RELEASED,
    "fail": Said("fail", 0, ""),
    "reject": Said("reject", 0, ""),
}
