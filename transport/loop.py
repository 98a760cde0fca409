"""The event loop of every actor: one thread that drains, decides, makes durable, replies.

A turn:

    wait          for the control link, the calls' replies, the server socket, watched files, the earliest timer
    drain         control first, then replies, then requests, each bounded in number, bytes and time, so that none
                  starves another and a turn stays short; external requests are read ahead and handled in turn
                  (inbox.py), others are handled as they come, from one connection after the other
    handle        every event goes to the machine, every effect is performed or gathered
    make durable  `Actor.end_turn`: one write and one sync for all appends of the turn; the machine is notified
    release       replies, calls and casts leave the process only now
    beat          a heartbeat when one is due: it proves that the loop turns

The loop knows no topic, group or log. When the supervisor dies, the parent's sentinel becomes readable and the loop ends
after the current turn.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import zmq

from . import sockets
from .actor import Actor, ActorContext
from .addresses import SUPERVISOR
from .calls.connections import Owner
from .calls.exchange import Exchange
from .calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from .calls.performer import Performer
from .calls.retry import RetryPolicy
from .clock import Clock
from .codec import RequestDecoder, envelope_of, id_of, is_json, split_envelope
from .inbox import Inbox
from .machine import (
    Call,
    CancelCall,
    Cast,
    Connected,
    Disconnected,
    Effect,
    Event,
    Received,
    Reply,
    Sender,
    StopRequested,
    WallClockStepped,
)
from .meters import raw_report
from .protocol.control import FallingAsleep, Heartbeat, PeerDown, PeersAsleep, PeerUp, Phase, Ready
from .protocol.control import Stop as StopNotice
from .protocol.errors import ProtocolError
from .protocol.message import Request
from .replies import Answer, Replies
from .request_context import ContextFrames, direct_context
from .server_connections import ServerConnections
from .turns import Turns

MAX_MESSAGES_PER_TURN = 256
MAX_BYTES_PER_TURN = 16 * 1024 * 1024
MAX_DRAIN_MS = 3
"""Time for which one socket's messages may delay the others. The current message is finished."""
MAX_READING_MS = 2
"""Part of MAX_DRAIN_MS for reading ahead."""
MAX_CALLS_IN_FLIGHT = 50_000
EXIT_FLUSH_MS = 500
"""Time for a stopping actor's last replies to leave."""

_log = logging.getLogger("planaria.loop")
# As plain numbers: arithmetic on ZeroMQ's enumerations takes longer than the calls that take them.
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)

_FROM_SUPERVISOR = RequestDecoder((PeerUp, PeerDown, PeersAsleep, StopNotice))


class Loop(Turns[Any]):
    """Runs one actor until it stops."""

    def __init__(self, actor: Actor[Any, Any], context: ActorContext) -> None:
        super().__init__(actor, context)
        self._clock = Clock(context.clock, context.address)
        self._told = WallClockStepped(0)
        self._replies = Replies(self.meters)
        self._watched: dict[Any, Callable[[], None]] = {}
        self._decoder = actor.decoder
        self._phase: Phase = "starting"
        self._turns = 0
        self._next_beat = 0
        self._zmq = sockets.new_context()
        self._link = sockets.control_link(
            self._zmq, context.control_endpoint, context.address, context.incarnation
        )
        self._contexts = ContextFrames(context.secret)
        exchange = Exchange(
            PeerDirectory(context.address, context.incarnation, context.directory),
            retry=RetryPolicy(),
            jitter=random.random,
            max_in_flight=MAX_CALLS_IN_FLIGHT,
        )
        self._calls = Performer(
            exchange,
            sockets.calls_socket(self._zmq),
            self._on_outcome,
            self._refuse,
            {SUPERVISOR_ROUTE: self._link},
            self._contexts,
        )
        self._server: zmq.Socket[bytes] | None = None
        self._endpoint: str | None = None
        self._connections: ServerConnections | None = None
        self._hosts: dict[bytes, str] = {}
        self._inbox: Inbox | None = Inbox(self._hosts) if actor.follows_hosts else None
        self._poller = zmq.Poller()

    @property
    def now(self) -> int:
        return self._clock.now_ms()

    def clock_us(self) -> int:
        return time.monotonic_ns() // 1_000

    @property
    def wall_offset_ms(self) -> int:
        return self._clock.offset_ms

    @property
    def slept_ms(self) -> int:
        return self._clock.slept_ms

    def run(self) -> None:
        """Start the actor, serve until it stops or the supervisor has ended, then close."""
        self.progress()
        endpoint = self._actor.endpoint()
        if endpoint is not None:
            self._open(endpoint)
        self._actor.start()
        for source in (self._link, self._calls.socket, self._server, self.context.parent_sentinel):
            if source is not None:
                self._poller.register(source, zmq.POLLIN)
        # Messages made by `start` leave before `ready` does.
        self._end_turn()
        if not self._actor.ready_by_itself:
            self.ready()
        while not self._stopping:
            self._turn()
        self._finish()

    def _finish(self) -> None:
        """End the actor, and report as the last message that it sleeps, if it does."""
        self._actor.close()
        if self._sleep is not None:
            self._tell_supervisor(
                FallingAsleep(
                    address=self.context.address,
                    incarnation=self.context.incarnation,
                    reason=self._sleep.reason,
                    wake_after_ms=self._sleep.wake_after_ms,
                )
            )
        self._close()

    def _open(self, endpoint: str) -> None:
        is_local = endpoint.startswith("ipc://")
        self._server = sockets.server_socket(self._zmq, None if is_local else endpoint)
        self._server.setsockopt(zmq.LINGER, EXIT_FLUSH_MS)
        self._endpoint = endpoint if is_local else self._server.getsockopt_string(zmq.LAST_ENDPOINT)
        on_new = self._on_connected if self._actor.follows_hosts else None
        self._connections = ServerConnections(self._zmq, self._server, endpoint, on_new)
        self._poller.register(self._connections.monitor, zmq.POLLIN)
        if is_local:
            self._poller.register(self._connections.queue, zmq.POLLIN)

    def progress(self) -> None:
        if self._phase == "starting" and self._turns:
            self._phase = "recovering"
        self._turns += 1
        self._beat()

    def ready(self) -> None:
        self._phase = "ready"
        self._tell_supervisor(
            Ready(
                address=self.context.address,
                incarnation=self.context.incarnation,
                endpoint=self._endpoint,
                is_death_accounted=self._actor.is_death_accounted,
            )
        )
        self._beat()

    def watch(self, source: Any, callback: Callable[[], None]) -> None:
        self._watched[source] = callback
        self._poller.register(source, zmq.POLLIN)

    def _turn(self) -> None:
        ready = dict(self._poller.poll(self._timeout_ms()))
        if self.context.parent_sentinel in ready:
            self._stopping = True
            return
        if self._link in ready:
            self._drain(self._link, self._on_control)
        if self._calls.has_arrived:
            self._calls.receive(self.now)
        if self._calls.socket in ready:
            self._drain(self._calls.socket, self._on_call_reply)
        if self._server is not None and self._server in ready:
            if self._inbox is None:
                self._drain(self._server, self._on_request)
            elif not self._inbox.is_full:
                self._drain(self._server, self._inbox.put, MAX_READING_MS)
        if self._connections is not None:
            self._follow_connections(self._connections, ready)
        if self._inbox:
            self._handle_requests(self._inbox)
        for source in ready:
            if source in self._watched:
                self._watched[source]()
        self._end_turn()

    def _follow_connections(self, connections: ServerConnections, ready: dict[Any, int]) -> None:
        if connections.monitor in ready:
            # After the requests: a connection that sent one and then ended is entered first, and removed
            # again.
            for connection in connections.gone():
                self._on_disconnected(connection)
        if connections.queue in ready:
            connections.admit()

    def _on_connected(self, connection: bytes, host: str) -> None:
        self._hosts[connection] = host
        self.dispatch(Connected(connection, host))

    def _on_disconnected(self, connection: bytes) -> None:
        self._hosts.pop(connection, None)
        if self._inbox is not None:
            self._inbox.forget(connection)
        self.dispatch(Disconnected(connection))

    def _handle_requests(self, inbox: Inbox) -> None:
        ends_at = self.now + MAX_DRAIN_MS
        while inbox:
            self._on_request(inbox.take())
            if self._replies.large_bytes > MAX_BYTES_PER_TURN or self.now >= ends_at:
                return

    def _end_turn(self) -> None:
        self._turns += 1
        super()._end_turn()
        if self.now >= self._next_beat:
            self._beat()

    def _expire_calls(self, now: int) -> None:
        self._calls.expire(now)

    def _timeout_ms(self) -> int:
        if self._inbox:
            return 0
        wake_at = self._next_beat
        for at in (self._timers.next_at(), self._calls.next_at()):
            if at is not None and at < wake_at:
                wake_at = at
        return max(0, wake_at - self.now)

    def _drain(
        self, socket: "zmq.Socket[bytes]", take: Callable[[list[bytes]], None], limit_ms: int = MAX_DRAIN_MS
    ) -> None:
        size = 0
        ends_at = self.now + limit_ms
        note = None
        if self._actor.follows_connections and self._connections is not None and socket is self._server:
            note = self._connections.note
        for _ in range(MAX_MESSAGES_PER_TURN):
            try:
                frames = sockets.receive_frames(socket, note)
            except zmq.Again:
                return
            take(frames)
            message_bytes = sum(map(len, frames))
            self.meters.on_received(message_bytes)
            size += message_bytes
            is_enough = size > MAX_BYTES_PER_TURN or self._replies.large_bytes > MAX_BYTES_PER_TURN
            is_enough = is_enough or self.now >= ends_at
            # A check is cheaper than an exception.
            if is_enough or not int(socket.get(_EVENTS)) & _READABLE:
                return

    def _on_control(self, frames: list[bytes]) -> None:
        if not is_order(frames):
            self._calls.arrive(SUPERVISOR_ROUTE, frames, self.now)
            return
        order = _FROM_SUPERVISOR.decode(frames[0])
        if isinstance(order, StopNotice):
            self._phase = "stopping"
            self.dispatch(StopRequested(order.deadline_ms))
            return
        self._calls.handle(order, self.now)
        self.dispatch(order)

    def _on_call_reply(self, frames: list[bytes]) -> None:
        self._calls.arrive(frames[0], frames[1:], self.now)

    def _on_outcome(self, _: Owner, outcome: Event) -> None:
        self.dispatch(outcome)

    def _refuse(self, effect: Effect) -> None:
        raise AssertionError(f"an actor does not perform {effect!r}")

    def _on_request(self, frames: list[bytes]) -> None:
        context = self._contexts.take(frames)
        peer, rest = frames[0], frames[1:]
        try:
            envelope, header, payload = split_envelope(rest)
        except ProtocolError as error:
            self._answer(Reply(Sender((peer, *envelope_of(rest)), None), error.body))
            return
        route = (peer, *envelope)
        try:
            assert self._decoder is not None
            request = self._decoder.decode(header, len(payload))
        except ProtocolError as error:
            self._answer(Reply(Sender(route, id_of(header), is_json(header)), error.body))
            return
        if context is None:
            context = direct_context(peer, request)
        sender = Sender(route, request.id, is_json(header), type(request))
        self.dispatch(Received(sender, request, payload, header, context))

    def _answer(self, reply: Reply) -> None:
        self._outbox.append(self._replies.make(reply))

    def _release(self) -> None:
        super()._release()
        self._replies.large_bytes = 0

    def _send_reply(self, answer: Answer) -> None:
        assert self._server is not None
        self._replies.send(self._server, answer)

    def _send_out(self, effect: Call | CancelCall | Cast) -> None:
        if not isinstance(effect, CancelCall):
            header_bytes = len(effect.request) if isinstance(effect.request, bytes) else 0
            self.meters.on_sent(header_bytes + sum(map(len, effect.payload)))
        if isinstance(effect, Call):
            self._calls.submit(self._actor.machine, effect, self.now)
        elif isinstance(effect, Cast):
            self._calls.cast(effect, self.now)
        else:
            self._calls.cancel(effect, self.now)

    def _tell_supervisor(self, request: Request) -> None:
        self._calls.cast(Cast(SUPERVISOR, request), self.now)

    def _follow_the_wall_clock(self) -> None:
        step_ms = self._clock.follow()
        if step_ms:
            fields = {"step_ms": step_ms, "offset_ms": self._clock.offset_ms}
            _log.warning("the wall clock has stepped", extra={"fields": fields})
        reading = WallClockStepped(self._clock.offset_ms, self._clock.slept_ms)
        if reading != self._told and self._actor.follows_wall_clock and self._phase == "ready":
            self._told = reading
            self.dispatch(reading)

    def _beat(self) -> None:
        self._follow_the_wall_clock()
        self._next_beat = self.now + self.context.heartbeat_interval_ms
        self._replies.settle()
        self._calls.settle()
        gauges = {
            "requests_waiting": len(self._inbox) if self._inbox is not None else 0,
            "calls_in_flight": len(self._calls.exchange),
        }
        self._tell_supervisor(
            Heartbeat(
                address=self.context.address,
                incarnation=self.context.incarnation,
                phase=self._phase,
                turns=self._turns,
                report=raw_report(self.meters.report(self._actor, self._phase == "ready", gauges)),
            )
        )

    def _close(self) -> None:
        if self._connections is not None:
            self._connections.close()
        if self._server is not None:
            self._server.close()
        self._calls.close()
        self._link.setsockopt(zmq.LINGER, EXIT_FLUSH_MS)
        self._link.close()
        sockets.end_context(self._zmq)


def is_order(frames: list[bytes]) -> bool:
    """Return True if the supervisor sent a message of its own (a bare header), not a reply to a call."""
    return len(frames) == 1


def run_actor(actor: Actor[Any, Any], context: ActorContext) -> None:
    """Run an actor in this process until it stops. Called by each actor's `main(context)`."""
    Loop(actor, context).run()
