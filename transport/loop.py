"""The event loop of every actor: one thread that drains, decides, makes durable, replies.

A turn:

    wait          for the control link, the calls' replies, the server socket, watched files, the earliest timer
    drain         control first, then replies, then requests, each bounded in number, bytes and time, so that none
                  starves another and a turn stays short; external requests are read ahead and handled in turn
                  (inbox.py), others are handled as they come, from one connection after the other; lost connections of
                  external clients are ended in the time that the requests leave
    handle        every event goes to the machine, every effect is performed or gathered
    make durable  `Actor.end_turn`: one write and one sync for all appends of the turn; the machine is notified
    release       replies, calls and casts leave the process only now
    follow up     `Actor.follow_up`: work that none of them waits for
    beat          a heartbeat when one is due: it proves that the loop turns

The loop knows no topic, group or log. When the supervisor dies, the parent's sentinel becomes readable and the loop ends
after the current turn. The loop of an actor that needs its supervisor also ends when that hangs (supervisor_watch.py).
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
from .calls.exchange import Exchange
from .calls.peers import SUPERVISOR_ROUTE, PeerDirectory
from .calls.performer import Performer
from .calls.retry import RetryPolicy
from .clock import Clock
from .codec import RequestDecoder
from .machine import (
    Call,
    CancelCall,
    Cast,
    Effect,
    Reply,
    StopRequested,
    WallClockStepped,
)
from .meters import raw_report
from .poller import Poller
from .protocol.control import (
    ASLEEP_EXIT,
    FallingAsleep,
    Heard,
    Heartbeat,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Phase,
    Ready,
)
from .protocol.control import Stop as StopNotice
from .protocol.errors import DependencyUnavailable
from .protocol.message import Request
from .replies import Answer, Replies
from .request_context import ContextFrames
from .server_side import EXIT_FLUSH_MS, ServerSide
from .supervisor_watch import SupervisorWatch
from .turns import Outgoing, Turns

MAX_MESSAGES_PER_TURN = 256
MAX_BYTES_PER_TURN = 16 * 1024 * 1024
MAX_DRAIN_MS = 3
"""Time for which one socket's messages may delay the others. The current message is finished."""
MAX_EXTERNAL_DRAIN_MS = 1
"""The same in an actor with external clients, and the time for reading ahead. A newcomer waits for the turn in progress,
which takes three of these, and on a busy machine several times as long. No sync there is shared by a longer turn."""
MAX_CALLS_IN_FLIGHT = 50_000

_log = logging.getLogger("planaria.loop")

_FROM_SUPERVISOR = RequestDecoder((PeerUp, PeerDown, PeersAsleep, StopNotice, Heard))


class Loop(Turns[Any]):
    """Runs one actor until it stops."""

    clock_ns = staticmethod(time.monotonic_ns)

    def __init__(self, actor: Actor[Any, Any], context: ActorContext) -> None:
        super().__init__(actor, context)
        self._clock = Clock(context.clock, context.address)
        self._now_ms = self._clock.now_ms
        self._drain_ms = MAX_EXTERNAL_DRAIN_MS if actor.follows_hosts else MAX_DRAIN_MS
        self._last_reading = WallClockStepped(0)
        self._replies = Replies(self.meters)
        self._watched: dict[Any, Callable[[], None]] = {}
        self._phase: Phase = "starting"
        self._turns = 0
        self._next_beat = 0
        self._supervisor: SupervisorWatch | None = None
        if actor.needs_supervisor:
            self._supervisor = SupervisorWatch(context.hang_timeout_ms, context.heartbeat_interval_ms)
        self._ended_at = 0
        """The time at the end of the last turn."""
        self._zmq = sockets.new_context()
        self._link = sockets.control_link(
            self._zmq, context.control_endpoint, context.address, context.incarnation
        )
        self._contexts = ContextFrames(context.secret)
        self._peer_door = actor.peer_door()
        exchange = Exchange(
            PeerDirectory(context.address, context.incarnation, context.directory),
            retry=RetryPolicy(),
            jitter=random.random,
            max_in_flight=MAX_CALLS_IN_FLIGHT,
        )
        self._calls = Performer(
            exchange,
            sockets.calls_socket(self._zmq),
            lambda _, outcome: self.dispatch(outcome),
            refuse,
            {SUPERVISOR_ROUTE: self._link},
            self._contexts,
            actor.client_keys() if self._peer_door is None else self._peer_door.client_keys,
            is_between_nodes=self._peer_door is not None,
        )
        self._call_timers = exchange.timers
        self._used = self._calls.used
        """Sockets to be asked for their events before the next wait (poller.py)."""
        self._server: ServerSide | None = None
        self._poller = Poller(self._used, sockets.has_message)

    @property
    def now(self) -> int:
        return self._clock.now_ms()

    @property
    def wall_offset_ms(self) -> int:
        return self._clock.offset_ms

    @property
    def slept_ms(self) -> int:
        return self._clock.slept_ms

    def run(self) -> bool:
        """Start the actor, serve until it stops or the supervisor has ended, then close. Return True if it sleeps."""
        self.progress()
        if self._actor.endpoint() is not None:
            self._server = ServerSide(
                self._zmq,
                self._actor,
                self._contexts,
                self.dispatch,
                self._answer,
                self.clock_ns,
                self._peer_door,
            )
            self.peer_endpoint = self._server.peer_endpoint
            for source in (*self._server.sources, self._server.socket):
                self._poller.register(source)
        if self._peer_door is not None:
            self.watch(self._calls.monitor(), lambda: self._calls.follow_losses(self._now_ms()))
        self._actor.start()
        for source in (self._link, self._calls.socket, self.context.parent_sentinel):
            if source is not None:
                self._poller.register(source)
        # Messages made by `start` leave before `ready` does.
        self._end_turn()
        if not self._actor.ready_by_itself:
            self.ready()
        while not self._stopping:
            self._turn()
        self._finish()
        return self._sleep is not None

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

    def progress(self) -> None:
        """Show that a long step goes on. Raises DependencyUnavailable during a start whose supervisor has died: a
        controller that went on alone would register a node that is down."""
        if self._phase != "ready" and _is_orphaned(self.context):
            raise DependencyUnavailable("the supervisor has died")
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
                endpoint=self._server.endpoint if self._server is not None else self._actor.shown_endpoint(),
                is_death_accounted=self._actor.is_death_accounted,
            )
        )
        self._beat()

    def watch(self, source: Any, callback: Callable[[], None]) -> None:
        self._watched[source] = callback
        self._poller.register(source)

    def _turn(self) -> None:
        ready = self._poller.wait(self._timeout_ms())
        if self.context.parent_sentinel in ready:
            self._stopping = True
            return
        if self._link in ready:
            self._drain(self._link, self._on_control)
        if self._calls.arrived:
            self._calls.receive(self.now)
        if self._calls.socket in ready:
            self._drain(self._calls.socket, self._on_call_message)
        if self._server is not None:
            self._serve(self._server, ready)
        for source in ready:
            if source in self._watched:
                self._watched[source]()
        self._end_turn()

    def _serve(self, server: ServerSide, ready: list[Any]) -> None:
        inbox = server.inbox
        if server.zap is not None and server.zap.socket in ready and server.zap.answer():
            self._used.add(server.zap.socket)
        if server.socket in ready:
            if inbox is None:
                self._drain(server.socket, server.on_request, server.note)
            elif inbox.is_full:
                self._used.add(server.socket)
            elif server.read_first(self.meters):
                self._drain(server.socket, inbox.put, server.note)
        if server.follow_connections(ready):
            self._used.add(server.socket)
        if not inbox and not server.ended:
            return
        ends_at = self._now_ms() + self._drain_ms
        while inbox:
            server.on_request(inbox.take())
            if self._replies.large_bytes > MAX_BYTES_PER_TURN or self._now_ms() >= ends_at:
                break
        while server.ended:
            server.end_next()
            if self._now_ms() >= ends_at:
                return

    def _end_turn(self) -> None:
        self._turns += 1
        super()._end_turn()
        self._ended_at = self._now_ms()
        if self._ended_at >= self._next_beat:
            self._beat(is_answered=self._asks_supervisor())
            self._ended_at = self._now_ms()

    def _expire_calls(self, now: int) -> None:
        if self._call_timers.has_due(now):
            self._calls.expire(now)

    def _timeout_ms(self) -> int:
        if self._server is not None and (self._server.inbox or self._server.ended):
            return 0
        wake_at = self._next_beat
        for at in (self._timers.next_at(), self._calls.next_at()):
            if at is not None and at < wake_at:
                wake_at = at
        return max(0, wake_at - self._ended_at)

    def _drain(
        self,
        socket: "zmq.Socket[bytes]",
        take: Callable[[list[bytes]], None],
        note: Callable[[Any], None] | None = None,
    ) -> None:
        size = 0
        ends_at: int | None = None
        for _ in range(MAX_MESSAGES_PER_TURN):
            try:
                frames = sockets.receive_frames(socket, note)
            except zmq.Again:
                return
            take(frames)
            message_bytes = sum(map(len, frames))
            self.meters.on_received(message_bytes)
            size += message_bytes
            # A check is cheaper than an exception.
            if not sockets.has_message(socket):
                return
            if size > MAX_BYTES_PER_TURN or self._replies.large_bytes > MAX_BYTES_PER_TURN:
                break
            now = self._now_ms()
            if ends_at is None:
                ends_at = now + self._drain_ms  # most turns have one message, and need no clock
            elif now >= ends_at:
                break
        self._used.add(socket)

    def _on_call_message(self, frames: list[bytes]) -> None:
        self._calls.arrive(frames[0], frames[1:], self._now_ms())

    def _on_control(self, frames: list[bytes]) -> None:
        if not is_order(frames):
            self._calls.arrive(SUPERVISOR_ROUTE, frames, self.now)
            return
        order = _FROM_SUPERVISOR.decode(frames[0])
        if isinstance(order, Heard):
            if self._supervisor is not None:
                self._supervisor.on_answer()
            return
        if isinstance(order, StopNotice):
            self._phase = "stopping"
            # The deadline is by the supervisor's clock, which no test moves.
            deadline_ms = order.deadline_ms + self._clock.ahead_ms
            self.dispatch(StopRequested(deadline_ms, order.keeps_place))
            return
        self._calls.handle(order, self.now)
        self.dispatch(order)

    def _answer(self, reply: Reply) -> None:
        self._outbox.append(self._replies.make(reply))

    def _send_reply(self, answer: Answer) -> None:
        assert self._server is not None
        self._used.add(self._server.socket)
        self._replies.send(self._server.socket, answer)

    def _send_out(self, effect: Outgoing) -> None:
        if isinstance(effect, Call | Cast):
            header_bytes = len(effect.request) if isinstance(effect.request, bytes) else 0
            self.meters.on_sent(header_bytes + sum(map(len, effect.payload)))
        if isinstance(effect, Call):
            self._calls.submit(self._actor.machine, effect, self._now_ms())
        elif isinstance(effect, Cast):
            self._calls.cast(effect, self.now)
        elif isinstance(effect, CancelCall):
            self._calls.cancel(effect, self.now)
        else:
            self._calls.handle(effect, self.now)

    def _tell_supervisor(self, request: Request) -> None:
        self._calls.cast(Cast(SUPERVISOR, request), self.now)

    def _follow_the_wall_clock(self) -> None:
        step_ms = self._clock.follow()
        if step_ms:
            fields = {"step_ms": step_ms, "offset_ms": self._clock.offset_ms}
            _log.warning("the wall clock has stepped", extra={"fields": fields})
        reading = WallClockStepped(self._clock.offset_ms, self._clock.slept_ms, self._clock.ahead_ms)
        if reading != self._last_reading and self._actor.follows_wall_clock and self._phase == "ready":
            self._last_reading = reading
            self.dispatch(reading)

    def _beat(self, *, is_answered: bool = False) -> None:
        self._follow_the_wall_clock()
        self._next_beat = self.now + self.context.heartbeat_interval_ms
        self._replies.settle()
        self._calls.settle()
        inbox = None
        if self._server is not None:
            inbox = self._server.inbox
            self._server.judge_connections(self._now_ms())
        gauges = {
            "requests_waiting": len(inbox) if inbox is not None else 0,
            "calls_in_flight": len(self._calls.exchange),
        }
        self._tell_supervisor(
            Heartbeat(
                address=self.context.address,
                incarnation=self.context.incarnation,
                phase=self._phase,
                turns=self._turns,
                report=raw_report(self.meters.report(self._actor, self._phase == "ready", gauges)),
                is_answered=is_answered,
            )
        )

    def _asks_supervisor(self) -> bool:
        """Return True if the heartbeat is to be answered; the loop ends if earlier ones should have been."""
        if self._supervisor is None or self._phase != "ready":
            return False
        if self._supervisor.on_heartbeat(self.now):
            fields = {"limit_ms": self.context.hang_timeout_ms}
            _log.error("the supervisor does not answer: this actor ends", extra={"fields": fields})
            self._stopping = True
        return True

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._calls.close()
        self._link.setsockopt(zmq.LINGER, EXIT_FLUSH_MS)
        self._link.close()
        sockets.end_context(self._zmq)


def _is_orphaned(context: ActorContext) -> bool:
    sentinel = context.parent_sentinel
    return sentinel is not None and bool(zmq.zmq_poll([(sentinel, zmq.POLLIN)], 0))


def refuse(effect: Effect) -> None:
    """Fail on an effect of the exchange that only clients perform."""
    raise AssertionError(f"an actor does not perform {effect!r}")


def is_order(frames: list[bytes]) -> bool:
    """Return True if the supervisor sent a message of its own (a bare header), not a reply to a call."""
    return len(frames) == 1


def run_actor(actor: Actor[Any, Any], context: ActorContext) -> None:
    """Run an actor in this process until it stops. Called by each actor's `main(context)`.

    Raises:
        SystemExit: it sleeps; the exit status tells the supervisor so.
    """
    if Loop(actor, context).run():
        raise SystemExit(ASLEEP_EXIT)
