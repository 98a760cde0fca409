"""Child commands: starts and stops requested from the supervisor, until it confirms them. Pure.

They are endless calls, because the durable catalog requires them: the exchange repeats a command that has no answer. All
that is kept here is which command of each address is the newest. A newer one replaces the older one, whose call is
withdrawn: repeated later, it would undo the newer one.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ...transport.addresses import SUPERVISOR, Address
from ...transport.machine import Call, CancelCall
from ...transport.protocol.control import ChildSpec, ReplaceChild, StartChild, StopChild
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Done
from .effects import Effect
from .keys import CommandCall

START_TIMEOUT_MS = 30_000
STOP_TIMEOUT_MS = 60_000
"""Beyond the time that a subscriber has for its running records."""
Command: TypeAlias = StartChild | StopChild | ReplaceChild
NOBODY: Mapping[Address, int | None] = {}


class ChildCommands:
    def __init__(self) -> None:
        self._open: dict[Address, CommandCall] = {}
        """The newest command of each address, until it is confirmed."""
        self._last_number = 0

    def start(
        self, specs: Iterable[ChildSpec], asleep: Mapping[Address, int | None] = NOBODY
    ) -> list[Effect]:
        """Start children; those in `asleep` are started by the next call, or after that many milliseconds."""
        return [
            effect
            for spec in specs
            for effect in self._give(
                spec.address,
                StartChild(
                    spec=spec, is_asleep=spec.address in asleep, wake_after_ms=asleep.get(spec.address)
                ),
            )
        ]

    def stop(self, addresses: Iterable[Address]) -> list[Effect]:
        return [effect for address in addresses for effect in self._give(address, StopChild(address=address))]

    def replace(self, specs: Iterable[ChildSpec]) -> list[Effect]:
        """Stop children in order and start them with these specs."""
        return [effect for spec in specs for effect in self._give(spec.address, ReplaceChild(spec=spec))]

    def is_open(self, address: Address) -> bool:
        return address in self._open

    def done(self, key: CommandCall) -> Address | None:
        """Return the address whose command this completes; None for a command that a newer one replaced."""
        if self._open.get(key.address) != key:
            return None
        return self._open.pop(key.address).address

    def _give(self, address: Address, request: Command) -> list[Effect]:
        before = self._open.get(address)
        self._last_number += 1
        key = self._open[address] = CommandCall(address, self._last_number)
        timeout_ms = START_TIMEOUT_MS if isinstance(request, StartChild) else STOP_TIMEOUT_MS
        call = Call(key, SUPERVISOR, request, Done, timeout_ms=timeout_ms, is_endless=True, token=key)
        return [call] if before is None else [CancelCall(before), call]


def command_refused(key: CommandCall, error: ErrorBody) -> list[Effect]:
    """Take the refusal of a command. Only a supervisor that is stopping refuses one, and this process with it."""
    assert error.code == ErrorCode.SHUTTING_DOWN, f"the supervisor refuses {key!r}: {error.message}"
    return []
