"""The keys of a partition's timers. Each is set, and its firing handled, in the module named beside it."""

from typing import TypeAlias

from msgspec import Struct

from ..journal.idleness import IdleTimer
from ..journal.transaction_reports import ReportTimer


class FetchesExpire(Struct, frozen=True):
    """The earliest deadline of a parked fetch (`fetches.py`)."""


class SearchContinues(Struct, frozen=True):
    """The next step of a search through damage (`fetches.py`)."""


class ReplicaFetchesExpire(Struct, frozen=True):
    """The earliest deadline of a follower's parked fetch (`replica_fetches.py`)."""


class InSyncDue(Struct, frozen=True):
    """The next check of the in-sync set (`replicas.py`)."""


class FetchAgain(Struct, frozen=True):
    """A follower's next fetch after a failure (`follower.py`)."""


class ReachAgain(Struct, frozen=True):
    """A follower's next question for the endpoint of its leader's process (`leader_access.py`)."""


class SyncDue(Struct, frozen=True):
    """The sync that the flush policy delays (`flush.py`)."""


class RetentionDue(Struct, frozen=True):
    """The next check for expired segments (`upkeep.py`)."""


class CompactionDue(Struct, frozen=True):
    """The next slice of compaction, or the next check for one (`upkeep.py`)."""


class CheckpointDue(Struct, frozen=True):
    """The next checkpoint (`upkeep.py`)."""


class GroupLapses(Struct, frozen=True):
    """The end of the time for which a group without members holds back producers (`backlog.py`)."""


class SaveGroupsDue(Struct, frozen=True):
    """The delayed write of the groups' file (`backlog.py`)."""


class MeasureDiskDue(Struct, frozen=True):
    """The next measurement of a disk that is too full (`disk.py`)."""


class SessionCall(Struct, frozen=True):
    """The key of a leader's question about its node's session."""


TimerKey: TypeAlias = (
    FetchesExpire
    | SearchContinues
    | ReplicaFetchesExpire
    | InSyncDue
    | FetchAgain
    | ReachAgain
    | SyncDue
    | RetentionDue
    | CompactionDue
    | CheckpointDue
    | IdleTimer
    | ReportTimer
    | GroupLapses
    | SaveGroupsDue
    | MeasureDiskDue
)
