"""The keys of a subscriber's timers. Each is set, and its firing handled, in the module named beside it."""

from typing import TypeAlias

from msgspec import Struct


class HandlerLate(Struct, frozen=True):
    """A run has exceeded the handler's time (`handling.py`, `ending.py`)."""

    run: int


class RunSlow(Struct, frozen=True):
    """Records of other keys wait behind a slow one (`handling.py`)."""

    run: int


class RetryDue(Struct, frozen=True):
    """The next attempt at a lane's first record, or at its dead letter (`failing.py`)."""

    lane: int


class FailingLong(Struct, frozen=True):
    """A lane's first record has been failing long enough for an alarm (`failures.py`)."""

    lane: int


class CircuitPauseOver(Struct, frozen=True):
    """The end of the breaker's pause (`failures.py`)."""


class CommitDue(Struct, frozen=True):
    """The planned commit (`commits.py`)."""


class DamageDue(Struct, frozen=True):
    """Damaged partitions are read again (`serving.py`)."""


class RevocationTimeout(Struct, frozen=True):
    """The latest time at which revoked partitions are handed over (`revocations.py`)."""


class FinishTimeout(Struct, frozen=True):
    """The latest time at which a stopping subscriber leaves the group (`ending.py`)."""


class LeaveTimeout(Struct, frozen=True):
    """The latest time at which a stopping subscriber ends (`ending.py`)."""


class CrashTimeout(Struct, frozen=True):
    """The latest time at which a crashing subscriber ends (`ending.py`)."""


TimerKey: TypeAlias = (
    HandlerLate
    | RunSlow
    | RetryDue
    | FailingLong
    | CircuitPauseOver
    | CommitDue
    | DamageDue
    | RevocationTimeout
    | FinishTimeout
    | LeaveTimeout
    | CrashTimeout
)
