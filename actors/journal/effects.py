"""Effects of a machine that keeps a journal beyond the loop's own, and its own events. Structs only, no behaviour.

effect          performed       answered by
BecomeReady     at once         not at all; from then on peers and clients call the actor
SaveSnapshot    at once         not at all; on a full disk the older file stays
WarnOfSnapshot  at once         not at all
MarkAsleep      at once         not at all; a Sleep follows in the same turn
"""

from typing import TypeAlias

from msgspec import Struct


class JournalOpened(Struct, frozen=True):
    """The first event."""


class TurnHandled(Struct, frozen=True):
    """All other events of the turn are handled, and the answers to them have left."""


class TurnFlushed(Struct, frozen=True):
    """The records of the turn have left for the log."""


class BecomeReady(Struct, frozen=True):
    """The actor has taken its state over and serves it from now on."""


class SaveSnapshot(Struct, frozen=True):
    """Replace the snapshot file. It is a cache: a failed save is not an error."""

    data: bytes


class WarnOfSnapshot(Struct, frozen=True):
    """Report in the log that the snapshot was dropped, and all records read instead."""

    reason: str


class MarkAsleep(Struct, frozen=True):
    """Note durably that the actor sleeps, for the next start of the broker."""

    wake_at_ms: int | None
    """Time at which it must be woken at the latest; None: only on a request."""


JournalEffect: TypeAlias = BecomeReady | SaveSnapshot | WarnOfSnapshot | MarkAsleep
JournalEvent: TypeAlias = JournalOpened | TurnHandled | TurnFlushed
