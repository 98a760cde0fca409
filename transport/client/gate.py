"""What a user's thread waits at until the network thread lets it pass. Called by whatever has a `wait`.

A lock that is held from the start: to wait is to acquire it, to open it is to release it. A `threading.Event` does the
same for many threads with three locks and a queue, and takes 10 us more from one thread to the other; this is for one.
"""

import threading


class Gate:
    """Shut until `open` is called, once; passed by one thread. Ctrl-C at any point leaves nobody else waiting."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was opened within `timeout_s` seconds (None: however long it takes)."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
