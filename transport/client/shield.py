"""Postpones the program's signal handlers while its main thread owns the client's socket.

Python runs the handlers of signals in the main thread, between any two instructions. A handler that raises (Ctrl-C) would
leave the client's machines half changed, and one that publishes would enter them twice. So the main thread replaces its
handlers while it runs turns, which takes milliseconds at most (`handover.LEAD_MS`). The replacement notes the signal; the
program's handler runs afterwards, at the place where the thread waits.

While handlers are exchanged one by one, one that is still in force may raise. That leaves a replacement in place, which
then calls the handler that it replaced. Only the main thread uses a shield.

Where the exchange would not be safe, the thread does not lead: when code in C has put a handler of its own in
the place of Python's, when a trace function is set, which may raise (a debugger), and near the recursion limit.
"""

import _signal  # type: ignore[import-not-found]  # without the conversions of `signal`, which take longer than the calls
import ctypes
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any

from ..forks import notify_of_fork

Handler = Callable[[int, FrameType | None], Any]

FRAMES_LEFT = 200
"""Depth of the call stack that turns may need."""
_SIGNALS = sorted(int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_get: Callable[[int], Any] = _signal.getsignal
_set: Callable[[int, Any], Any] = _signal.signal
_address: Any = ctypes.pythonapi.PyOS_getsig
"""Address of the function in C that the system calls at a signal."""
_address.argtypes, _address.restype = (ctypes.c_int,), ctypes.c_void_p


class Shield:
    """The replacement of all handlers of the process. One for the process: `shield`."""

    def __init__(self) -> None:
        self._handlers: tuple[Any, ...] = ()
        self._python: int | None = None
        """Address of Python's own handler."""
        self._replaced: dict[int, Handler] = {}
        self._is_up = False
        self._noted: deque[int] = deque()
        self.main_thread = threading.main_thread().ident
        """Identifier of the main thread. `threading` takes two calls in Python to compare it."""

    def put_up(self) -> bool:
        """Postpone all signals from the return of this call on. Return False if that is not possible.

        Exceptions of handlers may leave it; then nothing is postponed.
        """
        if self._noted:
            self._run_noted()
        handlers = tuple(map(_get, _SIGNALS))
        if handlers != self._handlers:
            self._handlers = ()
            self._learn(handlers)
            self._handlers = handlers
        for number in self._replaced:
            if _address(number) != self._python:
                return False
        for number in self._replaced:
            _set(number, self._note)
        self._is_up = True
        return True

    def _learn(self, handlers: tuple[Any, ...]) -> None:
        for number, handler in zip(reversed(_SIGNALS), reversed(handlers), strict=True):
            if handler == self._note:
                continue  # left by an exception; the handler behind it is known
            if callable(handler):
                self._replaced[number] = handler
            else:
                self._replaced.pop(number, None)
                if self._python is None and handler == _signal.SIG_DFL:
                    _set(number, self._note)
                    self._python = _address(number)
                    _set(number, handler)

    def take_down(self) -> None:
        """Put the handlers back, and call those of the signals that came meanwhile. They may raise."""
        self._is_up = False
        for number, handler in self._replaced.items():
            _set(number, handler)
        if self._noted:
            self._run_noted()

    def on_fork(self) -> None:
        """Put the handlers back in a child that another thread forked in the middle of a turn."""
        self.main_thread = get_ident()
        if self._is_up:
            self._noted.clear()  # the parent's signals
            self.take_down()

    def _run_noted(self) -> None:
        while self._noted:
            number = self._noted.popleft()
            self._call(number, sys._getframe(1))

    def _note(self, number: int, frame: FrameType | None) -> Any:
        if self._is_up:
            self._noted.append(number)
            return None
        return self._call(number, frame)

    def _call(self, number: int, frame: FrameType | None) -> Any:
        handler = self._replaced.get(number)
        if handler is not None:
            return handler(number, frame)
        return None


shield = Shield()
notify_of_fork(shield)


def is_main() -> bool:
    return get_ident() == shield.main_thread


def is_safe_here() -> bool:
    """Return True if no exception from outside can enter a turn that the calling thread runs."""
    if sys.gettrace() is not None:
        return False
    try:
        sys._getframe(max(1, sys.getrecursionlimit() - FRAMES_LEFT))
    except ValueError:  # the stack is not that deep
        return True
    return False
