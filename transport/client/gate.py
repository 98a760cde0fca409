"""What a user's thread waits at until the network thread lets it pass. Called by whatever has a `wait`.

A lock that is held from the start: to wait is to acquire it, to open it is to release it. A `threading.Event` does the
same for many threads with three locks and a queue, and takes 10 us more from one thread to the other; this is for one.
"""

import threading

from ..protocol.errors import PlanariaError

_here = threading.local()


def forbid_waiting() -> None:
    """The calling thread is the one that opens gates: whoever waits in it would wait for ever."""
    _here.is_opener = True


def may_wait() -> bool:
    return not getattr(_here, "is_opener", False)


class Gate:
    """Shut until `open` is called, once; passed by one thread. Ctrl-C at any point leaves nobody else waiting."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was opened within `timeout_s` seconds (None: however long it takes).

        Raises PlanariaError in the thread that opens gates.
        """
        if not may_wait():
            raise PlanariaError(
                "a callback must not wait for the broker: it runs in the network's own thread"
            )
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
