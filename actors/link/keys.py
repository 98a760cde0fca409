"""Keys of the link's calls and timers. Structs only."""

from typing import TypeAlias

from msgspec import Struct


class RelayCall(Struct, frozen=True):
    number: int


class NodesWatch(Struct, frozen=True):
    """The watch of the nodes, and the timer that begins it again."""


class BeatTimer(Struct, frozen=True):
    """The next ping is due."""


class CatchUpTimer(Struct, frozen=True):
    """The next copy may be sent."""


CallKey: TypeAlias = RelayCall | NodesWatch
TimerKey: TypeAlias = NodesWatch | BeatTimer | CatchUpTimer
