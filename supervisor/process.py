"""The supervisor's process: one thread, one poll set, performs the decisions of the supervision machine.

    control socket     ready, heartbeats, exit reports, requests of actors and operators
    pidfds             deaths (deaths.py)
    signal pipe        SIGTERM and SIGINT stop the tree (stop_gate.py), another SIGINT kills it
    lifeline           a pipe from the embedding process: its end of file stops the tree
    timers             restarts, kills, the check for hangs
    launches           one at a time (launches.py); the fork server is not waited for

It loads no actor's code and holds no data. Messages are drained before deaths and deaths before timers, so that a
heartbeat that has arrived is not overlooked and an exit report precedes the death it explains. The work of a turn does
not grow with the number of children, apart from `status` itself and the check for hangs, which take some microseconds
for each: MAX_DRAIN_MS for messages, one launch to begin, one process to measure.
"""

import logging
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec
import zmq

from ..transport import sockets
from ..transport.actor import ActorContext
from ..transport.clock import Clock
from ..transport.codec import RequestDecoder, encode_header, envelope_of, id_of, is_json, split_envelope
from ..transport.endpoints import peer_id
from ..transport.machine import (
    CancelTimer,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from ..transport.origin import Origin
from ..transport.protocol.control import (
    ActorFailed,
    ActorReports,
    AwaitActs,
    AwaitStop,
    ConcludeStop,
    FallingAsleep,
    Heartbeat,
    Locate,
    Ready,
    ReplaceChild,
    StartChild,
    StopChild,
    Wake,
    Watch,
)
from ..transport.protocol.errors import ErrorBody, ProtocolError
from ..transport.protocol.message import ErrorReply
from ..transport.protocol.operations import Kill, Revive, Status
from ..transport.protocol.session import Cancel
from ..transport.server_connections import ServerConnections
from ..transport.timers import Timers
from . import events, logs
from .child import ChildParameters
from .deaths import DeathWatch
from .launcher import Launcher
from .launches import Launches
from .machine import SupervisorMachine
from .run_directory import remove_socket
from .status_reports import StatusReports

MAX_DRAIN_MS = 5
"""Time for which messages may delay everything else. ZeroMQ takes them from the connections in turn."""

_REQUESTS = RequestDecoder(
    (
        Ready,
        Heartbeat,
        ActorFailed,
        FallingAsleep,
        Locate,
        AwaitStop,
        ConcludeStop,
        AwaitActs,
        ActorReports,
        StartChild,
        ReplaceChild,
        StopChild,
        Cancel,
        Wake,
        Watch,
        Status,
        Kill,
        Revive,
    )
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the process beyond those of its machine."""

    run_directory: str
    data_directory: str
    control_endpoint: str
    instance_id: str
    secret: bytes
    """See `ActorContext.secret`."""
    is_secured: bool
    """See `ActorContext.is_secured`."""
    heartbeat_interval_ms: int
    hang_timeout_ms: int
    clock: Origin
    log_level: str
    log_format: str
    lifeline: int | None = None
    """A file descriptor whose end of file stops the tree."""
    max_connections: int
    """Connections to the control socket, from which on no more are accepted."""


class SupervisorProcess:
    """Runs one tree until it has stopped; then `failure` is the reason of a disorderly end, or empty.

    `on_up` and `on_failed` are called at most once, from `run`; `on_stopping` before a requested stop.
    """

    def __init__(
        self,
        machine: SupervisorMachine,
        launcher: Launcher,
        settings: Settings,
        *,
        on_up: Callable[[str], None],
        on_failed: Callable[[str], None],
        on_stopping: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._launcher = launcher
        self._settings = settings
        self._on_up = on_up
        self._on_failed = on_failed
        self._on_stopping = on_stopping
        self._clock = Clock(settings.clock)
        self._timers = Timers()
        self._pending: deque[events.Event] = deque()
        self._is_done = False
        self.failure = ""
        self._selector = selectors.DefaultSelector()
        self._deaths = DeathWatch(self._selector)
        self._reports = StatusReports()
        self._launches = Launches(launcher, self._selector, self._deaths, self._order_for)

    def run(self) -> None:
        self._listen_to_signals()
        self._launcher.warm_up()
        context = sockets.new_context()
        self._control = sockets.control_socket(context, None)
        self._connections = ServerConnections(
            context, self._control, self._settings.control_endpoint, limit=self._settings.max_connections
        )
        if self._settings.lifeline is not None:
            self._selector.register(self._settings.lifeline, selectors.EVENT_READ, self._on_lifeline)
        self._poller = zmq.Poller()
        for source in (self._control, self._connections.monitor, self._connections.queue):
            self._poller.register(source, zmq.POLLIN)
        # All other descriptors in one: the poll set stays small for any number of children.
        self._poller.register(self._selector.fileno(), zmq.POLLIN)
        self._dispatch(events.Begin())
        while not self._is_done:
            self._turn()
        self._connections.close()
        self._control.close()
        sockets.end_context(context)
        self._selector.close()

    def _turn(self) -> None:
        ready = dict(self._poller.poll(self._timeout_ms()))
        self._drain_control()
        if self._connections.monitor in ready:
            self._connections.gone()
        if self._connections.queue in ready:
            self._connections.admit()
        for key, _ in self._selector.select(0):
            if callable(key.data):
                key.data()
            else:
                self._deaths.on_readable(key.data, self._clock.now_ms())
        for death in self._deaths.deaths(self._clock.now_ms()):
            remove_socket(self._settings.run_directory, death.address, death.incarnation)
            self._dispatch(death)
        for timer in self._timers.pop_due(self._clock.now_ms()):
            self._dispatch(TimerFired(timer))
        self._give(self._launches.overdue(self._clock.now_ms()))
        self._give(self._launches.begin(self._on_launched, self._clock.now_ms()))
        if self._reports:
            reply = self._reports.step(self._clock.now_ms())
            if reply is not None:
                self._reply(reply)

    def _timeout_ms(self) -> int | None:
        if self._reports or self._launches.is_due:
            return 0
        sources = (self._timers, self._deaths, self._launches)
        wakes = [at for source in sources if (at := source.next_at()) is not None]
        return max(0, min(wakes) - self._clock.now_ms()) if wakes else None

    def _dispatch(self, event: events.Event) -> None:
        self._give([event])

    def _on_launched(self) -> None:
        self._give(self._launches.answered(self._clock.now_ms()))

    def _give(self, given: Sequence[events.Event]) -> None:
        self._pending += given
        while self._pending:
            for effect in self._machine.handle(self._pending.popleft(), self._clock.now_ms()):
                self._perform(effect)

    # Signals and the lifeline.

    def _listen_to_signals(self) -> None:
        self._signals, writer = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        # Blocked since the start of the program: signals that arrived meanwhile are handled now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        self._selector.register(self._signals, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self) -> None:
        for number in os.read(self._signals, 64):
            if number == signal.SIGINT and self._machine.is_stopping:
                self._dispatch(events.KillAll())
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._dispatch(events.StopAsked())

    def _on_lifeline(self) -> None:
        assert self._settings.lifeline is not None
        if not os.read(self._settings.lifeline, 64):
            self._selector.unregister(self._settings.lifeline)
            # Each child's own shutdown_ms bounds the stop; there is no deadline for the whole.
            self._dispatch(StopRequested(0))

    # Messages.

    def _drain_control(self) -> None:
        until = self._clock.now_ms() + MAX_DRAIN_MS
        while self._clock.now_ms() <= until and not self._reports.is_full:
            try:
                frames = self._control.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._on_message(frames[0], frames[1:])

    def _on_message(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            envelope, header, _ = split_envelope(frames)
        except ProtocolError as error:
            self._reply(Reply(Sender((peer, *envelope_of(frames)), None), error.body))
            return
        route = (peer, *envelope)
        try:
            request = _REQUESTS.decode(header)
        except ProtocolError as error:
            self._reply(Reply(Sender(route, id_of(header), is_json(header)), error.body))
            return
        if isinstance(request, Ready | Heartbeat | ActorFailed | FallingAsleep | Watch):
            if isinstance(request, ActorFailed | FallingAsleep):
                self._deaths.note_report(request.address, request.incarnation)
            self._dispatch(request)
        elif not isinstance(request, Cancel):  # whose sender ignores the answer to what it has withdrawn
            self._dispatch(Received(Sender(route, request.id, is_json(header)), request))

    # Effects.

    def _perform(self, effect: events.Effect) -> None:
        match effect:
            case events.Launch():
                self._launches.add(effect)
            case events.Signal():
                number = signal.Signals[effect.signal]
                self._pending += self._launches.signal(effect.address, effect.incarnation, number)
            case events.Tell():
                self._tell(effect)
            case Reply():
                self._reply(effect)
            case events.ReportStatus():
                self._reports.add(effect, self._clock.now_ms(), is_urgent=bool(self._launches))
            case SetTimer():
                self._timers.set(effect.key, effect.at)
            case CancelTimer():
                self._timers.cancel(effect.key)
            case events.Log():
                logs.event(_logger, _LEVELS[effect.level], effect.event, **effect.fields)
            case events.TreeUp():
                self._on_up(effect.endpoint)
            case events.StopBegins():
                self._on_stopping()
            case events.TreeFailed():
                self._on_failed(effect.reason)
            case Stop(reason=reason):
                self._is_done = True
                self.failure = reason
            case _:
                assert_never(effect)

    def _order_for(self, launch: events.Launch) -> ChildParameters:
        settings, spec = self._settings, launch.spec
        return ChildParameters(
            start=spec.start,
            context=ActorContext(
                address=spec.address,
                incarnation=launch.incarnation,
                arguments=spec.arguments,
                run_directory=settings.run_directory,
                data_directory=settings.data_directory,
                control_endpoint=settings.control_endpoint,
                instance_id=settings.instance_id,
                secret=settings.secret,
                is_secured=settings.is_secured,
                directory=spec.directory,
                heartbeat_interval_ms=settings.heartbeat_interval_ms,
                hang_timeout_ms=settings.hang_timeout_ms,
                clock=settings.clock,
                last_end=launch.last_end,
            ),
            log_level=settings.log_level,
            log_format=settings.log_format,
            surroundings=spec.surroundings,
        )

    def _tell(self, tell: events.Tell) -> None:
        if self._send([peer_id(tell.address, tell.incarnation), encode_header(tell.request)]) == zmq.EAGAIN:
            self._pending.append(events.ChildDeaf(tell.address, tell.incarnation))

    def _reply(self, reply: Reply) -> None:
        # A bare header without an id is a cast: the child would take a reply for a command.
        if reply.to.id is None and len(reply.to.route) == 1:
            return
        body = ErrorReply(error=reply.body) if isinstance(reply.body, ErrorBody) else reply.body
        if not isinstance(body, bytes):
            body.id = reply.to.id
            body = encode_header(body, reply.to.is_json)
        self._send([*reply.to.route, body])

    def _send(self, frames: list[bytes]) -> int | None:
        """Send a message. Return the error number if it failed: EHOSTUNREACH (gone) or EAGAIN (does not read)."""
        try:
            self._control.send_multipart(frames, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return error.errno
        return None
