"""The owners of calls for whose outcome a thread or a task waits. Called by the network."""

from collections.abc import Callable
from typing import Protocol

from ..machine import Effect, Event
from .gate import Gate, Opened


class Asker(Protocol):
    """An object of the program whose close ends the calls that it has in other threads."""

    def _refuse_when_closed(self) -> None: ...


class AskerClosed:
    """Event of a waiter: the object that called was closed."""


class Waiting(Protocol):
    """The owner of a call whose outcome one thread or task waits for."""

    asker: Asker | None
    event: Event
    """The outcome, None until it is there."""

    def handle(self, event: Event, now: int) -> list[Effect]: ...


class Waiter:
    """A user thread that waits for one outcome."""

    def __init__(self, let_pass: Callable[[Opened], None], asker: Asker | None = None) -> None:
        self.asker = asker
        self.event: Event = None
        self.gate = Gate()
        self._let_pass = let_pass

    def handle(self, event: Event, now: int) -> list[Effect]:
        if self.event is None:
            self.event = event
            self._let_pass(self.gate)
        return []
