"""Effects of a machine that keeps a journal beyond the loop's own, and its first event."""

from msgspec import Struct


class JournalOpened(Struct, frozen=True):
    """The first event."""


class BecomeReady(Struct, frozen=True):
    """The actor has taken its state over and serves it from now on."""


class SaveSnapshot(Struct, frozen=True):
    """Replace the snapshot file. It is a cache: a failed save is not an error."""

    data: bytes
