"""The work of a client's network thread in one turn, except waiting: hand events to owners, perform effects.

Owns the timers of the owners and the events posted by user threads. Must never wait and never decide. `Network` runs it
on its thread; the simulation tests run it on simulated sockets.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import zmq

from ..calls.connections import Owner
from ..calls.events import (
    CancelTimers,
    CheckLocality,
    CheckSilence,
    Deliver,
    LocalityKnown,
    ReadGreeting,
    Resolve,
    SilenceMeasured,
)
from ..calls.exchange import Exchange, is_quiet
from ..calls.performer import Performer
from ..machine import Call, CancelTimer, Effect, Event, SetTimer, TimerFired
from ..request_context import ContextFrames
from ..security.keys import ClientKeys
from ..timers import Timers


class Dispatch:
    def __init__(
        self,
        exchange: Exchange,
        socket: "zmq.Socket[bytes]",
        is_here: Callable[[str, str], bool],
        silence_ms: Callable[[str], int | None],
        resolve: Callable[[str], None],
        read_greeting: Callable[[str], None],
        contexts: ContextFrames | None = None,
        keys: ClientKeys | None = None,
    ) -> None:
        """Take the operations of the host as callbacks.

        `is_here` returns True if the broker with this run directory and instance runs on this machine. `silence_ms`
        returns the time since the last byte from an endpoint. `resolve` posts Resolved to `performer` later, and
        `read_greeting` GreetingRead. The last two are those of the performer.
        """
        self.inbox: deque[tuple[Owner, Event]] = deque()
        """Events posted by any thread."""
        self.performer = Performer(
            exchange, socket, self._queue, self._perform_on_host, contexts=contexts, keys=keys
        )
        self._exchange = exchange
        self._timers = Timers()
        self._queued: deque[tuple[Owner, Event]] = deque()
        self._now = 0
        self._is_here = is_here
        self._silence_ms = silence_ms
        self._resolve = resolve
        self._read_greeting = read_greeting

    @property
    def is_busy(self) -> bool:
        """Return True if there is work that no socket announces."""
        return bool(self.inbox or self.performer.arrived)

    @property
    def is_quiet(self) -> bool:
        """Return True if no work is at hand and no answer is expected soon: only long polls are in flight."""
        return not self.is_busy and is_quiet(self._exchange)

    def next_at(self) -> int | None:
        """Return the time of the earliest timer, None if there is none."""
        own, calls = self._timers.next_at(), self.performer.next_at()
        if own is None or calls is None:
            return calls if own is None else own
        return min(own, calls)

    def start(self, now: int) -> None:
        self._now = now
        self.performer.start(now)

    def turn(self, now: int) -> None:
        """Process the messages of the socket, the events posted by users, and the due timers."""
        self._now = now
        self.performer.receive(now)
        self._hand_queued(now)
        self._work(now)

    def short_turn(self, now: int, is_readable: bool) -> None:
        """Like `turn`, but process one message at most, if the socket may have one."""
        self._now = now
        if is_readable or self.performer.arrived:
            self.performer.receive_one(now)
            self._hand_queued(now)
        self._work(now)

    def _work(self, now: int) -> None:
        for _ in range(len(self.inbox)):
            self._queued.append(self.inbox.popleft())
            self._hand_queued(now)
        self.performer.expire(now)
        if self._timers.has_due(now):
            for timer in self._timers.pop_due(now):
                owner, key = cast("tuple[Owner, Any]", timer)
                self.hand(owner, TimerFired(key), now)
        if self._queued:
            self._hand_queued(now)

    def hand(self, owner: Owner, event: Event, now: int) -> None:
        """Pass an event to its owner and perform the effects, then those of the outcomes that followed."""
        self._queued.append((owner, event))
        self._hand_queued(now)

    def _hand_queued(self, now: int) -> None:
        self._now = now
        queued = self._queued
        while queued:
            owner, event = queued.popleft()
            for effect in owner.handle(event, now):
                self._perform(owner, effect, now)

    def _queue(self, owner: Owner, event: Event) -> None:
        self._queued.append((owner, event))

    def _perform(self, owner: Owner, effect: Effect, now: int) -> None:
        match effect:
            case Call():
                self.performer.submit(owner, effect, now)
            case SetTimer(key=key, at=at):
                self._timers.set((owner, key), at)
            case CancelTimer(key=key):
                self._timers.cancel((owner, key))
            case Deliver(owner=other, event=event):
                self._queued.append((other, event))
            case _:
                raise AssertionError(f"no such effect: {effect!r}")

    def _perform_on_host(self, effect: Effect) -> None:
        match effect:
            case CancelTimers(owner=gone):
                self._timers.discard(lambda key: cast("tuple[Owner, Any]", key)[0] is gone)
            case CheckLocality(run_directory=directory, instance_id=instance_id):
                known = LocalityKnown(instance_id, self._is_here(directory, instance_id))
                self.performer.handle(known, self._now)
            case Resolve(endpoint=endpoint):
                self._resolve(endpoint)
            case ReadGreeting(endpoint=endpoint):
                self._read_greeting(endpoint)
            case CheckSilence(endpoint=endpoint):
                silence_ms = self._silence_ms(endpoint)
                if silence_ms is not None:
                    self.performer.handle(SilenceMeasured(endpoint, silence_ms), self._now)
            case _:
                raise AssertionError(f"no such effect: {effect!r}")
