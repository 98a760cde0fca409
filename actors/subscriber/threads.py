"""Communication between the subscriber's threads and its loop: effects one way, events the other, no shared state.
Impure.

The loop owns the machine; threads only perform effects and post the results. Every event wakes the loop through a pipe
it watches. A thread that fails fails the actor: its error is raised in the loop's thread. The loop's tasks post their
events as well, so each event has a turn of its own.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from ...transport.event_queue import EventQueue
from .effects import OwnEvent

OrderT = TypeVar("OrderT")


class ThreadFailed(Struct, frozen=True):
    error: BaseException


class Callback(Struct, frozen=True):
    """Of the client's thread, for the loop's."""

    call: Callable[[], object]


Posted: TypeAlias = OwnEvent | ThreadFailed | Callback


Inbox: TypeAlias = EventQueue[Posted]
"""Events for the loop, posted by any thread."""


class WorkThread:
    """A thread that performs orders one after another; each result goes to the queue.

    A daemon thread, because it may be in code that never returns, which must not keep the process alive.
    """

    def __init__(self, name: str, inbox: Inbox) -> None:
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
