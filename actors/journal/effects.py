"""What a machine that keeps a journal orders beyond the loop's own effects, and the event it begins with."""

from msgspec import Struct


class JournalOpened(Struct, frozen=True):
    """The first event."""


class BecomeReady(Struct, frozen=True):
    """The actor's state is taken over and served from now on."""


class SaveSnapshot(Struct, frozen=True):
    """Replace the snapshot file. It is a cache: that it could not be saved is no failure."""

    data: bytes
