"""The consumer of a share group: single records under locks, acknowledged individually. Blocks the program's thread.

Owns the member's held messages and its pending acknowledgements. A background thread sends those acknowledgements and
renews the locks, so that neither depends on the time of the program's next poll. Records are fetched from their
partitions, not through the coordinator, and a batch is fetched once however many polls it serves (`acquired.py`).
Called by programs.

    poll      send acknowledgements, acquire, fetch           accept, release, fail, reject     queue an acknowledgement
    flush     send acknowledgements, return refused ones      close     send acknowledgements, release held messages
"""

import random
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Literal, Self

from msgspec import structs

from ..addresses import GATEWAY, TopicPartition
from ..calls.retry import RetryPolicy
from ..codec import sendable
from ..machine import Call
from ..protocol.errors import ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import LeaveGroup
from ..protocol.message import Done
from ..protocol.shares import (
    MAX_LOCKED,
    Acknowledge,
    Acknowledgement,
    AcknowledgeReply,
    Acquire,
    AcquiredRange,
    AcquireReply,
    Verdict,
)
from .acknowledgements import ACCEPTED, RELEASED, Said, merged, single
from .acquired import RangeReader, damage_end, is_unreadable
from .errors import Closed, TimedOut
from .exit_flush import EXIT_FLUSH_S, not_at_exit
from .messages import Message
from .network import Network
from .options import Duration, InvalidOption, check_count, wait_limit_s
from .schedule import milliseconds_of
from .share_messages import Refused, ShareMessage, ShareOptions, locked
from .stopping import StoppableWaits

MAX_WAIT_MS = 30_000
LEAVE_TIMEOUT_MS = 2_000
SEND_EVERY_S = 0.1
SEND_AT = 10_000
"""Pending acknowledgements are sent at the latest at this number, which also bounds one request."""


class ShareConsumer:
    """Consumes records of a work queue. `poll` and `close` for one thread; acknowledgements and `stop` from any."""

    def __init__(self, network: Network, group: str, topics: list[str], options: ShareOptions) -> None:
        self._group = group
        self._member_id = options.member_id or f"{group}-{uuid.uuid4().hex[:12]}"
        self._network = network
        self._topics = topics
        self._options = options
        self._ranges = RangeReader(network, options.request_timeout_ms)
        self._lock = threading.Lock()
        """Guards the tables below. Never held during a request to the broker."""
        self._sending = threading.Lock()
        """Held while a request of acknowledgements is in flight: one at a time."""
        self._held: dict[TopicPartition, set[int]] = {}
        self._said: dict[TopicPartition, dict[int, Said]] = {}
        self._unread: deque[ShareMessage] = deque()
        """Messages that a loop has acquired and not yielded; held, and never accepted unseen."""
        self._left_at: float | None = None
        """The time at which the loop over them was left."""
        self._waiting = 0
        self._refused: list[Refused] = []
        self._lock_ms = options.lock_ms or 30_000
        self._renew_at = 0.0
        self._polled_at = monotonic()
        self._is_closed = False
        self._has_acquired = False
        self._wake = threading.Event()
        self._waits = StoppableWaits(network)
        self._thread: threading.Thread | None = None

    # Acquiring.

    def poll(self, timeout: Duration | None = 1.0, max_messages: int = 500) -> list[ShareMessage]:
        """Return at most `max_messages`, or an empty list after `timeout` (seconds or a timedelta; None: no limit).

        Messages that a loop over the consumer has not yielded come first. While the broker, the group or a partition
        is unreachable no messages come, as with a Consumer. Permanent errors are raised.
        """
        self._refuse_when_closed()
        check_count("max_messages", max_messages)
        self._polled_at = monotonic()
        if self._waits.is_stopped:
            return []
        if self._options.acknowledge == "implicit":
            self._accept_held()
        if unread := self._take_unread(max_messages):
            return unread
        limit_s = wait_limit_s(timeout)
        give_up_at = None if limit_s is None else monotonic() + limit_s
        failures = 0
        while not self.is_stopped:
            self._polled_at = monotonic()
            left_ms = MAX_WAIT_MS if give_up_at is None else int(max(0.0, give_up_at - monotonic()) * 1000)
            wait_ms = min(left_ms, MAX_WAIT_MS)
            try:
                self._send(retry_timeout_ms=wait_ms)
                found = self._acquire(min(max_messages, MAX_LOCKED), wait_ms)
            except ProtocolError as error:
                if not (error.retriable or isinstance(error, TimedOut)):
                    raise
                found = []
                failures += 1
                pause_s = _RETRY.delay_ms(failures, random.random) / 1000
                self._waits.ended.wait(pause_s if give_up_at is None else min(pause_s, left_ms / 1000))
            self._refuse_when_closed()  # the thread that closed it has released records acquired meanwhile
            if found or (give_up_at is not None and monotonic() >= give_up_at):
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
            unread = deque(self.poll(None, max_messages=2))
            with self._lock:
                unread.extend(self._unread)
                self._unread, self._left_at = unread, None
            try:
                while unread and self._unread is unread and not self._has_ended():
                    message = unread.popleft()
                    yield message
                    if self._options.acknowledge == "implicit":
                        self._say(message.topic_partition, (message.offset,), ACCEPTED)
            finally:
                with self._lock:
                    self._left_at = monotonic() if unread and self._unread is unread else None

    def _has_ended(self) -> bool:
        return self._is_closed or self._waits.is_stopped

    def _take_unread(self, count: int) -> list[ShareMessage]:
        with self._lock:
            left = [each for each in self._unread if self._is_held(each)]
            self._unread = deque(left[count:])
            self._left_at = monotonic() if self._unread else None
            return left[:count]

    def _is_held(self, message: ShareMessage) -> bool:
        return message.offset in self._held.get(message.topic_partition, ())

    def _release_unread(self) -> None:
        """Release messages not yielded, of a program that has left a loop and does not return."""
        with self._lock:
            is_due = self._left_at is not None and monotonic() >= self._left_at + self._lock_ms / 3000
            unread = [each for each in self._unread if self._is_held(each)] if is_due else []
            if is_due:
                self._unread, self._left_at = deque(), None
        for message in unread:
            self._say(message.topic_partition, (message.offset,), RELEASED)

    def _acquire(self, count: int, wait_ms: int) -> list[ShareMessage]:
        request = Acquire(
            group=self._group,
            topics=self._topics,
            member_id=self._member_id,
            max_records=count,
            max_bytes=self._options.max_bytes,
            max_wait_ms=wait_ms,
            lock_ms=self._options.lock_ms,
            format="ranges",
        )
        self._has_acquired = True
        asked_at = monotonic()
        timeout_ms, retry_ms = wait_ms + self._options.request_timeout_ms, max(wait_ms, 1)
        ask = Call(
            None,
            GATEWAY,
            request,
            AcquireReply,
            timeout_ms=timeout_ms,
            retry_timeout_ms=retry_ms,
            is_retried=True,
        )
        reply: AcquireReply = self._network.exchange(ask, self._waits).reply
        ranges = reply.ranges
        if not ranges:
            return []
        with self._lock:
            self._lock_ms = reply.lock_ms
            renew_at = asked_at + reply.lock_ms / 3000
            self._renew_at = renew_at if not any(self._held.values()) else min(self._renew_at, renew_at)
            for each in ranges:
                offsets = self._held.setdefault(TopicPartition(each.topic, each.partition), set())
                offsets.update(range(each.first_offset, each.last_offset + 1))
        self._start_thread()
        try:
            return self._read(ranges)
        except BaseException:  # any exception: the program does not receive these records
            for unread in ranges:
                self._release(unread)
            raise

    def _read(self, ranges: list[AcquiredRange]) -> list[ShareMessage]:
        """Return the records. Accept offsets without a record; release records that cannot be read now."""
        found: list[ShareMessage] = []
        room_bytes = self._options.max_bytes
        is_full = False
        left = deque(ranges)
        while left:
            each = left.popleft()
            tp = TopicPartition(each.topic, each.partition)
            if is_full:
                self._release(each)
                continue
            try:
                messages, end, size_bytes = self._ranges.read(each, room_bytes, is_first=not found)
            except PlanariaError as error:
                if is_unreadable(error):
                    left.extendleft(self._reject_unreadable(each, error))
                    continue
                for unread in (each, *left):
                    self._release(unread)
                if found:
                    return found
                raise
            found += [locked(message, each.delivery_count, self) for message in messages]
            room_bytes -= size_bytes
            is_full = end <= each.last_offset
            if is_full:
                self._say(tp, range(end, each.last_offset + 1), RELEASED)
            if len(messages) < end - each.first_offset:
                there = {message.offset for message in messages}
                gaps = [at for at in range(each.first_offset, end) if at not in there]
                self._say(tp, gaps, ACCEPTED)
        return found

    def _reject_unreadable(self, damaged: AcquiredRange, error: PlanariaError) -> list[AcquiredRange]:
        """Reject the damaged part of the range, as the coordinator does when it reads. Release the rest."""
        end = min(damage_end(error, damaged.first_offset), damaged.last_offset + 1)
        said = Said("reject", 0, sendable(str(error))[:1_000])
        self._say(TopicPartition(damaged.topic, damaged.partition), range(damaged.first_offset, end), said)
        return [structs.replace(damaged, first_offset=end)] if end <= damaged.last_offset else []

    def _release(self, unread: AcquiredRange) -> None:
        """Release the part of the range that is not acknowledged."""
        tp = TopicPartition(unread.topic, unread.partition)
        with self._lock:
            held = self._held.get(tp, set())
            offsets = [at for at in range(unread.first_offset, unread.last_offset + 1) if at in held]
        self._say(tp, offsets, RELEASED)

    # Acknowledging.

    def acknowledge(
        self,
        messages: Iterable[Message],
        verdict: Literal["accept", "release", "fail", "reject"] = "accept",
        *,
        delay: timedelta | float = 0.0,
        reason: str = "",
    ) -> None:
        """Acknowledge messages. Sent with the next poll, `flush` or `close`, or after a moment at the latest.

        Raises InvalidOption, and PlanariaError for a message that this consumer does not hold.
        """
        self._refuse_when_closed()
        if verdict not in _VERDICTS:
            raise InvalidOption(f"verdict: {verdict!r} is unknown; choose one of {', '.join(_VERDICTS)}")
        if not isinstance(reason, str):
            raise InvalidOption(f"reason: must be text, not {reason!r}")
        said = Said(verdict, milliseconds_of(delay), sendable(reason)[:1_000])
        for message in messages:
            if not self._say(message.topic_partition, (message.offset,), said):
                raise PlanariaError(f"{message} is not held: it has been acknowledged, or its lock expired")
        if self._waiting >= SEND_AT:
            self._wake.set()

    def _settle(self, message: ShareMessage, verdict: Verdict, reason: str = "") -> None:
        """Like `acknowledge`; do nothing if the message is acknowledged, the consumer closed, or the lock lost."""
        if self._is_closed:
            return
        self._network.refuse_when_closed()
        self._say(message.topic_partition, (message.offset,), Said(verdict, 0, sendable(reason)[:1_000]))

    def flush(self) -> list[Refused]:
        """Send the pending acknowledgements. Return those that came too late since the last call."""
        self._refuse_when_closed()
        self._send()
        with self._lock:
            refused, self._refused = self._refused, []
        return refused

    def renew(self) -> None:
        """Lock all held messages for another `lock_ms`. Happens automatically without `renew=False`."""
        self._refuse_when_closed()
        with self._sending:
            self._renew()

    def _say(self, tp: TopicPartition, offsets: Iterable[int], said: Said) -> bool:
        """Record acknowledgements. Return True if all of the messages were held."""
        with self._lock:
            held = self._held.get(tp, set())
            waiting = self._said.setdefault(tp, {})
            for offset in offsets:
                if offset not in held:
                    return False
                held.discard(offset)
                waiting[offset] = said
                self._waiting += 1
        return True

    def _accept_held(self) -> None:
        with self._lock:
            unread = {(each.topic, each.partition, each.offset) for each in self._unread}
            held = [
                (tp, [at for at in sorted(offsets) if (*tp, at) not in unread])
                for tp, offsets in self._held.items()
                if offsets
            ]
        for tp, offsets in held:
            self._say(tp, offsets, ACCEPTED)

    def _send(self, retry_timeout_ms: int | None = None) -> None:
        if not self._sending.acquire(timeout=-1 if retry_timeout_ms is None else retry_timeout_ms / 1000):
            return  # the background thread is sending
        try:
            with self._lock:
                said, self._said, self._waiting = self._said, {}, 0
            acknowledgements = [each for tp, offsets in said.items() for each in merged(tp, offsets)]
            try:
                self._ask(acknowledgements, retry_timeout_ms)
            except ProtocolError:
                # It may have taken effect. It is sent again, and may then come too late.
                with self._lock:
                    for tp, offsets in said.items():
                        self._said[tp] = offsets | self._said.get(tp, {})
                    self._waiting = sum(map(len, self._said.values()))
                raise
        finally:
            self._sending.release()

    def _ask(self, acknowledgements: list[Acknowledgement], retry_timeout_ms: int | None = None) -> None:
        singles: list[Acknowledgement] = []
        for start in range(0, len(acknowledgements), SEND_AT):
            part = acknowledgements[start : start + SEND_AT]
            request = Acknowledge(group=self._group, member_id=self._member_id, acknowledgements=part)
            timeout_ms = self._options.request_timeout_ms
            reply = self._network.call(
                GATEWAY, request, AcknowledgeReply, timeout_ms=timeout_ms, retry_timeout_ms=retry_timeout_ms
            )
            for each, result in zip(part, reply.results, strict=True):
                if result.error is None:
                    continue
                last = each.first_offset if each.last_offset is None else each.last_offset
                if result.error.code == ErrorCode.NOT_ACQUIRED and last > each.first_offset:
                    # One lost lock must not cost the other messages their verdict.
                    singles += [single(each, offset) for offset in range(each.first_offset, last + 1)]
                    continue
                error = ProtocolError.from_body(result.error)
                with self._lock:
                    self._refused.append(
                        Refused(each.topic, each.partition, each.first_offset, each.verdict, error)
                    )
        if singles:
            self._ask(singles, retry_timeout_ms)

    def _renew(self) -> None:
        with self._lock:
            renewal = Said("renew", 0, "")
            held = [(tp, dict.fromkeys(sorted(offsets), renewal)) for tp, offsets in self._held.items()]
            self._renew_at = monotonic() + self._lock_ms / 3000
            lock_ms = self._options.lock_ms
        self._ask([each for tp, offsets in held for each in merged(tp, offsets, lock_ms)])
        self._forget_lost()

    def _forget_lost(self) -> None:
        """Forget messages whose locks could not be renewed: they are no longer held."""
        with self._lock:
            lost = [each for each in self._refused if each.verdict == "renew"]
            for each in lost:
                self._held.get(TopicPartition(each.topic, each.partition), set()).discard(each.offset)
            self._refused = [each for each in self._refused if each.verdict != "renew"]

    # In the background.

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="planaria-share", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.wait(SEND_EVERY_S)
            self._wake.clear()
            try:
                self._release_unread()
                if self._waiting:
                    self._send()
                is_polling = monotonic() - self._polled_at < self._options.max_poll_interval_ms / 1000
                if (
                    self._options.renew
                    and is_polling
                    and any(self._held.values())
                    and monotonic() >= self._renew_at
                ):
                    self.renew()
            except (ProtocolError, Closed):
                continue  # retried; a flush reports the error to the program

    # Closing.

    def close(self) -> None:
        """Send the acknowledgements and release all held messages, so that other members can acquire them at once.

        With `acknowledge` "implicit" all returned messages that a loop has not left unread count as accepted.
        """
        if self._is_closed or self._network.is_inherited:
            return
        if self._options.acknowledge == "implicit":
            self._accept_held()
        self._end()

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Closed("the share consumer is closed")
        self._network.refuse_when_closed()

    def _flush_at_exit(self) -> None:
        """Send the acknowledgements of a program that exits without `close`; release the rest, without a charge."""
        if self._is_closed or self._network.is_inherited or not self._network.is_running:
            return
        timeout_ms = min(self._options.request_timeout_ms, int(EXIT_FLUSH_S * 1000))
        self._options = structs.replace(self._options, request_timeout_ms=timeout_ms)
        with suppress(PlanariaError):
            self._end()

    def _end(self) -> None:
        not_at_exit(self._flush_at_exit)
        self._is_closed = True
        self._waits.ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._options.request_timeout_ms / 1000)
        with self._lock:
            held = [(tp, sorted(offsets)) for tp, offsets in self._held.items()]
        for tp, offsets in held:
            self._say(tp, offsets, RELEASED)
        try:
            self._send()
            if self._has_acquired:
                self._leave()
        finally:
            self._network.forget(self)

    def _leave(self) -> None:
        """Release the held messages at once. Without a reply the end of the connection or the locks does so."""
        request = LeaveGroup(group=self._group, member_id=self._member_id)
        timeout_ms = min(LEAVE_TIMEOUT_MS, self._options.request_timeout_ms)
        with suppress(ProtocolError):
            self._network.call(GATEWAY, request, Done, timeout_ms=timeout_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._is_closed and not self._network.is_inherited:
            with suppress(ProtocolError):  # the exception that left the block is the one to report
                self._end()


_RETRY = RetryPolicy()
_VERDICTS = ("accept", "release", "fail", "reject")
