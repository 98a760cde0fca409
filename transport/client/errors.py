"""The exceptions of a client, all PlanariaErrors. A refusal by the broker is a ProtocolError with its code. Pure."""

import re
from typing import Self

from ..addresses import INTERNAL_PREFIX, is_internal
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError, ProtocolError


class TimedOut(ProtocolError, TimeoutError):
    """No reply arrived within the timeout. It is unknown if the request took effect."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.TIMED_OUT, message)


class AuthenticationFailed(ProtocolError):
    """The broker does not accept the credentials of this client, or needs some: UNAUTHENTICATED."""


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


class TopicExists(ProtocolError):
    """A topic of that name exists, with fewer partitions or another configuration than the call asks for."""


class UnknownGroup(ProtocolError):
    """The consumer group or share group does not exist."""


class GroupNotEmpty(ProtocolError):
    """The group has members: its offsets cannot be reset, and it cannot be deleted."""


class BufferFull(PlanariaError):
    """The producer's buffer stayed full for `max_block_ms`; the message was not taken."""


class Closed(PlanariaError):
    """The object has been closed."""


class Forked(PlanariaError):
    """The object was made before `os.fork`, by the parent process. A child process must make its own."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"made in process {pid}, before this process was forked from it; make a new one here"
        )


class Backpressure(ProtocolError):
    """A group lags too far behind in the partition, and the producer raises instead of waiting. Nothing was accepted.

    `retry_after_ms` is the delay after which a retry is worthwhile.
    """


class DeliveryError(ProtocolError):
    """A message was not acknowledged. The client does not send it again."""


class DeliveryFailed(DeliveryError):
    """A message is certainly not in the log: refused, never sent, or its topic was deleted. It may be
    published again."""


class Conflict(DeliveryFailed):
    """The partition or the key is not as the publisher expected; the message is not in the log.

    `present` is the one that it has: the next offset, or the version of the key, -1 if it has none.
    """

    present: int


class DeliveryUncertain(DeliveryError):
    """A message may or may not be in the log: attempts had no reply, and there is no way left to find out."""


class ProducerFenced(ProtocolError):
    """A newer owner of this producer id has written; this producer can never write again."""


class TransactionAborted(ProtocolError):
    """The transaction was not committed and none of it will be read: it failed or timed out."""


class TransactionUncertain(ProtocolError):
    """The end of a transaction had no reply: it may be committed. The next one begins once the outcome is settled."""


class NoOffset(PlanariaError):
    """The group has no committed offset for a partition, and `auto_offset_reset` is "error"."""


class OffsetOutOfRange(ProtocolError):
    """The position is outside the log, and `auto_offset_reset` is "error"."""


class LogTruncated(ProtocolError):
    """Records that were read have since been lost, and `auto_offset_reset` is "error".

    From `next_offset` on the log holds different records. Seek there to continue reading.
    """


class TopicReplaced(ProtocolError):
    """The topic was deleted and created again. The position or offset belongs to the earlier topic."""


class CorruptData(PlanariaError):
    """Data of a partition is damaged or missing. No record of the damaged batch was delivered.

    `next_offset` is the first offset after the damage: seek there to continue reading. It is None when the
    broker did not name it; then each following offset has to be tried.
    """

    def __init__(
        self, topic: str, partition: int, offset: int, reason: str, next_offset: int | None = None
    ) -> None:
        way_out = "past it" if next_offset is None else f"to {next_offset}"
        super().__init__(
            f"corrupt data in {topic}/{partition} at offset {offset}: {reason}; seek {way_out} to continue"
        )
        self.next_offset = next_offset
        self.topic = topic
        self.partition = partition
        self.offset = offset


class CommitFailed(ProtocolError):
    """The offsets were not committed: the member no longer owns the partitions."""


class MemberFenced(ProtocolError):
    """Another consumer with the same `instance_id` has taken this one's place in the group."""


_BY_CODE: dict[str, type[ProtocolError]] = {
    ErrorCode.UNAUTHENTICATED: AuthenticationFailed,
    ErrorCode.UNKNOWN_TOPIC: UnknownTopic,
    ErrorCode.TOPIC_EXISTS: TopicExists,
    ErrorCode.UNKNOWN_GROUP: UnknownGroup,
    ErrorCode.GROUP_NOT_EMPTY: GroupNotEmpty,
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
    """Return the exception for an error on the wire."""
    if body.code == ErrorCode.TIMED_OUT:
        return TimedOut(body.message)
    return _BY_CODE.get(body.code, ProtocolError).from_body(body)
