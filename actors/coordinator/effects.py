"""What the coordinator's machine orders beyond the loop's own effects, and the event it begins with."""

from msgspec import Struct


class Started(Struct, frozen=True):
    """The first event."""


class BecomeReady(Struct, frozen=True):
    """The group is taken over and served from now on."""


class SaveSnapshot(Struct, frozen=True):
    """Replace the snapshot file. It is a cache: that it could not be saved is no failure."""

    data: bytes


class Alarm(Struct, frozen=True):
    """What `status` says of the group from now on."""

    alarms: tuple[str, ...]


class RemoveSnapshot(Struct, frozen=True):
    """Delete the snapshot file of a deleted group."""
