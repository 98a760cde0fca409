"""The effects of a partition's machine and the events that answer them. Structs only, no behaviour.

effect                     performed                    answered by
Append                     at the end of the turn       Written if it is shared, before the sync, and then
                                                        Appended | AppendFailed, one for all of a turn
Sync                       at the end of the turn       by the Appended of the turn; a failed sync ends the actor
Read                       at once                      ReadDone | ReadUnfinished | RequestFailed
LookUp                     at once                      LookedUp
Compare                    at once                      Compared
DeleteBefore               at once                      Trimmed | RequestFailed
TakeRole                   at once                      RoleTaken, after the Appended of the appends before it
CutLog                     at once                      LogCut | CutFailed, likewise
ApplyRetention             at once                      Trimmed
CompactSlice               at once                      Compacted
MeasureBacklog             at once                      BacklogMeasured
MeasureDisk                at once                      DiskMeasured
SaveGroups                 at once                      GroupsSaved
Alarm                      with the next heartbeat      not at all
WriteCheckpoint            at once                      not at all
Reconfigure                at once                      not at all
MarkAsleep                 at once                      not at all
"""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct, field

from ...transport.batch import BatchHeader
from ...transport.compression import Buffer
from ...transport.machine import LoopEffect, LoopEvent, Received
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.topics import TopicConfig
from ..log.epochs import NO_EPOCH, EpochTable
from ..log.producers import ProducerStates
from .fresh import FreshBatches


class Append(Struct, frozen=True):
    """Append these batches, stamped, to the log. All appends of a turn succeed or fail as one.

    `frames`, one after the other, are the bytes of the batches that `headers` describe; a batch may take several.
    """

    frames: Sequence[Buffer]
    headers: Sequence[BatchHeader]
    is_shared: bool = False
    """True if Written follows before the sync: then other replicas may have the batches, or are asked for the next."""


class Sync(Struct, frozen=True):
    """Make every append, this turn's included, survive a power failure."""


class Read(Struct, frozen=True):
    """Read whole batches from the one that holds the requested offset; none may reach past `up_to_offset`."""

    received: Received
    max_bytes: int
    up_to_offset: int
    is_final: bool
    """Answer with any result; a fetch that has not waited yet may be parked when the result is too small."""


class LookUp(Struct, frozen=True):
    """Find the first offset whose record is at least as new as `timestamp_ms`."""

    received: Received
    timestamp_ms: int
    is_committed: bool = False
    """True to skip records of aborted transactions."""


class Compare(Struct, frozen=True):
    """Check whether the fetch's reader has seen the present records before its offset (divergence.py)."""

    received: Received
    leader_epoch: int
    """The leader epoch of the partition that it last read from."""


class DeleteBefore(Struct, frozen=True):
    """Move the start of the log up to `offset` permanently."""

    received: Received | None
    """The request; None for a follower, whose leader has moved its start."""
    offset: int


class TakeRole(Struct, frozen=True):
    """Write and sync the turn's appends; then, with an epoch, take it for the batches of this log's leader."""

    leader_epoch: int | None
    unclean_epochs: tuple[int, ...] = ()
    """Noted in the partition's label first, which keeps them."""
    is_own: bool = False
    """True to take the next epoch that is free, in place of the given one."""


class CutLog(Struct, frozen=True):
    """Remove every batch that reaches beyond `offset`; with `is_reset` all of them, and start again there."""

    offset: int
    is_reset: bool = False


class ApplyRetention(Struct, frozen=True):
    """Drop the segments beyond retention by age or size, except for records that some group still has to read."""

    consumed_offset: int | None = None
    up_to_offset: int | None = None
    """The high watermark, beyond which nothing is deleted; None: it is the end of the log."""


class CompactSlice(Struct, frozen=True):
    """Compact a little, if compaction is due: about the work of copying `budget_bytes`."""

    budget_bytes: int
    up_to_offset: int | None = None
    """As above: a record that may still be removed must not displace an older one."""


class WriteCheckpoint(Struct, frozen=True):
    """Record the recovery point, so that a restart need not read the log again. Losing it costs only time."""

    high_watermark: int | None = None
    """Recorded with it; None: it is the end of the log."""


class Reconfigure(Struct, frozen=True):
    config: TopicConfig


class MeasureBacklog(Struct, frozen=True):
    """Measure the bytes of the log at and after `offset`."""

    offset: int


class MeasureDisk(Struct, frozen=True):
    """Measure the space left on the log's disk."""


class SaveGroups(Struct, frozen=True):
    """Replace the file of `groups.py`, durably. On a full disk the older file stays."""

    data: bytes
    received: Received | None = None
    """The report that is answered once the file has it."""


class CheckSession(Struct, frozen=True):
    """Compare the clock that counts the machine's sleep with the end of the session -> SessionChecked, at once."""

    received: Received
    trusted_until_ms: int


class SessionChecked(Struct, frozen=True):
    received: Received
    is_trusted: bool


class Alarm(Struct, frozen=True):
    """Set the alarm that `status` shows for this partition on one subject; an empty text clears it."""

    about: str
    alarms: tuple[str, ...]


class MarkAsleep(Struct, frozen=True):
    """Note durably that the partition sleeps, for the next start of the broker."""

    wake_at_ms: int | None
    """The latest time at which it must be woken; None: on the next request."""


class Loss(Struct, frozen=True):
    """Offsets from `offset` up to `next_offset` cannot be read; the message names the file."""

    offset: int
    next_offset: int
    message: str


class OpenedLog(Struct, frozen=True, kw_only=True):
    """The state of the log at its opening, or after a change of its role or its end."""

    leader_epoch: int
    """The epoch in which it leads; NO_EPOCH if it does not."""
    highest_leader_epoch: int = NO_EPOCH
    """The highest epoch that a leader of this log took."""
    epochs: EpochTable = field(default_factory=EpochTable)
    high_watermark: int = 0
    """An offset below which every record was known to be committed."""
    log_start_offset: int
    log_end_offset: int
    size_bytes: int
    producers: ProducerStates
    losses: Sequence[Loss] = ()
    lost_files: Sequence[str] = ()
    """Descriptions of files beside the segments that are missing or damaged."""


class LogOpened(Struct, frozen=True):
    """The log is open and the machine may set its timers: the first event."""


class Written(Struct, frozen=True):
    """The turn's appends are in the log, and not synced yet."""

    log_end_offset: int
    fresh: FreshBatches
    """These appends."""


class RoleTaken(Struct, frozen=True):
    """The log has the epoch of the TakeRole, unless that one was used before: then it has none."""

    log: OpenedLog


class LogCut(Struct, frozen=True):
    log: OpenedLog


class CutFailed(Struct, frozen=True):
    """The disk was full: the log is unchanged."""


class Appended(Struct, frozen=True):
    """The turn's appends are in the log, and synced where the turn asked for it."""

    log_end_offset: int
    size_bytes: int
    sync_ms: int | None = None
    """The duration of the sync; None without one."""


class AppendFailed(Struct, frozen=True):
    """The disk was full: none of the turn's appends is in the log, which still ends at `log_end_offset`."""

    error: ErrorBody
    log_end_offset: int


class ReadDone(Struct, frozen=True):
    """`batches` are whole and in order, from the one that holds the requested offset, or the next existing one.

    Reading continues at `next_offset`. Compaction leaves offsets out, so it may lie beyond the last batch, or have
    moved without one.
    """

    read: Read
    batches: Buffer
    next_offset: int


class ReadUnfinished(Struct, frozen=True):
    """Part of a long damaged stretch has been searched, and the same Read continues the search."""

    read: Read


class LookedUp(Struct, frozen=True):
    """`offset` is None when no record is that new."""

    received: Received
    offset: int | None
    timestamp_ms: int = -1


class Compared(Struct, frozen=True):
    """`divergence` is the first offset at which the reader's view differs; None when there is none before its own."""

    received: Received
    divergence: int | None


class Trimmed(Struct, frozen=True):
    """The log now starts at `log_start_offset`. `received` is None after retention."""

    log_start_offset: int
    size_bytes: int
    received: Received | None = None


class Compacted(Struct, frozen=True):
    """A slice is done. If `is_more`, the next one has work to do at once."""

    is_more: bool
    size_bytes: int


class BacklogMeasured(Struct, frozen=True):
    """The measured backlog of written bytes, without this turn's appends."""

    behind_bytes: int


class GroupsSaved(Struct, frozen=True):
    """The groups' file was replaced, or `refusal` says why not."""

    received: Received | None
    refusal: ErrorBody | None = None


class DiskMeasured(Struct, frozen=True):
    free_bytes: int


class RequestFailed(Struct, frozen=True):
    """A Read or DeleteBefore failed. `loss` is the damage it met, if any."""

    received: Received
    error: ErrorBody
    loss: Loss | None = None


OwnEvent: TypeAlias = (
    LogOpened
    | Written
    | Appended
    | AppendFailed
    | RoleTaken
    | LogCut
    | CutFailed
    | ReadDone
    | ReadUnfinished
    | LookedUp
    | Compared
    | Trimmed
    | Compacted
    | BacklogMeasured
    | GroupsSaved
    | DiskMeasured
    | RequestFailed
    | SessionChecked
)
OwnEffect: TypeAlias = (
    Append
    | Sync
    | Read
    | LookUp
    | Compare
    | DeleteBefore
    | TakeRole
    | CutLog
    | ApplyRetention
    | CompactSlice
    | WriteCheckpoint
    | Reconfigure
    | MeasureBacklog
    | MeasureDisk
    | SaveGroups
    | Alarm
    | CheckSession
    | MarkAsleep
)
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
