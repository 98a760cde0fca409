"""Effects of the coordinator's machine beyond the loop's own and those of every journal."""

from msgspec import Struct


class Alarm(Struct, frozen=True):
    """Replace the group's alarm in `status`."""

    alarms: tuple[str, ...]


class MarkAsleep(Struct, frozen=True):
    """Note durably that the coordinator sleeps, for the next start of the broker."""

    wake_at_ms: int | None
    """Time at which it must be woken at the latest; None: only on a request."""


class RemoveSnapshot(Struct, frozen=True):
    """Delete the snapshot file of a deleted group."""
