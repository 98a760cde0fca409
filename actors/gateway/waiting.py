"""Requests that wait for an actor to come up, or for news from the controller. Pure.

Bounded in number and in bytes; what does not fit is refused with OVERLOADED. Each has its deadline, after which the
machine answers it as things are.
"""

from msgspec import Struct

from ...transport.machine import CancelTimer, Effect, Received, SetTimer
from ...transport.protocol.errors import ErrorCode, ProtocolError

MAX_WAITING = 2_000
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Attempt(Struct, frozen=True, kw_only=True):
    """A request on its way: what has been tried for it so far."""

    number: int
    """Of its ticket."""
    event: Received
    has_asked: bool = False
    """The controller was asked about the topic after the request came."""
    deadline: int | None = None
    """Until when it may wait; None before its first wait."""


class WaitingRoom:
    def __init__(self, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._waiting: dict[str, dict[int, Attempt]] = {}
        self._addresses: dict[int, str] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._addresses)

    def park(self, address: str, attempt: Attempt, deadline: int) -> list[Effect]:
        """Keep it until `address` is taken or the timer ("wait", number) fires. Raises OVERLOADED."""
        size = _size_bytes(attempt)
        if len(self._addresses) >= self._max_waiting or self._bytes + size > self._max_bytes:
            raise ProtocolError(ErrorCode.OVERLOADED, f"too many requests wait for {address} and others")
        self._waiting.setdefault(address, {})[attempt.number] = attempt
        self._addresses[attempt.number] = address
        self._bytes += size
        return [SetTimer(("wait", attempt.number), deadline)]

    def waiting_for(self, address: str) -> list[Attempt]:
        return list(self._waiting.get(address, {}).values())

    def release(self, number: int) -> tuple[str, Attempt] | None:
        """Take one out, with the address it waited for."""
        address = self._addresses.pop(number, None)
        if address is None:
            return None
        attempts = self._waiting[address]
        attempt = attempts.pop(number)
        if not attempts:
            del self._waiting[address]
        self._bytes -= _size_bytes(attempt)
        return address, attempt

    def release_all(self, address: str) -> tuple[list[Attempt], list[Effect]]:
        """Take out all that wait for an address, oldest first, and the effects that end their timers."""
        attempts = self.waiting_for(address)
        for attempt in attempts:
            self.release(attempt.number)
        return attempts, [CancelTimer(("wait", attempt.number)) for attempt in attempts]


def _size_bytes(attempt: Attempt) -> int:
    return len(attempt.event.raw) + sum(map(len, attempt.event.payload))
