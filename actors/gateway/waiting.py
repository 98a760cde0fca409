"""Requests that wait for an actor to come up, or for an answer of the controller. Pure.

Bounded by the tickets: each has one. Each has a deadline, after which the machine answers it in the present state.
"""

from msgspec import Struct

from ...transport.machine import CancelTimer, Effect, Received, SetTimer


class Attempt(Struct, frozen=True, kw_only=True):
    """A request with the history of its routing."""

    number: int
    """The number of its ticket."""
    event: Received
    has_asked: bool = False
    """True if the controller was asked about the topic after the request came."""
    deadline: int | None = None
    """The end of its waiting time; None before its first wait."""


class WaitingRoom:
    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, Attempt]] = {}
        self._addresses: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def park(self, address: str, attempt: Attempt, deadline: int) -> list[Effect]:
        """Park it until `address` is taken or the timer ("wait", number) fires."""
        self._waiting.setdefault(address, {})[attempt.number] = attempt
        self._addresses[attempt.number] = address
        return [SetTimer(("wait", attempt.number), deadline)]

    def waiting_for(self, address: str) -> list[Attempt]:
        return list(self._waiting.get(address, {}).values())

    def release(self, number: int) -> tuple[str, Attempt] | None:
        """Take one out, with the address that it waited for."""
        address = self._addresses.pop(number, None)
        if address is None:
            return None
        attempts = self._waiting[address]
        attempt = attempts.pop(number)
        if not attempts:
            del self._waiting[address]
        return address, attempt

    def release_all(self, address: str) -> tuple[list[Attempt], list[Effect]]:
        """Take out all that wait for an address, oldest first, and the effects that end their timers."""
        attempts = self.waiting_for(address)
        for attempt in attempts:
            self.release(attempt.number)
        return attempts, [CancelTimer(("wait", attempt.number)) for attempt in attempts]
