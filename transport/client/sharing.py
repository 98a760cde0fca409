"""The decisions of a share consumer: acknowledgements, their sending, renewals, and the end. Pure.

Called from the program's side (a poll, a verdict, a flush) and from the network thread (answers and timers), so its shell
makes each call under one lock; none of them waits. A call of the program returns at once and leaves events in `posts`;
these and the answers come back by `handle` on the network thread, whose effects are requests and timers. There is no
other thread: the acknowledgements of a program that does not poll, and the renewals of its locks, are timers.

    state      meaning                                                    left by
    open       messages are acquired, verdicts are taken                  EndAsked -> leaving
    leaving    pending verdicts are sent, then the group is left          the last answer -> left
    left       nothing remains to be done

Acknowledgements are sent in rounds, one at a time: a round takes all pending verdicts, or renews all held messages.

    round      begun by                                                   ends with
    verdicts   FlushAsked, EndAsked, SEND_AT pending verdicts, "send"     all answered; or put back and failed
    renewal    RenewAsked, the timer "renew"                              lost messages are no longer held

Invariants
    A message has one verdict: it is held, or said, or answered.
    A verdict that had no answer is sent again until it has one.
    A range with one lost lock does not cost its other messages their verdict: it is sent again message by message.
    Each FlushAsked, RenewAsked and EndAsked has exactly one outcome.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Literal

from msgspec import Struct

from ..addresses import TopicPartition, coordinator_address
from ..calls.connections import Owner
from ..calls.events import Deliver
from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError, ProtocolError
from ..protocol.groups import LeaveGroup
from ..protocol.message import Done, Reply
from ..protocol.shares import (
    MAX_LOCKED,
    Acknowledge,
    Acknowledgement,
    AcknowledgeReply,
    Acquire,
    AcquireReply,
)
from .acknowledgements import ACCEPTED, RELEASED, Holdings, Said, Verdicts, merged, singles
from .iteration import MessageT, WorkLoop
from .messages import Message

if TYPE_CHECKING:
    from .share_messages import ShareOptions

LEAVE_TIMEOUT_MS = 2_000
SEND_AFTER_MS = 100
SEND_AT = 10_000
"""Pending acknowledgements are sent at the latest at this number, which also bounds one request."""

_SEND = "send"
_RENEW = "renew"
_UNREAD = "unread"
_LEAVE = "leave"
DONE = Answered(None, None)


class VerdictsPending(Struct, frozen=True):
    """Verdicts are to be sent within SEND_AFTER_MS, or now if there are many."""


class Acquired(Struct, frozen=True):
    """Messages are held: their locks are to be renewed."""


class LoopLeft(Struct, frozen=True):
    """A loop over the consumer was left with messages not yielded."""


class FlushAsked(Struct, frozen=True):
    """Send the pending verdicts. `retry_timeout_ms`: as in a Call; a round in flight is then not waited for."""

    owner: Owner
    retry_timeout_ms: int | None = None


class RenewAsked(Struct, frozen=True):
    owner: Owner


class EndAsked(Struct, frozen=True):
    """Send the pending verdicts and leave the group."""

    owner: Owner
    request_timeout_ms: int


class _Round(Struct, eq=False):
    """A round in flight."""

    is_renewal: bool
    said: Verdicts
    left: deque[Acknowledgement]
    """Acknowledgements that are not sent yet."""
    owners: list[Owner]
    retry_timeout_ms: int | None = None
    part: list[Acknowledgement] = []
    """Acknowledgements of the request in flight."""


class Sharing(Generic[MessageT]):
    """A share consumer without threads, sockets and clocks."""

    def __init__(
        self, group: str, topics: list[str], member_id: str, options: "ShareOptions", now: int
    ) -> None:
        self.state: Literal["open", "leaving", "left"] = "open"
        self.posts: deque[Event] = deque()
        """Events for `handle` on the network thread, in order."""
        self.holdings = Holdings()
        self._group = group
        self._topics = topics
        self._member_id = member_id
        self._options = options
        self._request_timeout_ms = options.request_timeout_ms
        self.loop: WorkLoop[MessageT] = WorkLoop()
        self._polled_at = now
        self._lock_ms = options.lock_ms or 30_000
        self._renew_at = 0
        self._has_acquired = False
        self._is_announced = self._is_full = False
        """True once the pending verdicts, or that there are SEND_AT of them, were posted."""
        self._round: _Round | None = None
        self._next: deque[FlushAsked | RenewAsked | EndAsked] = deque()
        """Calls that wait for the round in flight to end."""
        self._ending: EndAsked | None = None

    # The program's side: acquiring.

    def begin_poll(self, count: int, now: int) -> list[MessageT]:
        """Accept the previous poll's messages if that is implicit. Return at most `count` messages left by a loop."""
        self._polled_at = now
        if self._options.acknowledge == "implicit":
            self.accept_held()
        if not self.loop.unread:
            return []
        left = self.loop.take(count, now, self.holdings.has)
        if self.loop.left_at is not None:
            self.posts.append(LoopLeft())
        return left

    def acquire(self, count: int, wait_ms: int, now: int) -> Call:
        self._has_acquired = True
        self._polled_at = now
        request = Acquire(
            group=self._group,
            topics=self._topics,
            member_id=self._member_id,
            max_records=min(count, MAX_LOCKED),
            max_bytes=self._options.max_bytes,
            max_wait_ms=wait_ms,
            lock_ms=self._options.lock_ms,
            format="ranges",
        )
        timeout_ms, retry_ms = wait_ms + self._request_timeout_ms, max(wait_ms, 1)
        return _call(None, request, AcquireReply, timeout_ms, retry_ms)

    def acquired(self, reply: AcquireReply, asked_at: int) -> None:
        """Hold the messages of the reply to an Acquire that was sent at `asked_at`."""
        if not reply.ranges:
            return
        self._lock_ms = reply.lock_ms
        renew_at = asked_at + reply.lock_ms // 3
        self._renew_at = min(self._renew_at, renew_at) if self.holdings.is_holding else renew_at
        self.holdings.hold(reply.ranges)
        self.posts.append(Acquired())

    # The program's side: loops.

    def yielded(self, message: Message) -> None:
        """The loop requests the message after this one."""
        if self._options.acknowledge == "implicit":
            self.settle([(message.topic_partition, (message.offset,), ACCEPTED)])

    def end_loop(self, unread: deque[MessageT], now: int) -> None:
        self.loop.leave(unread, now)
        if self.loop.left_at is not None:
            self.posts.append(LoopLeft())

    # The program's side: verdicts.

    def acknowledge(self, messages: Sequence[Message], said: Said) -> None:
        """Record a verdict about messages. Raises PlanariaError at the first one that is not held."""
        missing = self.holdings.say_each(messages, said)
        self._announce()
        if missing is not None:
            raise PlanariaError(f"{missing} is not held: it has been acknowledged, or its lock expired")

    def settle(self, verdicts: Sequence[tuple[TopicPartition, Iterable[int], Said]]) -> None:
        """Record verdicts about those of the messages that are still held."""
        for tp, offsets, said in verdicts:
            self.holdings.say_held(tp, offsets, said)
        self._announce()

    def accept_held(self) -> None:
        """Accept all messages that the program has received."""
        if self.holdings.is_holding:
            self.holdings.say_all(ACCEPTED, self.loop.unread)
            self._announce()

    def _announce(self) -> None:
        """Post an event for the first pending verdict, and one when there are so many that they are sent at once."""
        waiting = self.holdings.waiting
        if (
            self._round is None
            and waiting
            and not ((self._is_announced and waiting < SEND_AT) or self._is_full)
        ):
            self._is_announced, self._is_full = True, waiting >= SEND_AT
            self.posts.append(VerdictsPending())

    def close(self) -> None:
        """Release everything that is held. EndAsked follows."""
        self.state = "leaving"
        self.holdings.say_all(RELEASED)

    # The network thread.

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case VerdictsPending():
                return self._set_send_timer(now)
            case Acquired():
                return [SetTimer(_RENEW, max(now, self._renew_at))]
            case LoopLeft():
                left_at = now if self.loop.left_at is None else self.loop.left_at
                return [SetTimer(_UNREAD, left_at + self._lock_ms // 3)]
            case FlushAsked(retry_timeout_ms=int()) if self._round is not None:
                return [Deliver(event.owner, DONE)]
            case FlushAsked() | RenewAsked() | EndAsked():
                self._next.append(event)
                return self._begin_next(now)
            case TimerFired(key=key) if key == _SEND:
                self._is_announced = False
                is_due = self.holdings.waiting and self._round is None and self.state == "open"
                return self._send([]) if is_due else []
            case TimerFired(key=key) if key == _RENEW:
                return self._on_renew_due(now)
            case TimerFired(key=key) if key == _UNREAD:
                return self._on_unread_due(now)
            case Answered(key=key) | Failed(key=key) if key == _LEAVE:
                return self._on_left()
            case Answered(reply=AcknowledgeReply() as reply):
                return self._on_answer(reply, now)
            case Failed(error=error):
                return self._on_failure(error, now)
        raise AssertionError(f"no such event: {event!r}")

    def _on_renew_due(self, now: int) -> list[Effect]:
        if not self._options.renew or not self.holdings.is_holding or self.state != "open":
            return []  # set again when messages are acquired
        if self._round is not None:
            return [SetTimer(_RENEW, now + SEND_AFTER_MS)]
        if now - self._polled_at >= self._options.max_poll_interval_ms:
            return [SetTimer(_RENEW, now + max(SEND_AFTER_MS, self._lock_ms // 3))]
        return self._renew([], now)

    def _on_unread_due(self, now: int) -> list[Effect]:
        """Release the messages of a program that has left a loop and does not return."""
        loop = self.loop
        if loop.left_at is None or self.state != "open":
            return []
        due_at = loop.left_at + self._lock_ms // 3
        if now < due_at:
            return [SetTimer(_UNREAD, due_at)]
        for message in loop.begin(()):
            self.holdings.say_held(message.topic_partition, (message.offset,), RELEASED)
        loop.unread = deque()
        return self._send([]) if self._round is None and self.holdings.waiting else []

    # Rounds.

    def _begin_next(self, now: int) -> list[Effect]:
        if self._round is not None or not self._next:
            return []
        match self._next.popleft():
            case FlushAsked(owner=owner, retry_timeout_ms=retry_timeout_ms):
                effects = self._send([owner], retry_timeout_ms)
            case RenewAsked(owner=owner):
                effects = self._renew([owner], now)
            case EndAsked(owner=owner, request_timeout_ms=timeout_ms) as ending:
                self._ending = ending
                self._request_timeout_ms = timeout_ms
                effects = self._send([owner])
        return effects + self._begin_next(now)

    def _send(self, owners: list[Owner], retry_timeout_ms: int | None = None) -> list[Effect]:
        said = self.holdings.take_said()
        self._is_full = False
        left = deque(each for tp, offsets in said.items() for each in merged(tp, offsets))
        return self._begin(_Round(False, said, left, owners, retry_timeout_ms))

    def _renew(self, owners: list[Owner], now: int) -> list[Effect]:
        said, lock_ms = self.holdings.renewals(), self._options.lock_ms
        left = deque(each for tp, offsets in said.items() for each in merged(tp, offsets, lock_ms))
        self._renew_at = now + self._lock_ms // 3
        return [SetTimer(_RENEW, self._renew_at), *self._begin(_Round(True, said, left, owners))]

    def _begin(self, begun: _Round) -> list[Effect]:
        self._round = begun
        return self._continue(begun)

    def _continue(self, begun: _Round) -> list[Effect]:
        """Send the next request of the round, or end it."""
        begun.part = [begun.left.popleft() for _ in range(min(SEND_AT, len(begun.left)))]
        if not begun.part:
            self._round = None
            if self._ending is not None and self._ending.owner in begun.owners:
                return self._leave()
            return [Deliver(owner, DONE) for owner in begun.owners]
        request = Acknowledge(group=self._group, member_id=self._member_id, acknowledgements=begun.part)
        timeout_ms, retry_ms = self._request_timeout_ms, begun.retry_timeout_ms
        return [_call("round", request, AcknowledgeReply, timeout_ms, retry_ms)]

    def _on_answer(self, reply: AcknowledgeReply, now: int) -> list[Effect]:
        begun = self._round
        assert begun is not None
        for each, result in zip(begun.part, reply.results, strict=True):
            if result.error is None:
                continue
            last = each.first_offset if each.last_offset is None else each.last_offset
            if result.error.code == ErrorCode.NOT_ACQUIRED and last > each.first_offset:
                begun.left += singles(each, last)
            else:
                self.holdings.refuse(each, ProtocolError.from_body(result.error))
        return self._continue(begun) + self._after_round(now)

    def _on_failure(self, error: ErrorBody, now: int) -> list[Effect]:
        begun, self._round = self._round, None
        assert begun is not None
        if not begun.is_renewal:
            self.holdings.put_back(begun.said)
        if self._ending is not None and self._ending.owner in begun.owners:
            self.state = "left"
        failed = [Deliver(owner, Failed(None, error)) for owner in begun.owners]
        return [*failed, *self._after_round(now)]

    def _after_round(self, now: int) -> list[Effect]:
        """Begin the calls that waited for the end of the round, and send the verdicts said meanwhile."""
        if self._round is not None:
            return []
        return self._begin_next(now) + self._set_send_timer(now)

    def _set_send_timer(self, now: int) -> list[Effect]:
        if self._round is not None or not self.holdings.waiting or self.state != "open":
            return []
        self._is_announced = True
        return [SetTimer(_SEND, now if self.holdings.waiting >= SEND_AT else now + SEND_AFTER_MS)]

    def _leave(self) -> list[Effect]:
        """Release the held messages at once. Without a reply the end of the connection or the locks does so."""
        if not self._has_acquired:
            return self._on_left()
        request = LeaveGroup(group=self._group, member_id=self._member_id)
        timeout_ms = min(LEAVE_TIMEOUT_MS, self._request_timeout_ms)
        return [_call(_LEAVE, request, Done, timeout_ms)]

    def _on_left(self) -> list[Effect]:
        assert self._ending is not None
        self.state = "left"
        return [Deliver(self._ending.owner, DONE)]


def _call(
    key: str | None,
    request: Acquire | Acknowledge | LeaveGroup,
    reply_type: type[Reply],
    timeout_ms: int,
    retry_timeout_ms: int | None = None,
) -> Call:
    return Call(
        key,
        coordinator_address(request.group),
        request,
        reply_type,
        timeout_ms=timeout_ms,
        is_retried=True,
        retry_timeout_ms=retry_timeout_ms,
    )
