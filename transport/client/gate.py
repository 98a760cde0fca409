"""A gate at which a user's thread waits until the network thread opens it. Called by every blocking `wait`.

It is a lock that is held from the start: waiting acquires it, opening releases it. A `threading.Event` does the same
for many threads with three locks and a queue, and takes 10 us more to wake a thread; a gate serves one thread.
"""

import threading
from contextlib import suppress
from typing import Protocol

from ..protocol.errors import PlanariaError

_here = threading.local()


class Opened(Protocol):
    """A gate, or the way to another kind of waiter."""

    def open(self) -> None: ...


class Awaited(Protocol):
    """A gate at which one thread waits."""

    @property
    def is_open(self) -> bool: ...

    def wait(self, timeout_s: float | None = None, /) -> bool: ...


def wait_at(gate: Awaited, timeout_s: float | None) -> bool:
    return gate.wait(timeout_s)


def forbid_waiting() -> None:
    """Refuse waiting in the calling thread: it opens the gates, so a wait in it would never end."""
    _here.is_opener = True


def allow_waiting() -> None:
    """End `forbid_waiting` in the calling thread."""
    _here.is_opener = False


def may_wait() -> bool:
    return not getattr(_here, "is_opener", False)


class Gate:
    """Shut until `open` is called, once. Passed by one thread. Ctrl-C at any point leaves no other thread waiting."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    @property
    def is_open(self) -> bool:
        """Return True between the opening and the end of the wait."""
        return not self._lock.locked()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return True if the gate was opened within `timeout_s` seconds (None: no limit).

        Raises PlanariaError in the thread that opens gates.
        """
        if not may_wait():
            raise PlanariaError(
                "a callback must not wait for the broker: it runs in the network's own thread"
            )
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))


class Bell:
    """A gate that is shut again: for a thread that waits for one of many events.

    A `threading.Event` does the same with a lock in Python, which stays locked when the handler of a signal raises in the
    middle of `set`: then all threads hang. Here each step is one call in C, and an exception after it shuts the bell at
    most; a waiting thread looks for its events before it waits again.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    @property
    def is_open(self) -> bool:
        return not self._lock.locked()

    def set(self) -> None:
        with suppress(RuntimeError):  # open already
            self._lock.release()

    def clear(self) -> None:
        self._lock.acquire(blocking=False)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return True if it was open within `timeout_s` seconds (None: no limit). It stays open, for other threads."""
        is_open = self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
        if is_open:
            self.set()
        return is_open


class Alarm:
    """Ends the sleep of one thread, again and again. Rung twice before the sleep, it ends one."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        with suppress(RuntimeError):  # rung already
            self._lock.release()

    def sleep(self, timeout_s: float) -> None:
        self._lock.acquire(timeout=timeout_s)
