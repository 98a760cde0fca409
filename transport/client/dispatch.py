"""The work of a client's network thread in one turn, except waiting: hand events to owners, perform effects.

Owns the exchange, the timers and the events posted by user threads. Must never wait and never decide.
`Network` runs it on its thread; the simulation tests run it on simulated sockets.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import zmq

from .. import sockets
from ..codec import encode_header, split_envelope
from ..protocol.errors import ProtocolError
from ..timers import Timers
from .asking import Ask, CancelTimer, Effect, Event, Owner, SetTimer, TimerFired
from .exchange import Exchange
from .exchange_events import (
    Arrived,
    CancelTimers,
    CheckLocality,
    CheckSilence,
    Connect,
    Deliver,
    Disconnect,
    LocalityKnown,
    Resolve,
    Send,
    SilenceMeasured,
    Submitted,
    Undeliverable,
)

MAX_RECEIVED_A_TURN = 256
COPY_LIMIT_BYTES = 64 * 1024
"""Frames above this are handed to ZeroMQ without a copy."""

# As plain numbers: arithmetic on ZeroMQ's enumerations takes longer than the calls that take them.
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


class Dispatch:
    def __init__(
        self,
        exchange: Exchange,
        socket: "zmq.Socket[bytes]",
        is_here: Callable[[str, str], bool],
        silence_ms: Callable[[str], int | None],
        resolve: Callable[[str], None],
    ) -> None:
        """Take the operations of the host as callbacks.

        `is_here` returns True if the broker with this run directory and instance runs on this machine. `silence_ms`
        returns the time since the last byte from an endpoint. `resolve` posts Resolved to the exchange later.
        """
        self.timers = Timers()
        self.inbox: deque[tuple[Owner, Event]] = deque()
        """Events posted by any thread."""
        self._exchange = exchange
        self._socket = socket
        self._is_here = is_here
        self._silence_ms = silence_ms
        self._resolve = resolve
        self._arrived: deque[list[bytes]] = deque()
        """Messages read when a connection was lost. They precede those still in the socket."""

    @property
    def is_busy(self) -> bool:
        """Return True if there is work that no socket announces."""
        return bool(self.inbox or self._arrived)

    def start(self, now: int) -> None:
        self._perform(self._exchange, self._exchange.start(now), now)

    def turn(self, now: int) -> None:
        """Process the messages of the socket, the events posted by users, and the due timers."""
        self._receive(now)
        for _ in range(len(self.inbox)):
            owner, event = self.inbox.popleft()
            self.hand(owner, event, now)
        for timer in self.timers.pop_due(now):
            owner, key = cast("tuple[Owner, Any]", timer)
            self.hand(owner, TimerFired(key), now)

    def hand(self, owner: Owner, event: Event, now: int) -> None:
        self._perform(owner, owner.handle(event, now), now)

    def _receive(self, now: int) -> None:
        for _ in range(MAX_RECEIVED_A_TURN):
            if self._arrived:
                frames = self._arrived.popleft()
            elif int(self._socket.get(_EVENTS)) & _READABLE:  # a check is cheaper than a failed receive
                frames = sockets.receive_frames(self._socket)
            else:
                return
            try:
                _, header, payload = split_envelope(frames[1:])
            except ProtocolError:
                continue  # not a reply at all: no request waits for it
            self.hand(self._exchange, Arrived(frames[0], header, payload), now)

    def _perform(self, owner: Owner, effects: list[Effect], now: int) -> None:
        """Perform effects in order. Effects that follow from them are performed afterwards, not in between."""
        work: deque[tuple[Owner, Effect]] = deque([(owner, effect) for effect in effects])
        while work:
            owner, effect = work.popleft()
            more: list[Effect] = []
            match effect:
                case Ask():
                    owner, more = self._exchange, self._exchange.handle(Submitted(owner, effect), now)
                case Send():
                    owner, more = self._exchange, self._send(effect, now)
                case Deliver():
                    owner = effect.owner
                    more = owner.handle(effect.event, now)
                case SetTimer(key=key, at=at):
                    self.timers.set((owner, key), at)
                case CancelTimer(key=key):
                    self.timers.cancel((owner, key))
                case CancelTimers(owner=gone):
                    self.timers.discard(lambda key: cast("tuple[Owner, Any]", key)[0] is gone)
                case Connect(route=route, endpoint=endpoint):
                    sockets.connect_peer(self._socket, route, endpoint)
                case Disconnect(endpoint=endpoint):
                    self._arrived.extend(sockets.disconnect_peer(self._socket, endpoint))
                case CheckLocality(run_directory=directory, instance_id=instance_id):
                    known = LocalityKnown(instance_id, self._is_here(directory, instance_id))
                    more = self._exchange.handle(known, now)
                case Resolve(endpoint=endpoint):
                    self._resolve(endpoint)
                case CheckSilence(endpoint=endpoint):
                    silence_ms = self._silence_ms(endpoint)
                    if silence_ms is not None:
                        more = self._exchange.handle(SilenceMeasured(endpoint, silence_ms), now)
                case _:
                    raise AssertionError(f"no such effect: {effect!r}")
            for effect in more:
                work.append((owner, effect))

    def _send(self, effect: Send, now: int) -> list[Effect]:
        try:
            frames: list[Any] = [effect.route, encode_header(effect.request), *effect.payload]
            is_copied = sum(map(len, effect.payload)) < COPY_LIMIT_BYTES
            sockets.send_frames(self._socket, frames, is_copied)
        except zmq.Again:
            return self._exchange.handle(Undeliverable(effect.route, effect.attempt, is_full=True), now)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return self._exchange.handle(Undeliverable(effect.route, effect.attempt), now)
        return []
