"""The effects of a partition's machine and the events that answer them. Structs only, no behaviour.

effect                     performed                    answered by
Append                     at the end of the turn       Appended | AppendFailed, one for all of a turn
Sync                       at the end of the turn       by the Appended of the turn; a failed sync ends the actor
Read                       at once                      ReadDone | ReadUnfinished | RequestFailed
LookUp                     at once                      LookedUp
Compare                    at once                      Compared
DeleteBefore               at once                      Trimmed | RequestFailed
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

from msgspec import Struct

from ...transport.batch import BatchHeader
from ...transport.compression import Buffer
from ...transport.machine import LoopEffect, LoopEvent, Received
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.topics import TopicConfig


class Append(Struct, frozen=True):
    """Append these batches, stamped, to the log. All appends of a turn succeed or fail as one.

    `frames`, one after the other, are the bytes of the batches that `headers` describe; a batch may take several.
    """

    frames: Sequence[Buffer]
    headers: Sequence[BatchHeader]


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

    received: Received
    offset: int


class ApplyRetention(Struct, frozen=True):
    """Drop the segments beyond retention by age or size, except for records that some group still has to read."""

    consumed_offset: int | None = None


class CompactSlice(Struct, frozen=True):
    """Compact a little, if compaction is due: about the work of copying `budget_bytes`."""

    budget_bytes: int


class WriteCheckpoint(Struct, frozen=True):
    """Record the recovery point, so that a restart need not read the log again. Losing it costs only time."""


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


class LogOpened(Struct, frozen=True):
    """The log is open and the machine may set its timers: the first event."""


class Appended(Struct, frozen=True):
    """The turn's appends are in the log, and synced where the turn asked for it."""

    log_end_offset: int
    size_bytes: int


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
    | Appended
    | AppendFailed
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
)
OwnEffect: TypeAlias = (
    Append
    | Sync
    | Read
    | LookUp
    | Compare
    | DeleteBefore
    | ApplyRetention
    | CompactSlice
    | WriteCheckpoint
    | Reconfigure
    | MeasureBacklog
    | MeasureDisk
    | SaveGroups
    | Alarm
    | MarkAsleep
)
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect
