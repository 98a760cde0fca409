"""Events of the link, beside those of every actor. Structs only."""

from typing import TypeAlias

from msgspec import Struct

from ...transport.machine import LoopEffect, LoopEvent


class Started(Struct, frozen=True):
    """The endpoint is bound."""


OwnEvent: TypeAlias = Started
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect
