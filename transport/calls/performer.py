"""Performs the effects of an exchange on the calls socket. Used by every shell, and by the simulations on simulated
sockets.

Owns the socket with its monitor, and the control link for an actor's calls to its supervisor. Must never wait and never
decide. Before the end of a connection is processed, the messages that have arrived are: they may be its last replies.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import zmq

from .. import sockets
from ..codec import encode_header, split_envelope
from ..machine import Call, CancelCall, Cast, Effect, Event
from ..protocol.control import PeerDown
from ..protocol.errors import ProtocolError
from ..request_context import NO_CONTEXT, ContextFrames
from ..security.keys import ClientKeys
from ..untaken import Untaken
from .connections import Owner
from .events import Arrived, Connect, Deliver, Disconnect, Disconnected, Send, Undeliverable
from .exchange import Exchange

MAX_RECEIVED_A_TURN = 256
COUNTED_BYTES = 1024
"""A message that may be dropped is counted from this payload on, until it has left. The socket holds few bytes of smaller
ones."""

# As plain numbers: arithmetic on ZeroMQ's enumerations takes longer than the calls that take them.
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)


class Performer:
    def __init__(
        self,
        exchange: Exchange,
        socket: "zmq.Socket[bytes]",
        deliver: Callable[[Owner, Event], None],
        host: Callable[[Effect], None],
        links: "dict[bytes, zmq.Socket[bytes]] | None" = None,
        contexts: ContextFrames | None = None,
        keys: ClientKeys | None = None,
        *,
        is_between_nodes: bool = False,
    ) -> None:
        """`deliver` takes the outcomes. `host` takes the effects that need more than the socket.

        Messages on the routes of `links` travel on sockets of their own, without contexts. `contexts` makes the frames of
        contexts; a client sends none. `keys` encrypt the connections that leave the machine; `is_between_nodes` if these
        lead to other nodes of a cluster.
        """
        self.exchange = exchange
        self.socket = socket
        self._deliver = deliver
        self._host = host
        self._links = links or {}
        self._contexts = contexts
        self._keys = keys
        self._is_between_nodes = is_between_nodes
        self.arrived: deque[list[bytes]] = deque()
        """Messages read when a connection was closed, which no socket announces. They precede those still in the
        socket."""
        self._untaken = Untaken()
        self._monitor: zmq.Socket[bytes] | None = None
        self.used: set[zmq.Socket[bytes]] = set()
        """Sockets used since the owner emptied the set. They may have messages that no descriptor announces."""
        self.next_at = exchange.timers.next_at
        """Returns the time at which `expire` has work to do, None if there is no timer."""

    def start(self, now: int) -> None:
        self._perform(self.exchange.start(now), now)

    def submit(self, owner: Owner, call: Call, now: int) -> None:
        self._perform(self.exchange.submit(owner, call, now), now)

    def cancel(self, cancel: CancelCall, now: int) -> None:
        self._perform(self.exchange.handle(cancel, now), now)

    def cast(self, cast: Cast, now: int) -> None:
        self._perform(self.exchange.cast(cast, now), now)

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Pass an event to the exchange, as to a machine: all effects are performed here."""
        if isinstance(event, Disconnected | PeerDown):
            self.receive(now)
        self._perform(self.exchange.handle(event, now), now)
        return []

    def expire(self, now: int) -> None:
        if self.exchange.timers.has_due(now):
            self._perform(self.exchange.expire(now), now)

    def receive(self, now: int) -> None:
        """Process the messages that have arrived, up to MAX_RECEIVED_A_TURN."""
        self.used.add(self.socket)
        for _ in range(MAX_RECEIVED_A_TURN):
            if self.arrived:
                frames = self.arrived.popleft()
            elif int(self.socket.get(_EVENTS)) & _READABLE:  # a check is cheaper than a failed receive
                frames = sockets.receive_frames(self.socket)
            else:
                self.used.discard(self.socket)  # found empty; a send that follows adds it again
                return
            self.arrive(frames[0], frames[1:], now)

    def receive_one(self, now: int) -> None:
        """Process one message, of a socket that is probably readable. Does not look for another one."""
        self.used.add(self.socket)
        if self.arrived:
            frames = self.arrived.popleft()
        else:
            try:
                frames = sockets.receive_frames(self.socket)
            except zmq.Again:
                return
        self.arrive(frames[0], frames[1:], now)

    def arrive(self, route: bytes, frames: list[bytes], now: int) -> None:
        """Process one message."""
        try:
            envelope, header, payload = split_envelope(frames)
        except ProtocolError:
            return  # no reply at all: no call waits for it
        self._perform(self.exchange.receive(Arrived(route, envelope, header, payload), now), now)

    def settle(self) -> None:
        """Forget messages that have left; called now and then."""
        self._untaken.settle_all()

    def monitor(self) -> "zmq.Socket[bytes]":
        """Return a monitor of the socket, to be polled; `follow_losses` reads it.

        The supervisor reports the ends of the peers of this node. ZeroMQ connects again to those of other nodes by
        itself, while the replies that were to come on the lost connection never arrive.
        """
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        return self._monitor

    def follow_losses(self, now: int) -> None:
        """Have the calls on lost connections to other nodes repeated, or failed."""
        assert self._monitor is not None
        self.used.add(self._monitor)
        for _, _, endpoint in sockets.monitor_events(self._monitor):
            if endpoint.startswith("tcp://"):
                self.handle(Disconnected(endpoint), now)

    def close(self) -> None:
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(0)
        self.socket.close(0)

    def _perform(self, effects: Iterable[Effect], now: int) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                failed = self._send(effect)
                if failed is not None:
                    self._perform(self.exchange.handle(failed, now), now)
            elif kind is Deliver:
                self._deliver(effect.owner, effect.event)
            elif kind is Connect:
                self.used.add(self.socket)
                sockets.connect_peer(
                    self.socket,
                    effect.route,
                    effect.endpoint,
                    self._keys,
                    is_between_nodes=self._is_between_nodes,
                )
            elif kind is Disconnect:
                self.used.add(self.socket)
                self.arrived.extend(sockets.disconnect_peer(self.socket, effect.endpoint))
                self._untaken.settle_all()
            else:
                self._host(effect)

    def _send(self, send: Send) -> Undeliverable | None:
        request = send.request
        header = request if isinstance(request, bytes) else encode_header(request)
        link = self._links.get(send.route)
        socket = self.socket if link is None else link
        frames: list[Any] = [send.route] if link is None else []
        if send.has_envelope:
            frames += (send.attempt.to_bytes(8, "big"), b"")
        if self._contexts is not None and link is None and send.context is not NO_CONTEXT:
            frames.append(self._contexts.own if send.context is None else self._contexts.frame(send.context))
        frames.append(header)
        frames += send.payload
        self.used.add(socket)
        if send.is_dropped_when_full and send.payload:
            size_bytes = sum(map(len, send.payload))
            if size_bytes >= COUNTED_BYTES:
                self._send_counted(send.route, frames, size_bytes)
                return None
        try:
            sockets.send_frames(socket, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return Undeliverable(send.route, send.attempt, error.errno == zmq.EAGAIN)
        return None

    def _send_counted(self, route: bytes, frames: list[Any], size_bytes: int) -> None:
        """Send a message unless too much that was sent to this receiver has not left yet."""
        if not self._untaken.take_room(route, size_bytes):
            return
        try:
            tracker = sockets.send_tracked(self.socket, frames)
        except zmq.ZMQError as error:
            self._untaken.give_back(route, size_bytes)
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return
        self._untaken.on_sent(route, size_bytes, tracker)
