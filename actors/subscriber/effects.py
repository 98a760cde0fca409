"""The effects and events of a subscriber's machine. Structs only, no behaviour.

    effect                 performed by                 answered by
    Poll                   the feed                     RecordsPolled; before it Revoking or PartitionsLost may come
    EndPoll                the feed, at once            RecordsPolled, soon
    Commit                 the feed                     Committed | CommitRefused | CommitUncertain
    Leave                  the feed                     GroupLeft
    PausePartition         the feed, at once            none
    ResumePartition        the feed, at once            none
    Rewind, ReadDamage     the feed                     none
    HandOver               the feed, at once            none; the feed waits for it after Revoking
    Run                    a worker's thread            HandlerReturned
    Recall                 the loop                     Recalled
    PublishDeadLetter      the dead-letter publisher    DeadLetterPublished | DeadLetterFailed
    NoteTimeout            the loop                     HandlerTimedOut
    Forget, Abandon        the loop                     none
    Retire                 the loop                     none
    WriteLog               the loop                     none
    Alarm                  the next heartbeat           none
    Crash                  the loop: ends the process   none

The feed and each thread perform their effects one after another, in the order given; the feed those marked `at once`
during a poll or a commit as well.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.lineage import UNTRACED
from ...transport.machine import LoopEffect, LoopEvent
from ...transport.publication import Publication
from .progress import Ahead

Offsets: TypeAlias = Mapping[TopicPartition, int]
"""The next offset to read, by partition."""
Metadata: TypeAlias = Mapping[TopicPartition, str]
"""The metadata committed with the offset, by partition."""
Cause = Literal["failed", "rejected", "released", "timed out", "cpu exceeded", "killed"]
Verdict = Literal["failed", "rejected", "released"]


class Record(Protocol):
    """The fields of a message that the machine reads."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str] | None: ...
    @property
    def leader_epoch(self) -> int: ...


class PriorAttempt(Struct, frozen=True):
    """A record with failed attempts in an earlier incarnation."""

    topic: str
    partition: int
    offset: int
    attempts: int
    """Number of failures; 0 if the record was only released."""
    cause: Cause
    """The end of the last attempt."""
    handed: int = 1
    """Number of times the record was given to the handler."""
    first_failed_ms: int = 0
    last_failed_ms: int = 0
    exit: str | None = None
    """The exit status of the process that the record killed, where known."""
    stack: str | None = None
    peak_bytes: int | None = None
    """The peak memory of that process."""
    leader_epoch: int = 0
    lineage: bytes = UNTRACED
    """The lineage of the partition: the topic's incarnation, and the group's pass over it (lineage.py)."""

    @property
    def key(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Failure(Struct, frozen=True):
    """The reason of a failed attempt."""

    reason: str
    exception: str | None = None
    """The exception's type; None if no exception was caught."""
    traceback: str | None = None
    exit: str | None = None
    """The exit status of the process, if the attempt ended it."""
    stack: str | None = None
    """The stack of the process when a signal killed it."""
    peak_bytes: int | None = None


class DeadLetterRecord(Struct, frozen=True):
    """A record for the dead-letter topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    dedup_id: str | None = None


# Effects.


class Poll(Struct, frozen=True):
    """Wait for records. The answer is empty after EndPoll, or after an error that may pass."""


class EndPoll(Struct, frozen=True):
    """Answer the poll that is out now, with or without records."""


class Commit(Struct, frozen=True):
    """Commit the offsets, and publish `outputs` in the same transaction."""

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()


class HandOver(Struct, frozen=True):
    """Answer Revoking: commit as Commit does, then let the partitions go to another member."""

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()


class Leave(Struct, frozen=True):
    """Commit as Commit does, leave the group and close the client.

    With `keeps_place` the group is not left: the next incarnation continues with the member's partitions.
    """

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()
    keeps_place: bool = False


class PausePartition(Struct, frozen=True):
    key: TopicPartition


class ResumePartition(Struct, frozen=True):
    key: TopicPartition


class Rewind(Struct, frozen=True):
    """Fetch these partitions again from these offsets, as far as they are still assigned."""

    offsets: Offsets


class ReadDamage(Struct, frozen=True):
    """Read the damaged partitions again: their logs may have been restored, or their starts moved past the damage."""


class Run(Struct, frozen=True):
    """Give the records to the handler one by one, until one fails or the time slice is over."""

    number: int
    records: Sequence[Record]
    """Records of one partition."""
    attempt: int
    """Number of the first record's attempt; the others have their first attempt."""
    handed: int = 0
    """Number of times the first record was given to the handler before."""
    first_failed_ms: int = 0
    last_failed_ms: int = 0
    worker: int = 0
    committed: int = 0
    """The group's committed offset in this partition, as far as known."""
    lineage: bytes = UNTRACED
    """The partition's lineage."""


class Recall(Struct, frozen=True):
    """Take back the records that the worker has not begun: its current record takes long."""

    number: int
    worker: int


class PublishDeadLetter(Struct, frozen=True):
    """Publish to the dead-letter topic and wait until it is durable there; or check that a transaction can publish it."""

    lane: int
    dead_letter: DeadLetterRecord


class NoteTimeout(Struct, frozen=True):
    """Note an attempt of the record in progress, which exceeds its time or its CPU time."""

    number: int
    worker: int = 0
    cause: Literal["timed out", "cpu exceeded"] = "timed out"
    offset: int | None = None
    """Note it only if this record is in progress."""


class Forget(Struct, frozen=True):
    """Remove the note of this record that had failed, which is done."""

    key: TopicPartition
    offset: int


class Retire(Struct, frozen=True):
    """Discard the flight recorder, unless a successor needs its notes: the member has left the group."""


class Abandon(Struct, frozen=True):
    """End the process by order while the handler runs; it does not count as an attempt."""


class WriteLog(Struct, frozen=True):
    level: int
    event: str
    fields: dict[str, Any]


class Alarm(Struct, frozen=True):
    """Alarms for the operator, one line each; replaces the previous ones."""

    alarms: tuple[str, ...]


class Crash(Struct, frozen=True):
    """End the process with an error, so that a new incarnation starts."""

    reason: str


# Events.


class ConsumerStarted(Struct, frozen=True):
    """The client is open."""


class RecordsPolled(Struct, frozen=True):
    records: Sequence[Record]
    ahead: Mapping[TopicPartition, Ahead] = {}
    """For partitions that are new here: the previous owner's progress beyond the committed offset."""
    lineages: Mapping[TopicPartition, bytes] = {}
    """Lineages of the partitions that are new here."""


class Revoking(Struct, frozen=True):
    """The group revokes these partitions; the feed waits for HandOver before they go."""

    keys: Sequence[TopicPartition]


class PartitionsLost(Struct, frozen=True):
    """These partitions have been lost; commits for them are refused."""

    keys: Sequence[TopicPartition]


class Damage(Struct, frozen=True):
    """Records of a partition that cannot be read."""

    topic: str
    partition: int
    offset: int
    """Offset of the first unreadable record."""
    next_offset: int | None
    """Offset of the first record after the damage, where known."""
    reason: str
    is_skipped: bool = False

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class DamageFound(Struct, frozen=True):
    """All damage that the feed has stopped before or skipped; replaces the previous list."""

    found: Sequence[Damage]


class Committed(Struct, frozen=True):
    offsets: Offsets


class CommitRefused(Struct, frozen=True):
    """The commit was not made."""

    offsets: Offsets
    reason: str
    is_spoiled: bool = False
    """True if no commit with these outputs can succeed: a topic has changed since the handlers published to it. On the
    next call the handlers' publishes are refused, and their records fail like any others.
    """


class CommitUncertain(Struct, frozen=True):
    """The outcome of the commit is unknown, or no such commit can succeed any more."""

    offsets: Offsets
    reason: str


class GroupLeft(Struct, frozen=True):
    pass


class HandlerReturned(Struct, frozen=True):
    """The run's first `done` records are handled; `failure` concerns the record after them."""

    number: int
    done: int
    failure: Failure | None = None
    verdict: Verdict = "failed"
    published: Mapping[int, Sequence[Publication]] = {}
    """The messages the handler published, by the record's offset, if a transaction is to publish them."""


class SoFar(Struct, frozen=True):
    """The results of the records of a run that precede the one in progress."""

    published: Mapping[int, Sequence[Publication]] = {}
    """The same as in HandlerReturned."""
    undelivered: int | None = None
    """Index of the first record with an output that is not durable yet; that record does not count as done."""


class HandlerTimedOut(Struct, frozen=True):
    number: int
    offset: int | None
    """Offset of the record in progress; None if the handler has returned after all."""
    cause: Literal["timed out", "cpu exceeded"] = "timed out"
    before: SoFar = SoFar()


class CpuExceeded(Struct, frozen=True):
    """This worker's record in progress has used more than cpu_limit."""

    worker: int
    offset: int


class DescriptorsExhausted(Struct, frozen=True):
    """For some time the process has had no free file descriptor, so it can open no file and no connection."""


class Recalled(Struct, frozen=True):
    """The last `count` records of the run were not begun; HandlerReturned does not cover them."""

    number: int
    count: int


class DeadLetterPublished(Struct, frozen=True):
    """The dead letter is durable, or its transaction is to publish it."""

    lane: int
    published: Sequence[Publication] = ()


class DeadLetterFailed(Struct, frozen=True):
    lane: int
    reason: str


OwnEvent: TypeAlias = (
    ConsumerStarted
    | RecordsPolled
    | Revoking
    | PartitionsLost
    | DamageFound
    | Committed
    | CommitRefused
    | CommitUncertain
    | GroupLeft
    | HandlerReturned
    | HandlerTimedOut
    | CpuExceeded
    | DescriptorsExhausted
    | Recalled
    | DeadLetterPublished
    | DeadLetterFailed
)
FeedEffect: TypeAlias = (
    Poll | EndPoll | Commit | HandOver | Leave | PausePartition | ResumePartition | Rewind | ReadDamage
)
"""Performed by the feed."""
OwnEffect: TypeAlias = (
    FeedEffect
    | Run
    | Recall
    | PublishDeadLetter
    | NoteTimeout
    | Forget
    | Retire
    | Abandon
    | WriteLog
    | Alarm
    | Crash
)
Event: TypeAlias = LoopEvent | OwnEvent
Effect: TypeAlias = LoopEffect | OwnEffect


def log_of(record: Record, level: int, event: str, **fields: Any) -> WriteLog:
    """Return a log line about one record."""
    tp = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return WriteLog(level, event, {**tp, **fields})


WARNING = logging.WARNING
ERROR = logging.ERROR
CRITICAL = logging.CRITICAL
