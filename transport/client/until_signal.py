"""`until_signal`: a program's loops end in order on SIGTERM and SIGINT.

Owns the two signals' handlers within its block, and puts the former ones back. A handler runs between any two
instructions of the main thread, which may hold any lock; so it sets a flag, opens a lock and calls `stop`, which takes
none (`Consumer.stop`, `share_consumer.py`). The form for event loops is `aio/until_signal.py`.
"""

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from ..protocol.errors import PlanariaError
from .options import Duration, wait_limit_s

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    """A consumer, a share consumer, or anything else whose `stop` may be called by a signal handler."""

    def stop(self) -> object: ...


class SignalHandlers:
    """Handlers of signals that stop loops: at the first signal. The second has the effect that it had before."""

    def __init__(self, loops: Sequence[Stoppable], signals: Sequence[signal.Signals]) -> None:
        self.received: signal.Signals | None = None
        """The first signal that came; None before."""
        self._loops = loops
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def _replace(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise PlanariaError("until_signal: only the main thread of a program can handle signals")
        for number in self._signals:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # of a job in a shell's background, for example
                self._before[number] = signal.SIG_DFL if before is None else before
                signal.signal(number, self._on_signal)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._restore()
            signal.raise_signal(number)
            return
        self.received = signal.Signals(number)
        self._stop()

    def _stop(self) -> None:
        for loop in self._loops:
            loop.stop()


class UntilSignal(SignalHandlers):
    """The block of `until_signal`, and the state of its signals."""

    def __init__(self, loops: Sequence[Stoppable], signals: Sequence[signal.Signals]) -> None:
        super().__init__(loops, signals)
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self, timeout: Duration | None = None) -> bool:
        """Wait for a signal; return False if none has come within `timeout` (seconds or a timedelta; None: no limit).

        May be called by any thread.
        """
        limit_s = wait_limit_s(timeout)
        is_open = self._gate.acquire(timeout=-1 if limit_s is None else min(limit_s, threading.TIMEOUT_MAX))
        if is_open:
            self._gate.release()
        return is_open

    def _stop(self) -> None:
        self._gate.release()
        super()._stop()

    def __enter__(self) -> Self:
        self._replace()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


def until_signal(*loops: Stoppable, signals: Sequence[signal.Signals] = SIGNALS) -> UntilSignal:
    """Return a block in which SIGTERM and SIGINT stop these consumers, so that loops over them end in order.

        with client.consumer("billing", ["ORDERS"]) as consumer, until_signal(consumer):
            for message in consumer:
                handle(message)

    `stop` of each is called at the first signal: a loop ends after its current message. A second signal has the effect
    that it had before the block, so it ends a program that hangs. `wait` of the block waits for a signal, for programs
    without a loop, and `received` is the signal that came, None before. A signal that the program ignores stays
    ignored. Raises PlanariaError when entered in another thread than the main one.
    """
    return UntilSignal(loops, signals)
