"""Drives the machine of a share consumer: calls of the program, answers of the broker, a clock of its own."""

from typing import Any

from msgspec import UNSET

from planaria.transport.addresses import TopicPartition
from planaria.transport.calls.events import Deliver
from planaria.transport.client.acknowledgements import ACCEPTED, Said
from planaria.transport.client.messages import Message
from planaria.transport.client.share_messages import ShareMessage, ShareOptions, locked
from planaria.transport.client.sharing import Sharing
from planaria.transport.machine import Answered, Call, Effect, Failed, SetTimer, TimerFired
from planaria.transport.protocol.errors import ErrorBody, ErrorCode
from planaria.transport.protocol.groups import LeaveGroup
from planaria.transport.protocol.message import Done
from planaria.transport.protocol.shares import (
    Acknowledge,
    Acknowledgement,
    AcknowledgeReply,
    AcknowledgeResult,
    Acquire,
    AcquiredRange,
    AcquireReply,
)

P = TopicPartition("T", 0)


LOCK_MS = 30_000


def message(offset: int, delivery_count: int = 1) -> ShareMessage:
    return locked(ShareMessage, Message("T", 0, offset, None, b"x", 0, None), delivery_count, None)


class Waiter:
    """A thread or a task that waits for one outcome."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def handle(self, event: Any, now: int) -> list[Effect]:
        self.outcomes.append(event)
        return []


class Driver:
    """A coordinator with one partition, a clock, and the turns of the network thread."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_000
        self.machine: Sharing[ShareMessage] = Sharing("g", ["T"], "m", ShareOptions(**options), self.now)
        self.timers: dict[Any, int] = {}
        self.timers_set = 0
        self.asked: list[Call] = []
        self.locked: set[int] = set()
        self.done: dict[int, str] = {}

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Call():
                    self.asked.append(effect)
                case SetTimer(key=key, at=at):
                    self.timers[key] = at
                    self.timers_set += 1
                case Deliver(owner=owner, event=event):
                    owner.handle(event, self.now)
                case _:
                    raise AssertionError(effect)

    def turn(self) -> None:
        while self.machine.posts:
            self.perform(self.machine.handle(self.machine.posts.popleft(), self.now))

    def pass_time(self, ms: int) -> None:
        self.now += ms
        for key, at in sorted(self.timers.items()):
            if at <= self.now:
                del self.timers[key]
                self.perform(self.machine.handle(TimerFired(key), self.now))
        self.turn()

    def acquire(self, first: int, last: int) -> None:
        """Poll, and get these records."""
        self.deliver(self.poll(), first, last)

    def poll(self, count: int = 10) -> Acquire:
        """Return the request of a poll, which is on its way."""
        ask = self.machine.acquire(count, 100, self.now)
        self.turn()
        assert isinstance(ask.request, Acquire)
        assert not ask.request.acknowledgements
        return ask.request

    def deliver(self, request: Acquire, first: int, last: int) -> None:
        """Answer the request of a poll with these records."""
        self.machine.acquired(self.reply_to(request, first, last), self.now)
        self.turn()

    def reply_to(self, request: Acquire, first: int, last: int) -> AcquireReply:
        results = self.judged(request.acknowledgements)
        ranges = []
        if first <= last:
            self.locked.update(range(first, last + 1))
            ranges.append(AcquiredRange("T", 0, first, last, 1))
        return AcquireReply(lock_ms=LOCK_MS, ranges=ranges, results=results or UNSET)

    def judged(self, acknowledgements: list[Acknowledgement]) -> list[AcknowledgeResult]:
        """Apply acknowledgements as a coordinator does that knows the locks."""
        results = []
        for each in acknowledgements:
            last = each.first_offset if each.last_offset is None else each.last_offset
            offsets = set(range(each.first_offset, last + 1))
            if not offsets <= self.locked:
                results.append(AcknowledgeResult(ErrorBody(ErrorCode.NOT_ACQUIRED, "")))
                continue
            results.append(AcknowledgeResult())
            if each.verdict != "renew":
                self.locked -= offsets
                assert not offsets & self.done.keys()
                self.done |= dict.fromkeys(offsets, each.verdict)
        return results

    def say(self, *offsets: int, said: Said = ACCEPTED) -> None:
        self.machine.acknowledge([message(offset) for offset in offsets], said)
        self.turn()

    def wait_for(self, kind: Any, *arguments: Any) -> Waiter:
        waiter = Waiter()
        self.perform(self.machine.handle(kind(waiter, *arguments), self.now))
        return waiter

    def answer(self, first: int = 0, last: int = -1) -> None:
        """Answer the oldest request, one that acquires with these records."""
        ask = self.asked.pop(0)
        if isinstance(ask.request, LeaveGroup):
            self.locked.clear()
            return self.perform(self.machine.handle(Answered(ask.key, Done()), self.now))
        assert isinstance(ask.request, Acknowledge | Acquire)
        reply: Any
        if isinstance(ask.request, Acquire):
            reply = self.reply_to(ask.request, first, last)
        else:
            reply = AcknowledgeReply(results=self.judged(ask.request.acknowledgements))
        return self.perform(self.machine.handle(Answered(ask.key, reply), self.now))

    def fail(self, *, took_effect: bool = False, retriable: bool = True) -> None:
        ask = self.asked.pop(0)
        if took_effect and isinstance(ask.request, Acknowledge | Acquire):
            self.judged(ask.request.acknowledgements)
        code = ErrorCode.TIMED_OUT if retriable else ErrorCode.INVALID_GROUP
        error = ErrorBody(code, "", retriable=retriable)
        self.perform(self.machine.handle(Failed(ask.key, error), self.now))

    def ranges(self) -> list[tuple[str, int, int | None]]:
        (ask,) = self.asked
        assert isinstance(ask.request, Acknowledge | Acquire)
        return [(each.verdict, each.first_offset, each.last_offset) for each in ask.request.acknowledgements]
