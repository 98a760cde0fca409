"""The decisions of a share consumer: acknowledgements, their sending, renewals, and the end. Pure.

Called from the program's side (a poll, a verdict, a flush) and from the network thread (answers and timers), so its shell
makes each call under one lock; none of them waits. A call of the program returns at once and leaves events in `posts`;
these and the answers come back by `handle` on the network thread, whose effects are requests and timers. There is no
other thread: the acknowledgements of a program that does not poll, and the renewals of its locks, are timers.

    state      meaning                                                    left by
    open       messages are acquired, verdicts are taken                  EndAsked -> leaving
    leaving    pending verdicts are sent, then the group is left          the last answer -> left
    left       nothing remains to be done

Acknowledgements are sent in rounds, one at a time (`rounds.py`): before the request of a poll, which does not wait for
their answer, by a flush, or 100 ms after the first. A flush may acquire the records of the poll that follows it
(`acquired_ahead.py`).

Invariants
    A message has one verdict: it is held, or said, or answered.
    A verdict that had no answer is sent again until it has one.
    A range with one lost lock does not cost its other messages their verdict: it is sent again message by message.
    Each FlushAsked, RenewAsked and EndAsked has exactly one outcome.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar

from ..addresses import TopicPartition
from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.errors import PlanariaError
from ..protocol.shares import AcknowledgeReply, AcquiredRange, AcquireReply
from .acknowledgements import ACCEPTED, RELEASED, Delivered, Holdings, Said
from .acquired_ahead import Ahead
from .rounds import SEND_AT, EndAsked, FlushAsked, RenewAsked, Rounds
from .share_requests import LEAVE, ShareRequests

if TYPE_CHECKING:
    from .share_messages import ShareOptions

MessageT = TypeVar("MessageT", bound=Delivered)
SEND_AFTER_MS = 100

_SEND = "send"
_RENEW = "renew"
_UNREAD = "unread"
_AHEAD = "ahead"


class Posted(Enum):
    """Events of the program's side for `handle` on the network thread."""

    VERDICTS_PENDING = auto()
    """Verdicts are to be sent within SEND_AFTER_MS, or now if there are many."""
    VERDICTS_DUE = auto()
    """A poll sends the pending verdicts, before its own request; or once the round in flight has ended."""
    ACQUIRED = auto()
    """Messages are held: their locks are to be renewed."""
    LOOP_LEFT = auto()
    """A loop over the consumer was left with messages not yielded."""


class WorkLoop(Generic[MessageT]):
    """A loop over a share consumer. The next poll takes the messages that it has not yielded."""

    def __init__(self) -> None:
        self.unread: deque[MessageT] = deque()
        self.left_at: int | None = None
        """The time at which the loop was left with messages not yielded."""

    def begin(self, messages: Iterable[MessageT]) -> deque[MessageT]:
        """Return the messages to yield."""
        unread = deque(messages)
        unread.extend(self.unread)
        self.unread, self.left_at = unread, None
        return unread

    def has(self, unread: deque[MessageT]) -> bool:
        """Return True if messages are left, and no poll has taken them."""
        return bool(unread) and self.unread is unread

    def leave(self, unread: deque[MessageT], now: int) -> None:
        self.left_at = now if self.has(unread) else None

    def take(self, count: int, now: int, is_held: Callable[[MessageT], bool]) -> list[MessageT]:
        """Return at most `count` of the messages that are still held."""
        left = [each for each in self.unread if is_held(each)]
        self.unread = deque(left[count:])
        self.left_at = now if self.unread else None
        return left[:count]


class Sharing(Generic[MessageT]):
    """A share consumer without threads, sockets and clocks."""

    def __init__(
        self, group: str, topics: list[str], member_id: str, options: "ShareOptions", now: int
    ) -> None:
        self.posts: deque[Event] = deque()
        """Events for `handle` on the network thread, in order."""
        self.holdings = Holdings()
        self.loop: WorkLoop[MessageT] = WorkLoop()
        self._options = options
        self._requests = ShareRequests(group, topics, member_id, options)
        self._ahead = Ahead(is_allowed=options.acknowledge == "explicit")
        self.rounds = Rounds(self._requests, self.holdings, self._ahead)
        self._polled_at = now
        self._lock_ms = options.lock_ms or 30_000
        self._renew_at = 0
        self._is_renewal_set = False
        self._is_announced = False
        """True if pending verdicts need no VERDICTS_PENDING: its timer runs, or is about to be set."""
        self._is_send_set = False
        self._is_ahead_set = False
        self._is_due = False
        """True if the pending verdicts are sent when the round in flight has ended."""

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
            self.posts.append(Posted.LOOP_LEFT)
        return left

    def take_ahead(self, count: int, now: int) -> list[AcquiredRange]:
        """Return ranges that a flush has acquired for this poll."""
        taken = self._ahead.take(count)
        if taken:
            self._ahead.on_poll(count, now)
        return taken

    def acquire(self, count: int, wait_ms: int, now: int) -> Call:
        """Return the request, to be sent after the posts: these send the pending verdicts."""
        self._polled_at = now
        self._ahead.on_poll(count, now)
        if self.holdings.waiting:
            self.posts.append(Posted.VERDICTS_DUE)
        return self._requests.acquire(count, wait_ms)

    def acquired(self, reply: AcquireReply, asked_at: int) -> None:
        """Hold the messages of the reply to an Acquire that was sent at `asked_at`."""
        if self._hold(reply, asked_at):
            self.posts.append(Posted.ACQUIRED)

    def _hold(self, reply: AcquireReply, asked_at: int) -> bool:
        """Hold the messages; return True if the timer of the renewal is to be set."""
        if not reply.ranges:
            return False
        self._lock_ms = reply.lock_ms
        renew_at = asked_at + reply.lock_ms // 3
        is_earlier = renew_at < self._renew_at
        self._renew_at = min(self._renew_at, renew_at) if self.holdings.is_holding else renew_at
        self.holdings.hold(reply.ranges)
        is_to_be_set = is_earlier or not self._is_renewal_set
        self._is_renewal_set = True
        return is_to_be_set

    # The program's side: loops.

    def yielded(self, message: Delivered) -> None:
        """Note that the loop requests the message after this one."""
        if self._options.acknowledge == "implicit":
            said = ACCEPTED.about(message.delivery_count)
            self.settle([(message.topic_partition, (message.offset,), said)])

    def end_loop(self, unread: deque[MessageT], now: int) -> None:
        self.loop.leave(unread, now)
        if self.loop.left_at is not None:
            self.posts.append(Posted.LOOP_LEFT)

    # The program's side: verdicts.

    def acknowledge(self, messages: Sequence[Delivered], said: Said) -> None:
        """Record a verdict about all messages that are held. Raises PlanariaError if others are among them."""
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
        if (self._is_announced and waiting < SEND_AT) or self.rounds.is_full:
            return
        if not waiting or not self.rounds.is_idle:
            return
        self._is_announced, self.rounds.is_full = True, waiting >= SEND_AT
        self.posts.append(Posted.VERDICTS_PENDING)

    def close(self) -> None:
        """Release everything that is held. EndAsked follows."""
        self.rounds.state = "leaving"
        self.holdings.say_all(RELEASED)

    # The network thread.

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Posted.VERDICTS_PENDING:
                return self._set_send_timer(now)
            case Posted.ACQUIRED:
                return [SetTimer(_RENEW, max(now, self._renew_at))]
            case Posted.LOOP_LEFT:
                left_at = now if self.loop.left_at is None else self.loop.left_at
                return [SetTimer(_UNREAD, left_at + self._lock_ms // 3)]
            case Posted.VERDICTS_DUE:
                self._is_due = not self.rounds.is_idle
                return self._send_pending(now)
            case FlushAsked() | EndAsked():
                return self.rounds.ask(event, now)
            case RenewAsked():
                self._renew_at = now + self._lock_ms // 3
                return self.rounds.ask(event, now)
            case TimerFired(key=key):
                return self._on_timer(key, now)
            case Answered(key=key) | Failed(key=key) if key == LEAVE:
                return self.rounds.on_left()
            case Answered(reply=AcknowledgeReply() as reply):
                return self._after_round(self.rounds.on_answer(reply.results, now), now)
            case Answered(reply=AcquireReply() as reply):
                return self._on_acquired_ahead(reply, now)
            case Failed(error=error):
                return self._after_round(self.rounds.on_failure(error, now), now)
        raise AssertionError(f"no such event: {event!r}")

    def _on_timer(self, key: str, now: int) -> list[Effect]:
        if key == _SEND:
            self._is_announced = self._is_send_set = False
            return self._send_pending(now)
        if key == _RENEW:
            return self._on_renew_due(now)
        return self._on_unread_due(now) if key == _UNREAD else self._on_ahead_due(now)

    def _on_renew_due(self, now: int) -> list[Effect]:
        self._is_renewal_set = False
        if not self._options.renew or not self.holdings.is_holding or self.rounds.state != "open":
            return []  # set again when messages are acquired
        self._is_renewal_set = True
        if now < self._renew_at:
            return [SetTimer(_RENEW, self._renew_at)]
        if not self.rounds.is_idle:
            return [SetTimer(_RENEW, now + SEND_AFTER_MS)]
        if now - self._polled_at >= self._options.max_poll_interval_ms:
            return [SetTimer(_RENEW, now + max(SEND_AFTER_MS, self._lock_ms // 3))]
        self._renew_at = now + self._lock_ms // 3
        return [SetTimer(_RENEW, self._renew_at), *self.rounds.renew([], now)]

    def _on_unread_due(self, now: int) -> list[Effect]:
        """Release the messages of a program that has left a loop and does not return."""
        loop = self.loop
        if loop.left_at is None or self.rounds.state != "open":
            return []
        due_at = loop.left_at + self._lock_ms // 3
        if now < due_at:
            return [SetTimer(_UNREAD, due_at)]
        for message in loop.begin(()):
            said = RELEASED.about(message.delivery_count)
            self.holdings.say_held(message.topic_partition, (message.offset,), said)
        loop.unread = deque()
        return self._send_pending(now)

    def _on_acquired_ahead(self, reply: AcquireReply, now: int) -> list[Effect]:
        effects: list[Effect] = []
        if self._hold(reply, self.rounds.asked_at):
            effects.append(SetTimer(_RENEW, max(now, self._renew_at)))
        self._ahead.keep(reply.ranges or (), now)
        effects += self._set_ahead_timer()
        return effects + self._after_round(self.rounds.on_answer(reply.results or [], now), now)

    def _on_ahead_due(self, now: int) -> list[Effect]:
        """Release the messages of a program that flushes and does not poll."""
        self._is_ahead_set = False
        due_at = self._ahead.kept_until
        if due_at is None or self.rounds.state != "open":
            return []
        if now < due_at:
            return self._set_ahead_timer()
        for each in self._ahead.drop():
            said = RELEASED.about(each.delivery_count)
            self.holdings.say_held(each.topic_partition, each.offsets, said)
        return self._send_pending(now)

    def _set_ahead_timer(self) -> list[Effect]:
        """Set the timer unless it runs: a loop with a flush for each message would set it with each one."""
        kept_until = self._ahead.kept_until
        if kept_until is None or self._is_ahead_set:
            return []
        self._is_ahead_set = True
        return [SetTimer(_AHEAD, kept_until)]

    def _send_pending(self, now: int) -> list[Effect]:
        """Send the pending verdicts, unless a round is in flight: they are sent after it."""
        is_due = self.holdings.waiting and self.rounds.is_idle and self.rounds.state == "open"
        return self.rounds.send([], now) if is_due else []

    def _after_round(self, effects: list[Effect], now: int) -> list[Effect]:
        """Begin the calls that waited for the end of the round, and send the verdicts said meanwhile."""
        if not self.rounds.is_idle:
            return effects
        effects = [*effects, *self.rounds.begin_next(now)]
        if self._is_due and self.rounds.is_idle:
            self._is_due = False
            effects += self._send_pending(now)
        return [*effects, *self._set_send_timer(now)]

    def _set_send_timer(self, now: int) -> list[Effect]:
        """Set the timer of the pending verdicts, unless it runs. When a poll or a flush has taken them it runs on, for
        those that are said until then."""
        waiting = self.holdings.waiting
        is_pending = self.rounds.is_idle and bool(waiting) and self.rounds.state == "open"
        self._is_announced = is_pending or self._is_send_set
        if not is_pending or (self._is_send_set and waiting < SEND_AT):
            return []
        self._is_send_set = True
        return [SetTimer(_SEND, now if waiting >= SEND_AT else now + SEND_AFTER_MS)]
