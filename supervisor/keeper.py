"""Keeps the supervisor of an embedded broker alive: the only process without another supervisor.

    serving --supervisor dies--> restarting --up--> serving (listeners are called)
       |                            |
       +--close--> closed <--close--+--too many failures in a row--> failed (every later use raises the reason)

A thread waits for the supervisor's death. A new supervisor serves once the listeners have installed their state in
it; one that dies or hangs before that counts as a failed start. Called by the embedded Broker.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ..transport.calls.retry import RetryPolicy
from ..transport.client.errors import Closed, Forked, TimedOut
from ..transport.forks import notify_of_fork
from ..transport.protocol.errors import ProtocolError
from .admin_link import TIMEOUT_MS, AdminLink, Undelivered
from .broker_tree import Role
from .config import BrokerConfig
from .launch import StartFailed, SupervisorHandle, SupervisorStarted, launch_supervisor

RESTART_DELAYS_S = (0.0, 0.1, 0.4, 1.6, 6.4)

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class SupervisorKeeper:
    """Starts a supervisor, and restarts it on the same port when it dies unexpectedly. Raises StartFailed."""

    def __init__(self, config: BrokerConfig, role: Role = "broker") -> None:
        """The directory that `config` names is resolved now; later changes of the working directory have no effect."""
        self._directory = os.getcwd()
        config = msgspec.structs.replace(config, data=os.path.abspath(config.data))
        self._role = role
        self._handle = launch_supervisor(config, role=role)
        # A restart must listen at the address that the clients know.
        self._config = msgspec.structs.replace(
            config, endpoint=self._handle.started.endpoint or config.endpoint
        )
        self._listeners: list[Callable[[], None]] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._failure: StartFailed | Forked | None = None
        self._pid = os.getpid()
        notify_of_fork(self)
        self._thread = threading.Thread(target=self._watch, name="planaria-keeper", daemon=True)
        self._thread.start()

    def on_fork(self) -> None:
        """Detach from the parent's supervisor."""
        self._failure = Forked(self._pid)

    @property
    def is_inherited(self) -> bool:
        """True in a fork of the process that started the supervisor."""
        return os.getpid() != self._pid

    def refuse_when_inherited(self) -> None:
        """Raise Forked in such a fork."""
        if self._failure is not None and self.is_inherited:
            raise self._failure

    @property
    def started(self) -> SupervisorStarted:
        """The supervisor that serves now. Raises StartFailed if its restart failed, Forked in a child."""
        if self._failure is not None:
            raise self._failure
        return self._handle.started

    def on_restart(self, listener: Callable[[], None]) -> None:
        """Call `listener` in the keeper's thread whenever a new supervisor has started.

        If it raises ProtocolError, that supervisor is given up and another one is started.
        """
        self._listeners.append(listener)

    def link(self, timeout_ms: int = TIMEOUT_MS) -> AdminLink:
        """Return a link to the supervisor that serves now. Raises StartFailed when there is none."""
        handle, control = self._handle, self.started.control
        return AdminLink(control, lambda: handle.wait(0) is not None, timeout_ms)

    def ask(self, question: Callable[[AdminLink], Answer], timeout_ms: int, *, is_retried: bool) -> Answer:
        """Send `question` to the current supervisor, or to its successor once that serves.

        With `is_retried` a retriable refusal is retried, otherwise only a request that was not delivered. Raises
        TimedOut after `timeout_ms`, other ProtocolErrors that are not retried, StartFailed, Closed.
        """
        policy, failures = RetryPolicy(), 0
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = max(1, round((deadline - time.monotonic()) * 1000))
            try:
                with self.link(min(TIMEOUT_MS, left_ms)) as link:
                    return question(link)
            except ProtocolError as error:
                if not (error.retriable and (is_retried or isinstance(error, Undelivered))):
                    raise
                failures += 1
                pause_s = policy.delay_ms(failures, random.random) / 1000
                if time.monotonic() + pause_s > deadline:
                    raise TimedOut(
                        f"the supervisor did not answer within {timeout_ms} ms: {error}"
                    ) from error
            if self._closing.wait(pause_s):
                raise Closed("the broker is closed")

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            self._handle.stop()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.is_set():
            code = self._handle.wait()
            if self._closing.is_set() or not self._restart(code):
                return

    def _restart(self, code: int | None) -> bool:
        logger.warning("the supervisor exited with code %s and is restarted", code)
        for delay_s in RESTART_DELAYS_S:
            if self._closing.wait(delay_s):
                return False
            try:
                return self._start_again()
            except (StartFailed, ProtocolError) as error:
                logger.warning("the supervisor did not start: %s", error)
                failure = error
        self._failure = StartFailed(f"the supervisor crashed and could not be restarted: {failure}")
        return False

    def _start_again(self) -> bool:
        """Return True if a supervisor serves, False if the broker is being closed.

        Raises StartFailed, ProtocolError.
        """
        with self._lock:
            if self._closing.is_set():
                return False
            directory = self._directory if os.path.isdir(self._directory) else "/"
            self._handle = launch_supervisor(self._config, working_directory=directory, role=self._role)
        try:
            for listener in self._listeners:
                listener()
        except ProtocolError:
            with self._lock:
                if self._closing.is_set():
                    return False
                self._handle.kill()
            raise
        return True


__all__ = ["StartFailed", "SupervisorHandle", "SupervisorKeeper"]
