"""What a client raises: PlanariaErrors; what the broker refused is a ProtocolError with its code. Pure."""

import re
from typing import Self

from ..addresses import INTERNAL_PREFIX, is_internal
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError, ProtocolError


class TimedOut(ProtocolError):
    """No answer within the time given. Whether the request took effect is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.TIMED_OUT, message)


class UnknownTopic(ProtocolError):
    """The topic does not exist. `topic` is its name, None when the broker's message does not quote it."""

    topic: str | None

    def __init__(self, topic: str) -> None:
        super().__init__(ErrorCode.UNKNOWN_TOPIC, unknown_topic(topic).message)
        self.topic = topic

    @classmethod
    def from_body(cls, body: ErrorBody) -> Self:
        error = cls("")
        ProtocolError.__init__(error, body.code, body.message, retriable=body.retriable)
        quoted = re.search(r"topic '([A-Za-z0-9._-]+)'", body.message)
        error.topic = quoted[1] if quoted else None
        return error


class BufferFull(PlanariaError):
    """The producer's buffer stayed full for `max_block_ms`; the message was not taken."""


class Closed(PlanariaError):
    """The object has been closed."""


class Forked(PlanariaError):
    """The object was made before `os.fork`, by the parent process; a child makes its own."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"made in process {pid}, before this process was forked from it; make a new one here"
        )


class Backpressure(ProtocolError):
    """A group is too far behind in the partition, and the producer is to raise rather than wait. Nothing was taken.

    `retry_after_ms` says when it is worth trying again.
    """


class DeliveryError(ProtocolError):
    """A message was not acknowledged, and is not sent again by itself."""


class DeliveryFailed(DeliveryError):
    """A message is surely not in the log: it was refused, never sent, or its topic is gone. It may be published again."""


class DeliveryUncertain(DeliveryError):
    """A message may or may not be in the log: attempts without an answer, and no way left to find out."""


class ProducerFenced(ProtocolError):
    """A newer owner of this producer id has written; this producer can never write again."""


class TransactionAborted(ProtocolError):
    """The transaction was not committed, and nothing of it will be read: it failed on the way, or took too long."""


class TransactionUncertain(ProtocolError):
    """No answer came to the end of a transaction: it may be committed. The next one begins once that is settled."""


class NoOffset(PlanariaError):
    """The group has no committed offset for a partition, and `auto_offset_reset` is "error"."""


class OffsetOutOfRange(ProtocolError):
    """The position is outside the log, and `auto_offset_reset` is "error"."""


class LogTruncated(ProtocolError):
    """Records that were read have been lost since, and `auto_offset_reset` is "error".

    From `next_offset` on the log holds other records; a seek there lets reading go on.
    """


class TopicReplaced(ProtocolError):
    """The topic was deleted and created again: the position or the offset belongs to the earlier one."""


class CorruptData(PlanariaError):
    """Data of a partition is damaged or gone. Nothing of the damaged batch was delivered.

    `next_offset` is the first offset behind the damage, where a seek lets reading go on; None where the broker did not
    name it, and the next batch has to be tried.
    """

    def __init__(
        self, topic: str, partition: int, offset: int, reason: str, next_offset: int | None = None
    ) -> None:
        way_out = "past it" if next_offset is None else f"to {next_offset}"
        super().__init__(
            f"corrupt data in {topic}/{partition} at offset {offset}: {reason}; seek {way_out} to go on"
        )
        self.next_offset = next_offset
        self.topic = topic
        self.partition = partition
        self.offset = offset


class CommitFailed(ProtocolError):
    """The offsets were not committed: the member no longer holds the partitions."""


class MemberFenced(ProtocolError):
    """Another consumer with the same `instance_id` has taken this one's place in the group."""


_BY_CODE: dict[str, type[ProtocolError]] = {
    ErrorCode.UNKNOWN_TOPIC: UnknownTopic,
    ErrorCode.PRODUCER_FENCED: ProducerFenced,
    ErrorCode.BACKPRESSURE: Backpressure,
    ErrorCode.OFFSET_OUT_OF_RANGE: OffsetOutOfRange,
    ErrorCode.LOG_TRUNCATED: LogTruncated,
    ErrorCode.FENCED_MEMBER: MemberFenced,
    ErrorCode.UNKNOWN_TOPIC_ID: TopicReplaced,
    ErrorCode.STALE_GENERATION: CommitFailed,
    ErrorCode.NOT_ASSIGNED: CommitFailed,
    ErrorCode.UNKNOWN_MEMBER: CommitFailed,
}


def unknown_topic(topic: str) -> ErrorBody:
    advice = (
        f"names that begin with {INTERNAL_PREFIX} are the broker's own"
        if is_internal(topic)
        else f"create it with client.create_topic({topic!r})"
    )
    return ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"unknown topic {topic!r}; {advice}")


def error_from(body: ErrorBody) -> ProtocolError:
    """The exception that stands for an error on the wire."""
    if body.code == ErrorCode.TIMED_OUT:
        return TimedOut(body.message)
    return _BY_CODE.get(body.code, ProtocolError).from_body(body)
