"""Requests that wait for an actor to come up, or for an answer of the controller. Pure.

Bounded by the tickets: each has one. Each has a deadline, after which the router answers it in the present state.
"""

from msgspec import Struct
from msgspec.structs import replace

from ...transport.addresses import Address
from ...transport.machine import CancelTimer, Effect, Received, SetTimer
from ...transport.request_context import RequestContext
from .keys import WaitTimer
from .routes import Route


class Attempt(Struct, frozen=True, kw_only=True):
    """A request with the history of its routing."""

    number: int
    """The number of its ticket."""
    event: Received
    route: Route
    context: RequestContext
    has_asked: bool = False
    """True if the controller was asked about the topic after the request came."""
    deadline: int | None = None
    """The end of its waiting time; None before its first wait."""

    def after_asking(self) -> "Attempt":
        return replace(self, has_asked=True)

    def is_overdue(self, now: int) -> bool:
        return self.deadline is not None and now >= self.deadline


class WaitingRoom:
    def __init__(self) -> None:
        self._waiting: dict[Address, dict[int, Attempt]] = {}
        self._addresses: dict[int, Address] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def park(self, address: Address, attempt: Attempt, timeout_ms: int, now: int) -> list[Effect]:
        """Park it until `address` is taken, or its timer fires: after `timeout_ms`, counted from its first wait."""
        deadline = now + timeout_ms if attempt.deadline is None else attempt.deadline
        self._waiting.setdefault(address, {})[attempt.number] = replace(attempt, deadline=deadline)
        self._addresses[attempt.number] = address
        return [SetTimer(WaitTimer(attempt.number), deadline)]

    def release(self, number: int) -> Attempt | None:
        """Take one out whose timer has fired or is not needed."""
        address = self._addresses.pop(number, None)
        if address is None:
            return None
        attempts = self._waiting[address]
        attempt = attempts.pop(number)
        if not attempts:
            del self._waiting[address]
        return attempt

    def withdraw(self, number: int) -> list[Effect]:
        """Take one out, and end its timer."""
        return [] if self.release(number) is None else [CancelTimer(WaitTimer(number))]

    def empty(self) -> tuple[list[int], list[Effect]]:
        """Take out all; return their numbers, and the effects that end their timers."""
        numbers = list(self._addresses)
        return numbers, [effect for number in numbers for effect in self.withdraw(number)]

    def release_all(self, address: Address) -> tuple[list[Attempt], list[Effect]]:
        """Take out all that wait for an address, oldest first, and the effects that end their timers."""
        attempts = list(self._waiting.get(address, {}).values())
        return attempts, [effect for attempt in attempts for effect in self.withdraw(attempt.number)]
