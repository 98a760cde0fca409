"""Child commands: starts and stops requested from the supervisor, until it confirms them. Pure.

A failed command is repeated after a delay, because the durable catalog requires it. A newer command for an address
replaces the older one; the older one's answer is ignored.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ...transport.addresses import SUPERVISOR, Address
from ...transport.machine import Call, SetTimer
from ...transport.protocol.control import ChildSpec, ReplaceChild, StartChild, StopChild
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Done
from .effects import RETRY_MS, Effect
from .keys import CommandCall, CommandRetry

ORDER_TIMEOUT_MS = 30_000
REPLACE_TIMEOUT_MS = 60_000
"""Beyond the time that a subscriber has for its running records."""
Command: TypeAlias = StartChild | StopChild | ReplaceChild
NOBODY: Mapping[Address, int | None] = {}


class ChildCommands:
    def __init__(self) -> None:
        self._open: dict[Address, tuple[int, Command]] = {}
        self._last_number = 0

    def start(
        self, specs: Iterable[ChildSpec], asleep: Mapping[Address, int | None] = NOBODY
    ) -> list[Effect]:
        """Start children; those in `asleep` are started by the next call, or after that many milliseconds."""
        return [
            self._give(
                spec.address,
                StartChild(
                    spec=spec, is_asleep=spec.address in asleep, wake_after_ms=asleep.get(spec.address)
                ),
            )
            for spec in specs
        ]

    def stop(self, addresses: Iterable[Address]) -> list[Effect]:
        return [self._give(address, StopChild(address=address)) for address in addresses]

    def replace(self, specs: Iterable[ChildSpec]) -> list[Effect]:
        """Stop children in order and start them with these specs."""
        return [self._give(spec.address, ReplaceChild(spec=spec)) for spec in specs]

    def is_open(self, address: Address) -> bool:
        return address in self._open

    def done(self, key: CommandCall) -> Address | None:
        """Return the address whose command this completes; None for a command that a newer one replaced."""
        address, number = key.address, key.number
        if self._open.get(address, (0, None))[0] != number:
            return None
        del self._open[address]
        return address

    def failed(self, key: CommandCall, error: ErrorBody, now: int) -> tuple[Address | None, list[Effect]]:
        """Return the address if the child to stop does not exist anyway; otherwise schedule a retry."""
        address, number = key.address, key.number
        open_number, request = self._open.get(address, (0, None))
        if open_number != number:
            return None, []
        if isinstance(request, StopChild) and error.code == ErrorCode.UNKNOWN_ACTOR:
            del self._open[address]
            return address, []
        return None, [SetTimer(CommandRetry(address, number), now + RETRY_MS)]

    def retry(self, key: CommandRetry) -> list[Effect]:
        address, number = key.address, key.number
        open_number, request = self._open.get(address, (0, None))
        if open_number != number or request is None:
            return []
        return [self._give(address, request)]

    def _give(self, address: Address, request: Command) -> Effect:
        self._last_number += 1
        self._open[address] = (self._last_number, request)
        key = CommandCall(address, self._last_number)
        timeout_ms = ORDER_TIMEOUT_MS if isinstance(request, StartChild) else REPLACE_TIMEOUT_MS
        return Call(key, SUPERVISOR, request, Done, timeout_ms=timeout_ms)
