"""The network thread of a client: owns the socket and its monitor, and runs the exchange.

One ROUTER, one turn of the loop: events of the monitor, messages of the socket, events posted by users, due timers. User
threads append to the inbox and wake the thread if it sleeps. Nothing here decides anything.

A thread that waits for an answer runs the turns itself while the socket is free (turn_taking.py).
"""

import os
import random
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar
from weakref import WeakSet

import zmq

from ..calls.connections import Owner
from ..calls.events import (
    Disconnected,
    HandshakeFailed,
    HandshakeFault,
    Resolved,
)
from ..calls.exchange import Exchange
from ..calls.retry import RetryPolicy
from ..clock import Clock
from ..endpoints import Endpoints, listed_endpoints
from ..forks import notify_of_fork
from ..machine import Event, Failed
from ..poller import Poller
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError
from ..protocol.message import Reply
from ..request_context import ContextFrames
from ..security.keys import NO_CREDENTIALS, ClientCredentials, ClientKeys
from ..sockets import (
    calls_socket,
    end_context,
    monitor_events,
    new_context,
)
from ..wake_pipe import WakePipe
from .broker_directory import BrokerDirectory
from .dispatch import Dispatch
from .errors import Closed, Forked
from .options import InvalidOption
from .probes import read_greeting, resolve
from .silence import Silence
from .tls_dialer import TlsDialer
from .turn_taking import TurnTaking
from .waiting import Waiter

ReplyT = TypeVar("ReplyT", bound=Reply)
_HANDSHAKE_FAULTS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
_MONITORED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_MECHANISM_MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_REFUSED = 400
"""ZAP's status of a key that is not admitted."""


class Dependant(Protocol):
    """An object whose user threads wait for events that only the network thread can bring."""

    def on_network_end(self, error: PlanariaError) -> None: ...


class NetworkThread:
    """Runs the exchange and its owners on a thread of its own."""

    def __init__(
        self,
        endpoint: Endpoints,
        *,
        client_id: str,
        metadata_timeout_ms: int,
        credentials: ClientCredentials = NO_CREDENTIALS,
        contexts: ContextFrames | None = None,
    ) -> None:
        """Connect. `contexts` are those of an actor of the broker: its requests need no other proof."""
        self._tls = None if credentials.tls is None else TlsDialer(credentials.tls)
        self.metadata_timeout_ms = metadata_timeout_ms
        self._clock = Clock()
        self.now_ms = self._clock.now_ms
        self._dependants: WeakSet[Dependant] = WeakSet()
        self._dependants_lock = threading.Lock()
        retry = RetryPolicy()
        self._directory = BrokerDirectory(
            _checked(endpoint),
            client_id=client_id,
            credentials=credentials,
            metadata_timeout_ms=metadata_timeout_ms,
            retry=retry,
            jitter=random.random,
        )
        self.topics = self._directory.topics
        """Metadata of the topics in use, only for reading, from any thread: entries are replaced, never changed."""
        self._waiters: set[Waiter] = set()
        self.last_contact_ms: int | None = None
        """Time of the last message of the broker, by `now_ms`."""
        self._pid = os.getpid()
        self.is_inherited = False
        """True if this process is a fork of the one in which the network thread runs."""
        self._silence = Silence()
        # Sockets that are left open would block the garbage collector, which ends their context.
        with ExitStack() as undo:
            self._make_sockets(retry, contexts, credentials.keys, undo)
            self._thread = threading.Thread(target=self._run, name="planaria-network", daemon=True)
            self._turns.thread = self._thread
            self._thread.start()
            undo.pop_all()
        notify_of_fork(self)

    def _make_sockets(
        self, retry: RetryPolicy, contexts: ContextFrames | None, keys: ClientKeys | None, undo: ExitStack
    ) -> None:
        """Make the sockets and the pipe, and their users."""
        self._context = new_context()
        undo.callback(end_context, self._context)
        self._socket = calls_socket(self._context)
        undo.callback(self._socket.close, 0)
        self._dispatch = Dispatch(
            Exchange(self._directory, retry=retry, jitter=random.random),
            self._socket,
            _is_here,
            self._silence.measure_ms,
            self._resolve,
            self._read_greeting,
            contexts,
            keys,
        )
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        undo.callback(self._monitor.close, 0)
        undo.callback(self._socket.disable_monitor)
        self._wakes = WakePipe()
        undo.callback(self._wakes.close)
        self._used = self._dispatch.performer.used
        self._poller = Poller(self._used)
        for source in (self._socket, self._monitor, self._wakes):
            self._poller.register(source)
        self._turns = TurnTaking(self._dispatch, self._turn, self._wakes.wake, self.now_ms)
        self._handover = self._turns.handover
        self.let_pass = self._turns.let_pass
        self.wait = self._turns.wait
        self.call_back = self._turns.call_back
        self.is_network_thread = self._turns.is_network_thread

    def on_fork(self) -> None:
        """Refuse everything from now on, and close the pipe. pyzmq itself leaves the parent's sockets alone."""
        self.is_inherited = True
        self._turns.on_fork(Forked(self._pid))
        self._wakes.on_fork()

    @property
    def is_lost(self) -> bool:
        """Return True if the network thread does not run any more, unclosed: this process is a fork of the one that
        has it, or the interpreter ends, and finalizers are the last code that runs."""
        return self.is_inherited or sys.is_finalizing()

    @property
    def has_session(self) -> bool:
        """Return True while the gateway accepts calls of this client."""
        return self._directory.has_session

    @property
    def owner(self) -> Owner:
        """The exchange with its performer, as the owner of posted events."""
        return self._dispatch.performer

    # For user threads.

    def post(self, owner: Owner, event: Event, *, is_waiting: bool = False) -> None:
        """Have the network thread call `owner.handle(event)` and perform the effects.

        `is_waiting`: the calling thread waits for the outcome in its next step, by `wait`.
        """
        self._dispatch.inbox.append((owner, event))
        self._handover.posted(is_waiting=is_waiting)

    def notify_of_end(self, dependant: Dependant) -> None:
        """Call its `on_network_end` when the network thread ends: the client was closed, or a bug ended
        the thread."""
        with self._dependants_lock:
            self._dependants.add(dependant)

    @property
    def failure(self) -> BaseException | None:
        """The reason why the network thread ended without a close, None if it did not."""
        return self._turns.failure

    @property
    def is_running(self) -> bool:
        return not (self._handover.is_stopping or sys.is_finalizing())

    def refuse_when_inherited(self) -> None:
        """Raise Forked in a child of the process that has the network thread."""
        if self.is_inherited:
            raise self._end()

    def refuse_when_closed(self) -> None:
        """Raise the reason if no request can be sent any more."""
        if not self.is_running:
            raise self._end()

    def _end(self) -> PlanariaError:
        if self._turns.failure is None:
            return Closed("the client is closed" if self._handover.is_stopping else "the interpreter ends")
        if isinstance(self._turns.failure, Forked):
            return self._turns.failure
        error = PlanariaError(f"the client's network thread failed: {self._turns.failure!r}")
        error.__cause__ = self._turns.failure
        return error

    def stop(self) -> None:
        """Let the thread end and fail all waiting threads, and do not wait for that."""
        self._handover.stop()

    def close(self) -> None:
        """Stop the thread and fail all waiting threads. Does nothing in a forked child."""
        if self.is_lost:
            return
        self.stop()
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        try:
            self._dispatch.start(self.now_ms())
            self._turns.run()
        except BaseException as error:
            self._turns.failure = error
            raise
        finally:
            self._handover.is_stopping = True
            if not self.is_inherited:  # otherwise a callback has forked, and the child owns nothing here
                self._clean_up()

    def _clean_up(self) -> None:
        self._notify_of_end()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        end_context(self._context)
        self._wakes.close()

    def _notify_of_end(self) -> None:
        with self._dependants_lock:
            left = list(self._dependants)
        for dependant in left:
            dependant.on_network_end(self._end())
        self._fail_waiters()
        self._turns.open_gates()

    def _fail_waiters(self) -> None:
        error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the client is closed")
        for waiter in list(self._waiters):
            waiter.handle(Failed(None, error), 0)

    def _turn(self, until: int | None = None, is_short: bool = False) -> int:
        """Sleep until there is work, or the time `until`, and do it, or little of it. Return the time."""
        dispatch, handover = self._dispatch, self._handover
        next_at = dispatch.next_at()
        if next_at is None or (until is not None and until < next_at):
            next_at = until
        handover.is_asleep = True
        if dispatch.is_busy:
            timeout_ms = 0
        else:
            timeout_ms = -1 if next_at is None else max(0, next_at - self.now_ms())
        ready = self._poller.wait(timeout_ms)
        handover.is_asleep = False
        now = self.now_ms()
        is_readable = False
        for source in ready:
            if source is self._socket:
                is_readable = True
                self.last_contact_ms = now
            elif source is self._monitor:
                self._read_monitor(now)
            else:
                self._wakes.clear()
        if is_readable and not is_short:
            dispatch.turn(now)
        else:
            dispatch.short_turn(now, is_readable)
        return now

    def _resolve(self, endpoint: str) -> None:
        def report(found: Resolved) -> None:
            self.post(self.owner, found)

        if self._tls is not None:
            self._tls.dial(endpoint, report)
        else:
            resolve(endpoint, report)

    def _read_greeting(self, endpoint: str) -> None:
        read_greeting(endpoint, lambda found: self.post(self.owner, found))

    def _read_monitor(self, now: int) -> None:
        self._used.add(self._monitor)
        for event, value, endpoint in monitor_events(self._monitor):
            if event in _HANDSHAKE_FAULTS:
                fault = _handshake_fault(event, value)
                self._dispatch.hand(self.owner, HandshakeFailed(endpoint, fault), now)
                continue
            self._silence.on_event(event, endpoint, value)
            if event != zmq.EVENT_CONNECTED:
                is_refused = event == zmq.EVENT_CONNECT_RETRIED
                self._dispatch.hand(self.owner, Disconnected(endpoint, is_refused), now)


def _handshake_fault(event: int, value: int) -> HandshakeFault:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == _REFUSED:
        return "refused"
    is_mismatch = event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH
    return "mechanism" if is_mismatch else "closed"


def _checked(endpoint: Endpoints) -> tuple[str, ...]:
    """Return the endpoints. Raises InvalidOption for a malformed one."""
    try:
        return listed_endpoints(endpoint)
    except ValueError as error:
        raise InvalidOption(f"endpoint: {error}") from error


def _is_here(run_directory: str, instance_id: str) -> bool:
    """Return True if the broker runs on this machine, for this user: its run directory with its instance is here."""
    try:
        return (Path(run_directory) / "instance").read_text(encoding="utf-8").strip() == instance_id
    except OSError:
        return False
