"""What the coordinator's machine orders beyond the loop's own effects and those of every journal."""

from msgspec import Struct


class Alarm(Struct, frozen=True):
    """What `status` says of the group from now on."""

    alarms: tuple[str, ...]


class MarkAsleep(Struct, frozen=True):
    """Note durably that the coordinator sleeps, for the next start of the broker."""

    wake_at_ms: int | None
    """When it has to be woken at the latest; None: when somebody asks for it."""


class RemoveSnapshot(Struct, frozen=True):
    """Delete the snapshot file of a deleted group."""
