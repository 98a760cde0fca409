"""What the coordinator's machine orders beyond the loop's own effects, and the event it begins with."""

from msgspec import Struct


class Started(Struct, frozen=True):
    """The first event."""


class BecomeReady(Struct, frozen=True):
    """The partition's transactions are taken over and served from now on."""
