"""The owner of a call for whose outcome a thread or a task waits. Called by the network."""

from collections.abc import Callable
from typing import Protocol

from ..machine import Effect, Event


class Requester(Protocol):
    """An object of the program whose close ends the calls that it has in other threads."""

    def _refuse_when_closed(self) -> None: ...


class RequesterClosed:
    """Event of a waiter: the object that called was closed."""


class Waiter:
    """A thread or a task that waits for one outcome."""

    def __init__(self, notify: Callable[[], object], requester: Requester | None = None) -> None:
        """`notify` is called in the network thread when the outcome is there."""
        self.requester = requester
        self.event: Event = None
        """The outcome, None until it is there."""
        self._notify = notify

    def handle(self, event: Event, now: int) -> list[Effect]:
        if self.event is None:
            self.event = event
            self._notify()
        return []
