"""The failures of a partition's log, as plain exceptions.

They are independent of the wire; the partition process turns each into a reply, or lets it crash the actor, as the
docstring of each says.
"""


class LogError(Exception):
    """Any failure of a partition's log."""


class StorageFull(LogError):
    """The device, a quota or a file size limit is exhausted.

    The incomplete write has been cut back, and the log stays usable: reads continue, and a later write may succeed.
    """


class StorageFailed(LogError):
    """The operating system refused a call. After a failed write or sync, the log refuses all later calls.

    It must crash the actor: after a failed sync the kernel may have marked lost pages clean, so only recovery, from a
    new descriptor, can determine which data survived.
    """


class Unreadable(StorageFailed):
    """The device cannot read this stretch of a file (EIO). Data elsewhere is not affected.

    Once a log is open only the stretch is lost: reads of it raise CorruptLog. Recovery must not continue without it.
    """


class LogLocked(LogError):
    """Another process holds the directory."""


class StaleLeaderEpoch(LogError):
    """A leader of this log has taken this epoch, or a higher one, before."""

    def __init__(self, leader_epoch: int, highest_leader_epoch: int) -> None:
        super().__init__(
            f"leader epoch {leader_epoch} is not above {highest_leader_epoch}, which was used in this log"
        )


class OffsetOutOfRange(LogError):
    """The offset lies below the log's start or above its end."""

    def __init__(self, offset: int, log_start_offset: int, log_end_offset: int) -> None:
        super().__init__(f"offset {offset} is outside {log_start_offset} to {log_end_offset}")
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class CorruptLog(LogError):
    """Bytes that were once safely written are damaged or missing. Only this stretch is lost, the rest can be read.

    `segment` is the file's name, `position` the byte in it where the damage begins, `offset` the first offset that
    cannot be read, `next_offset` the first readable one after the damage.
    """

    def __init__(self, segment: str, position: int, offset: int, next_offset: int, reason: str) -> None:
        super().__init__(
            f"{segment} at byte {position}: {reason}; offsets {offset} to {next_offset - 1} are lost"
        )
        self.segment = segment
        self.position = position
        self.offset = offset
        self.next_offset = next_offset
        self.reason = reason


class SequenceError(LogError):
    """A producer's batch does not follow its last one. `code` is its error code on the wire; no state was changed."""

    code: str


class OutOfOrderSequence(SequenceError):
    """A batch between this one and the last is missing, or this one is older than the remembered results."""

    code = "OUT_OF_ORDER_SEQUENCE"


class ProducerFenced(SequenceError):
    """A newer instance of this producer has already written."""

    code = "PRODUCER_FENCED"


class UnknownProducer(SequenceError):
    """The producer id is unknown, and the batch is not its first: the producer must start over."""

    code = "UNKNOWN_PRODUCER"
