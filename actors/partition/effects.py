"""What a partition's machine asks of its process, and what it hears back. Structs only, no behaviour.

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
SaveReaders                at once                      not at all; on a full disk the older file stays
Alarm                      with the next heartbeat      not at all
Checkpoint, Reconfigure    at once                      not at all
"""

from collections.abc import Sequence

from msgspec import Struct

from ...transport.batch import BatchHeader
from ...transport.compression import Buffer
from ...transport.machine import Received
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.topics import TopicConfig


class Append(Struct, frozen=True):
    """Put these batches, stamped, at the end of the log. All appends of a turn succeed or fail as one.

    `frames`, one after the other, are the bytes of the batches that `headers` describe; a batch may take several.
    """

    frames: Sequence[Buffer]
    headers: Sequence[BatchHeader]


class Sync(Struct, frozen=True):
    """Make everything appended, this turn's batches included, survive a power failure."""


class Read(Struct, frozen=True):
    """Read whole batches from the one that holds the offset asked for; none may reach past `up_to_offset`."""

    asked: Received
    max_bytes: int
    up_to_offset: int
    is_final: bool
    """Answer with whatever is found; a fetch that has not waited yet may be parked when it is too little."""


class LookUp(Struct, frozen=True):
    """Find the first offset whose record is as young as `timestamp_ms`."""

    asked: Received
    timestamp_ms: int
    is_committed: bool = False
    """Whether records of aborted transactions are left out."""


class Compare(Struct, frozen=True):
    """Find out whether the fetch's reader has seen what the log holds before its offset (divergence.py)."""

    asked: Received
    leader_epoch: int
    """Of the last partition that it read from."""


class DeleteBefore(Struct, frozen=True):
    """Move the start of the log up to `offset`, for good."""

    asked: Received
    offset: int


class ApplyRetention(Struct, frozen=True):
    """Drop the segments that have grown too old or too many, but for what some group still has to read."""

    consumed_offset: int | None = None


class CompactSlice(Struct, frozen=True):
    """Do a little of compaction, if any is due: about what it takes to copy `budget_bytes`."""

    budget_bytes: int


class Checkpoint(Struct, frozen=True):
    """Note how far the log is safe, so that a restart need not read it again. Losing it costs time only."""


class Reconfigure(Struct, frozen=True):
    config: TopicConfig


class MeasureBacklog(Struct, frozen=True):
    """How many bytes of the log lie at `offset` and after it?"""

    offset: int


class MeasureDisk(Struct, frozen=True):
    """How much may still be written to the disk that the log is on?"""


class SaveReaders(Struct, frozen=True):
    """Replace the file of `readers.py`, before any reply leaves."""

    data: bytes


class Alarm(Struct, frozen=True):
    """What `status` shows of this partition from now on about one matter; empty when that is well."""

    about: str
    alarms: tuple[str, ...]


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
    """There was no room: nothing of the turn's appends is in the log, which ends at `log_end_offset` as before."""

    error: ErrorBody
    log_end_offset: int


class ReadDone(Struct, frozen=True):
    """`batches` are whole and in order, from the one that holds the offset asked for, or the next there is.

    Reading goes on at `next_offset`. Compaction leaves offsets out, so it may lie beyond the last batch, or have moved
    without one.
    """

    read: Read
    batches: Buffer
    next_offset: int


class ReadUnfinished(Struct, frozen=True):
    """The offset lies in a long damaged stretch: part of it has been searched, and the same Read goes on."""

    read: Read


class LookedUp(Struct, frozen=True):
    """`offset` is None when no record is that young."""

    asked: Received
    offset: int | None
    timestamp_ms: int = -1


class Compared(Struct, frozen=True):
    """`divergence` is the first offset that the reader has not seen as it is; None when there is none before its own."""

    asked: Received
    divergence: int | None


class Trimmed(Struct, frozen=True):
    """The log starts at `log_start_offset` now. `asked` is None when it was retention's doing."""

    log_start_offset: int
    size_bytes: int
    asked: Received | None = None


class Compacted(Struct, frozen=True):
    """A slice is done. `is_more`: the next one has something to do at once."""

    is_more: bool
    size_bytes: int


class BacklogMeasured(Struct, frozen=True):
    """Of what is written; this turn's appends are not counted."""

    behind_bytes: int


class DiskMeasured(Struct, frozen=True):
    free_bytes: int


class RequestFailed(Struct, frozen=True):
    """A Read or DeleteBefore could not be done. `loss` is what it met, if it met damage."""

    asked: Received
    error: ErrorBody
    loss: Loss | None = None


class MarkAsleep(Struct, frozen=True):
    """Note durably that the partition sleeps, for the next start of the broker."""

    wake_at_ms: int | None
    """When it has to be woken at the latest; None: when somebody asks for it."""
