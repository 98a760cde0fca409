"""Every error that a peer can cause or receive, by code. Codes are part of the wire protocol: never renamed or
reused."""

import copyreg
from enum import StrEnum
from typing import Any, Self

import msgspec


class ErrorCode(StrEnum):
    """The kind of an error, for programs to match."""

    UNKNOWN_OP = "UNKNOWN_OP"
    INVALID_REQUEST = "INVALID_REQUEST"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    HELLO_REQUIRED = "HELLO_REQUIRED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    INVALID_BATCH = "INVALID_BATCH"
    INVALID_TIMESTAMP = "INVALID_TIMESTAMP"
    INVALID_TOPIC = "INVALID_TOPIC"
    INVALID_CONFIG = "INVALID_CONFIG"
    UNKNOWN_TOPIC = "UNKNOWN_TOPIC"
    UNKNOWN_PARTITION = "UNKNOWN_PARTITION"
    UNKNOWN_TOPIC_ID = "UNKNOWN_TOPIC_ID"
    TOPIC_EXISTS = "TOPIC_EXISTS"
    PARTITION_OFFLINE = "PARTITION_OFFLINE"
    ACTOR_UNAVAILABLE = "ACTOR_UNAVAILABLE"
    UNKNOWN_ACTOR = "UNKNOWN_ACTOR"
    OVERLOADED = "OVERLOADED"
    THROTTLED = "THROTTLED"
    BACKPRESSURE = "BACKPRESSURE"
    TIMED_OUT = "TIMED_OUT"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    STORAGE_FULL = "STORAGE_FULL"
    CORRUPT_LOG = "CORRUPT_LOG"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    LOG_TRUNCATED = "LOG_TRUNCATED"
    OUT_OF_ORDER_SEQUENCE = "OUT_OF_ORDER_SEQUENCE"
    PRODUCER_FENCED = "PRODUCER_FENCED"
    UNKNOWN_PRODUCER = "UNKNOWN_PRODUCER"
    CONFLICT = "CONFLICT"
    INVALID_TRANSACTION = "INVALID_TRANSACTION"
    CONCURRENT_TRANSACTIONS = "CONCURRENT_TRANSACTIONS"
    TRANSACTION_ABORTED = "TRANSACTION_ABORTED"
    UNSTABLE_OFFSETS = "UNSTABLE_OFFSETS"
    INVALID_GROUP = "INVALID_GROUP"
    UNKNOWN_GROUP = "UNKNOWN_GROUP"
    UNKNOWN_MEMBER = "UNKNOWN_MEMBER"
    FENCED_MEMBER = "FENCED_MEMBER"
    STALE_GENERATION = "STALE_GENERATION"
    NOT_ASSIGNED = "NOT_ASSIGNED"
    NOT_ACQUIRED = "NOT_ACQUIRED"
    GROUP_NOT_EMPTY = "GROUP_NOT_EMPTY"
    GROUP_FULL = "GROUP_FULL"
    LIMIT_REACHED = "LIMIT_REACHED"
    FORBIDDEN = "FORBIDDEN"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    UNKNOWN_DEPLOYMENT = "UNKNOWN_DEPLOYMENT"
    UNKNOWN_SCHEDULED_ID = "UNKNOWN_SCHEDULED_ID"
    UNKNOWN_QUOTA = "UNKNOWN_QUOTA"
    UNKNOWN_PRINCIPAL = "UNKNOWN_PRINCIPAL"
    UNKNOWN_NODE = "UNKNOWN_NODE"
    UNSAFE_CHANGE = "UNSAFE_CHANGE"
    NOT_LEADER = "NOT_LEADER"
    NOT_ENOUGH_REPLICAS = "NOT_ENOUGH_REPLICAS"
    FENCED_LEADER_EPOCH = "FENCED_LEADER_EPOCH"
    UNKNOWN_LEADER_EPOCH = "UNKNOWN_LEADER_EPOCH"
    TOPIC_IS_MIRRORED = "TOPIC_IS_MIRRORED"
    NOT_MIRRORED = "NOT_MIRRORED"
    UNKNOWN_MIRROR = "UNKNOWN_MIRROR"


RETRIABLE = frozenset(
    {
        ErrorCode.HELLO_REQUIRED,
        ErrorCode.PARTITION_OFFLINE,
        ErrorCode.ACTOR_UNAVAILABLE,
        ErrorCode.OVERLOADED,
        ErrorCode.THROTTLED,
        ErrorCode.BACKPRESSURE,
        ErrorCode.TIMED_OUT,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.STORAGE_FULL,
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.UNSTABLE_OFFSETS,
        ErrorCode.NOT_LEADER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.TOPIC_IS_MIRRORED,
    }
)
"""Codes after which the same request may succeed later, unchanged."""


class ErrorBody(msgspec.Struct, frozen=True):
    """An error as it stands on the wire."""

    code: str
    message: str
    retriable: bool = False
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    """Delay after which a retry is worthwhile, where known: with BACKPRESSURE, and OVERLOADED for a quota."""
    next_offset: int | msgspec.UnsetType = msgspec.UNSET
    """Offset at which reading can continue: after the damage with CORRUPT_LOG, where the log differs with
    LOG_TRUNCATED."""
    topic_id: str | msgspec.UnsetType = msgspec.UNSET
    """Id of the topic that has the name now: with UNKNOWN_TOPIC_ID."""
    leader: str | msgspec.UnsetType = msgspec.UNSET
    """The node of the partition's leader, where known: with NOT_LEADER."""
    present: int | msgspec.UnsetType = msgspec.UNSET
    """The present offset, or the present version of the key, in place of the expected one: with CONFLICT."""


class PlanariaError(Exception):
    """The root of every error that Planaria raises deliberately. A pickled one keeps its text and attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by its arguments, as exceptions usually are: they are those of the root, not those of the class.
        return copyreg.__newobj__, (type(self),), {**vars(self), "args": self.args}  # type: ignore[attr-defined]


class OperatorNeeded(PlanariaError):
    """An actor cannot serve until an operator has acted: a restart would change nothing.

    The message is one line and names the action.
    """


class DependencyUnavailable(PlanariaError):
    """An actor cannot start until something outside the broker answers: it is restarted.

    The message is one line and names that dependency.
    """


class ProtocolError(PlanariaError):
    """A request was refused. `code` gives the reason; `retriable` is True if the same request may succeed later."""

    def __init__(
        self,
        code: ErrorCode | str,
        message: str,
        *,
        retriable: bool | None = None,
        retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET,
        next_offset: int | msgspec.UnsetType = msgspec.UNSET,
        topic_id: str | msgspec.UnsetType = msgspec.UNSET,
        leader: str | msgspec.UnsetType = msgspec.UNSET,
        present: int | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = str(code)
        self.message = message
        self.retriable = code in RETRIABLE if retriable is None else retriable
        self.retry_after_ms = retry_after_ms
        self.next_offset = next_offset
        self.topic_id = topic_id
        self.leader = leader
        self.present = present

    @property
    def body(self) -> ErrorBody:
        hints = (self.retry_after_ms, self.next_offset, self.topic_id, self.leader, self.present)
        return ErrorBody(self.code, self.message, self.retriable, *hints)

    @classmethod
    def from_body(cls, body: ErrorBody) -> Self:
        return cls(
            body.code,
            body.message,
            retriable=body.retriable,
            retry_after_ms=body.retry_after_ms,
            next_offset=body.next_offset,
            topic_id=body.topic_id,
            leader=body.leader,
            present=body.present,
        )
