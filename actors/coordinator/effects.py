"""The effects of the coordinator's machine beyond the loop's and the journal's. Structs only, no behaviour.

effect            performed                    answered by
Alarm             with the next heartbeat      not at all
NotePause         with the next heartbeat      not at all
RemoveSnapshot    at once                      not at all
"""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect
from .records import Pause


class Alarm(Struct, frozen=True):
    """Replace the group's alarm in `status`."""

    alarms: tuple[str, ...]


class RemoveSnapshot(Struct, frozen=True):
    """Delete the snapshot file of a deleted group."""


class NotePause(Struct, frozen=True):
    """Show the group's pause in `status`, or none."""

    pause: Pause | None


OwnEffect: TypeAlias = Alarm | NotePause | RemoveSnapshot
Effect: TypeAlias = LoopEffect | OwnEffect
