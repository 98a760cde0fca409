"""The network thread of a client: owns the socket and its monitor, and runs the exchange.

One thread, one ROUTER, one turn of the loop: events of the monitor, messages of the socket, events posted by users,
due timers. User threads only append to the inbox and wake the thread if it sleeps. Nothing here decides anything.

A waiting user thread does not run the turns itself, although that would spare two thread switches (35 us of a publish
of 500). Signal handlers run in the main thread between any two bytecode instructions, and Ctrl-C or any other
exception of a program's handler would leave a machine half changed. Replacing the handlers during a turn does not
help: other code sets them too, some of it in C.
"""

import os
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar
from weakref import WeakSet

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..calls.connections import Owner
from ..calls.events import (
    Disconnected,
    Resolved,
)
from ..calls.exchange import Exchange
from ..calls.retry import RetryPolicy
from ..clock import Clock
from ..endpoints import CONNECTED_IN_WORDS, tcp_host_and_port
from ..forks import tell_of_fork
from ..machine import Event, Failed
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError
from ..protocol.message import Reply
from ..sockets import (
    calls_socket,
    end_context,
    new_context,
)
from .broker_directory import BrokerDirectory
from .dispatch import Dispatch
from .errors import Closed, Forked
from .gate import Opened, forbid_waiting
from .options import InvalidOption
from .resolver import resolve
from .silence import Silence
from .waiting import Waiting

ReplyT = TypeVar("ReplyT", bound=Reply)
_MONITORED = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class Dependant(Protocol):
    """An object whose user threads wait for events that only the network thread can bring."""

    def on_network_end(self, error: PlanariaError) -> None: ...


class NetworkThread:
    """Runs the exchange and its owners on a thread of its own."""

    def __init__(self, endpoint: str, *, client_id: str, metadata_timeout_ms: int) -> None:
        self.metadata_timeout_ms = metadata_timeout_ms
        self._clock = Clock()
        self._dependants: WeakSet[Dependant] = WeakSet()
        self._dependants_lock = threading.Lock()
        retry = RetryPolicy()
        self._directory = BrokerDirectory(
            _checked(endpoint),
            client_id=client_id,
            metadata_timeout_ms=metadata_timeout_ms,
            retry=retry,
            jitter=random.random,
        )
        self.topics = self._directory.topics
        """Metadata of the topics in use, only for reading, from any thread: entries are replaced, never changed."""
        self._waiters: set[Waiting] = set()
        self._passed: list[Opened] = []
        self.last_contact_ms: int | None = None
        """Time of the last message of the broker, by `now_ms`."""
        self._is_asleep = False
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._pid = os.getpid()
        self.is_inherited = False
        """True if this process is a fork of the one in which the network thread runs."""
        self._context = new_context()
        self._socket = calls_socket(self._context)
        self._silence = Silence()
        self._dispatch = Dispatch(
            Exchange(self._directory, retry=retry, jitter=random.random),
            self._socket,
            _is_here,
            self._silence.measure_ms,
            self._resolve,
        )
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="planaria-network", daemon=True)
        self._thread.start()
        tell_of_fork(self)

    def on_fork(self) -> None:
        """Refuse everything from now on, and close the pipe. pyzmq itself leaves the parent's sockets alone."""
        self.is_inherited = self._is_stopping = True
        self._failure = Forked(self._pid)
        self._is_asleep = False
        for descriptor in (self._wake_reader, self._wake_writer):
            with suppress(OSError):
                os.close(descriptor)
        self._wake_reader = self._wake_writer = -1

    @property
    def has_session(self) -> bool:
        """Return True while the gateway accepts calls of this client."""
        return self._directory.has_session

    @property
    def owner(self) -> Owner:
        """The exchange with its performer, as the owner of posted events."""
        return self._dispatch.performer

    def now_ms(self) -> int:
        return self._clock.now_ms()

    # For user threads.

    def post(self, owner: Owner, event: Event) -> None:
        """Have the network thread call `owner.handle(event)` and perform the effects."""
        self._dispatch.inbox.append((owner, event))
        if self._is_asleep:
            self._is_asleep = False
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"\0")
        except OSError:  # full: the thread is awake; closed: it has ended
            return

    def tell_of_end(self, dependant: Dependant) -> None:
        """Call its `on_network_end` when the network thread ends: the client was closed, or a bug ended
        the thread."""
        with self._dependants_lock:
            self._dependants.add(dependant)

    def is_network_thread(self) -> bool:
        return threading.current_thread() is self._thread

    @property
    def failure(self) -> BaseException | None:
        """The reason why the network thread ended without a close, None if it did not."""
        return self._failure

    @property
    def is_running(self) -> bool:
        return not self._is_stopping

    def refuse_when_inherited(self) -> None:
        """Raise Forked in a child of the process that has the network thread."""
        if self.is_inherited:
            raise self._end()

    def refuse_when_closed(self) -> None:
        """Raise the reason if no request can be sent any more."""
        if self._is_stopping:
            raise self._end()

    def _end(self) -> PlanariaError:
        if self._failure is None:
            return Closed("the client is closed")
        if isinstance(self._failure, Forked):
            return self._failure
        error = PlanariaError(f"the client's network thread failed: {self._failure!r}")
        error.__cause__ = self._failure
        return error

    def close(self) -> None:
        """Stop the thread and fail all waiting threads. Does nothing in a forked child."""
        if self.is_inherited:
            return
        self._is_stopping = True
        self._wake()
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        forbid_waiting()
        try:
            self._dispatch.start(self.now_ms())
            poller = zmq.Poller()
            for source in (self._socket, self._monitor, self._wake_reader):
                poller.register(source, zmq.POLLIN)
            while not self._is_stopping:
                self._turn(poller)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._is_stopping = True
            if not self.is_inherited:  # otherwise a callback has forked, and the child owns nothing here
                self._clean_up()

    def _clean_up(self) -> None:
        self._tell_of_end()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        end_context(self._context)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _tell_of_end(self) -> None:
        with self._dependants_lock:
            left = list(self._dependants)
        for dependant in left:
            dependant.on_network_end(self._end())
        self._fail_waiters()
        self._open_gates()

    def let_pass(self, gate: Opened) -> None:
        """Open a gate at the end of the turn.

        The waiting thread needs the interpreter lock, which this thread gives up only when it has no work
        left. Woken earlier it would sleep again waiting for the lock, and have to be woken a second time.
        """
        self._passed.append(gate)

    def _open_gates(self) -> None:
        while self._passed:  # a gate may announce another one
            passed, self._passed = self._passed, []
            for gate in passed:
                gate.open()

    def _fail_waiters(self) -> None:
        error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the client is closed")
        for waiter in list(self._waiters):
            waiter.handle(Failed(None, error), 0)

    def _turn(self, poller: zmq.Poller) -> None:
        next_at = self._dispatch.next_at()
        timeout_ms = None if next_at is None else max(0, next_at - self.now_ms())
        self._open_gates()
        self._is_asleep = True
        ready = dict(poller.poll(0 if self._dispatch.is_busy else timeout_ms))
        self._is_asleep = False
        if self._wake_reader in ready:
            os.read(self._wake_reader, 4096)
        now = self.now_ms()
        if self._socket in ready:
            self.last_contact_ms = now
        if self._monitor in ready:
            self._hear_monitor(now)
        self._dispatch.turn(now)

    def _resolve(self, endpoint: str) -> None:
        def tell(found: Resolved) -> None:
            self.post(self.owner, found)

        resolve(endpoint, tell)

    def _hear_monitor(self, now: int) -> None:
        with suppress(zmq.Again):
            while True:
                seen = recv_monitor_message(self._monitor, zmq.NOBLOCK)
                endpoint = seen["endpoint"].decode()
                self._silence.on_event(seen["event"], endpoint, seen["value"])
                if seen["event"] != zmq.EVENT_CONNECTED:
                    is_refused = seen["event"] == zmq.EVENT_CONNECT_RETRIED
                    self._dispatch.hand(self.owner, Disconnected(endpoint, is_refused), now)


def _checked(endpoint: object) -> str:
    """Return the endpoint. Raises InvalidOption for a malformed one."""
    if isinstance(endpoint, str) and tcp_host_and_port(endpoint) is not None:
        return endpoint
    raise InvalidOption(f"endpoint: {endpoint!r} is not {CONNECTED_IN_WORDS}")


def _is_here(run_directory: str, instance_id: str) -> bool:
    """Return True if the broker runs on this machine, for this user: its run directory with its instance is here."""
    try:
        return (Path(run_directory) / "instance").read_text(encoding="utf-8").strip() == instance_id
    except OSError:
        return False
