"""Communication between the subscriber's threads and its loop: effects one way, events the other, no shared state.
Impure.

The loop owns the machine; threads only perform effects and post the results. Every event wakes the loop through a pipe
it watches. A thread that fails fails the actor: its error is raised in the loop's thread. The loop's tasks post their
events as well, so each event has a turn of its own.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from ...transport.wake_pipe import WakePipe
from .effects import OwnEvent

OrderT = TypeVar("OrderT")


class ThreadFailed(Struct, frozen=True):
    error: BaseException


class Callback(Struct, frozen=True):
    """Of the client's thread, for the loop's."""

    call: Callable[[], object]


Posted: TypeAlias = OwnEvent | ThreadFailed | Callback


class EventQueue:
    """Events for the loop, posted by any thread."""

    def __init__(self) -> None:
        self._events: deque[Posted] = deque()
        self._wakes = WakePipe()
        self._is_awake = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are events."""
        return self._wakes.fileno()

    def post(self, event: Posted) -> None:
        self._events.append(event)
        # The loop clears the mark before it takes: a thread that still finds it set appended in time to be taken.
        if not self._is_awake:
            self._is_awake = True
            self._wakes.wake()

    def take(self) -> list[Posted]:
        """Take the posted events, in the order of posting."""
        self._wakes.clear()
        self._is_awake = False
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        self._wakes.close()


class WorkThread:
    """A thread that performs orders one after another; each result goes to the queue.

    A daemon thread, because it may be in code that never returns, which must not keep the process alive.
    """

    def __init__(self, name: str, inbox: EventQueue) -> None:
        self._inbox = inbox
        self._orders: queue.SimpleQueue[tuple[Callable[[Any], OwnEvent | None], Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def order(self, perform: Callable[[OrderT], OwnEvent | None], order: OrderT) -> None:
        self._orders.put((perform, order))

    def _work(self) -> None:
        while True:
            perform, order = self._orders.get()
            try:
                event = perform(order)
            except BaseException as error:  # noqa: BLE001 - it is raised again where it ends the actor
                self._inbox.post(ThreadFailed(error))
                return
            if event is not None:
                self._inbox.post(event)
