"""What a subscriber's machine asks of its process, and what it hears back. Structs only, no behaviour.

effect                 performed by                 answered by
Poll                   the feed's thread            Polled; Revoking or Lost may come before it
Commit                 the feed's thread            Committed | CommitRefused | CommitUncertain
Leave                  the feed's thread            Left
Pause, Resume, Rewind  the feed's thread            not at all
HandOver                  the feed's thread            not at all; the feed waits for it after Revoking
Run                    a worker's thread            Ran
Recall                 at once                      Recalled
Bury                   the mail's thread            DeadLetterPublished | DeadLetterFailed
NoteTimeout            at once                      TimedOut
Forget, Abandon        at once                      not at all
Retire                 at once                      not at all
Tell                   at once: a line in the log   not at all
Alarm                  with the next heartbeat      not at all
Crash                  at once: ends the process    not at all

One thread does its orders one after another, in the order given.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.context import Publication
from ...transport.lineage import UNTRACED
from .progress import Ahead

Offsets: TypeAlias = Mapping[TopicPartition, int]
"""By partition, the offset to go on from."""
Metadata: TypeAlias = Mapping[TopicPartition, str]
"""By partition, what goes with its offset."""
Cause = Literal["failed", "rejected", "released", "timed out", "cpu exceeded", "killed"]
Verdict = Literal["failed", "rejected", "released"]


class Record(Protocol):
    """What the machine reads of a message."""

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
    """A record that an earlier incarnation has tried in vain."""

    topic: str
    partition: int
    offset: int
    attempts: int
    """How often it failed; 0 when it was only released."""
    cause: Cause
    """Why it is here: the last attempt's end."""
    handed: int = 1
    """How often it was given to the handler."""
    first_failed_ms: int = 0
    last_failed_ms: int = 0
    exit: str | None = None
    """How the process ended that it killed, where known."""
    stack: str | None = None
    peak_bytes: int | None = None
    """The most memory that process had."""
    leader_epoch: int = 0
    lineage: bytes = UNTRACED
    """Which topic of the name, and which reading of it by the group: see lineage.py."""

    @property
    def key(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Failure(Struct, frozen=True):
    """Why an attempt failed."""

    reason: str
    exception: str | None = None
    """The exception's type; None when there was none to catch."""
    traceback: str | None = None
    exit: str | None = None
    """How the process ended, if this was its end."""
    stack: str | None = None
    """Where the process was when a signal killed it."""
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
    """Fetch more; the answer may be empty."""

    is_brief: bool = False
    """A partition is paused, and its Resume must not wait long behind this."""


class Commit(Struct, frozen=True):
    """Commit the offsets, and publish `outputs` in the same transaction."""

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()


class HandOver(Struct, frozen=True):
    """Answer Revoking: commit this as Commit does, then the partitions may go to another member."""

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()


class Leave(Struct, frozen=True):
    """Commit this as Commit does, leave the group and close the client."""

    offsets: Offsets
    metadata: Metadata = {}
    outputs: Sequence[Publication] = ()


class Pause(Struct, frozen=True):
    key: TopicPartition


class Resume(Struct, frozen=True):
    key: TopicPartition


class Rewind(Struct, frozen=True):
    """Fetch these partitions again from here on, as far as they are still assigned."""

    offsets: Offsets


class Run(Struct, frozen=True):
    """Give the records to the handler one by one, until one fails or the slice of time is over."""

    number: int
    records: Sequence[Record]
    """Of one partition."""
    attempt: int
    """Of the first record; the others are tried for the first time."""
    handed: int = 0
    """How often the first record was given to the handler before."""
    first_failed_ms: int = 0
    last_failed_ms: int = 0
    worker: int = 0
    committed: int = 0
    """The offset of the group in this partition, as far as known."""
    lineage: bytes = UNTRACED
    """That of the partition."""


class Recall(Struct, frozen=True):
    """Take back what the worker has not begun with: its record at hand takes long."""

    number: int
    worker: int


class PublishDeadLetter(Struct, frozen=True):
    """Publish to the dead-letter topic and wait until it is durable there; or see that a transaction can publish it."""

    lane: int
    letter: DeadLetterRecord


class NoteTimeout(Struct, frozen=True):
    """The record at hand takes too long, or too much; see which it is and charge it."""

    number: int
    worker: int = 0
    cause: Literal["timed out", "cpu exceeded"] = "timed out"
    offset: int | None = None
    """Only this one."""


class Forget(Struct, frozen=True):
    """This charged record is dealt with."""

    key: TopicPartition
    offset: int


class Retire(Struct, frozen=True):
    """The group has been left in good order: a flight recorder with nothing to tell a successor may go."""


class Abandon(Struct, frozen=True):
    """The process ends by order while the handler is at work; that is not to be charged."""


class WriteLog(Struct, frozen=True):
    level: int
    event: str
    fields: dict[str, Any]


class Alarm(Struct, frozen=True):
    """What an operator should know of, one line each; replaces what was told before."""

    alarms: tuple[str, ...]


class Crash(Struct, frozen=True):
    """End with an error, for a new incarnation to go on."""

    reason: str


# Events.


class ConsumerStarted(Struct, frozen=True):
    """The client is there."""


class Polled(Struct, frozen=True):
    records: Sequence[Record]
    ahead: Mapping[TopicPartition, Ahead] = {}
    """Of partitions that are new here: what their last owner had done beyond the committed offset."""
    lineages: Mapping[TopicPartition, bytes] = {}
    """Of partitions that are new here."""


class Revoking(Struct, frozen=True):
    """These partitions are wanted elsewhere; the feed waits for HandOver before they go."""

    keys: Sequence[TopicPartition]


class Lost(Struct, frozen=True):
    """These partitions are gone already; commits for them are refused."""

    keys: Sequence[TopicPartition]


class Damage(Struct, frozen=True):
    """Records of a partition that cannot be read."""

    topic: str
    partition: int
    offset: int
    """The first of them."""
    next_offset: int | None
    """The first one behind them, where that is known."""
    reason: str
    is_skipped: bool = False

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Damaged(Struct, frozen=True):
    """All damage that the feed stands before or has passed; replaces what was told before."""

    found: Sequence[Damage]


class Committed(Struct, frozen=True):
    offsets: Offsets


class CommitRefused(Struct, frozen=True):
    """It was not made."""

    offsets: Offsets
    reason: str
    is_spoiled: bool = False
    """None with these outputs can be made: a topic has changed since the handlers published to it. Called anew, they are
    refused as they publish, and their records have failed like any others."""


class CommitUncertain(Struct, frozen=True):
    """Whether it was made nobody knows, or nothing like it can be made any more."""

    offsets: Offsets
    reason: str


class GroupLeft(Struct, frozen=True):
    pass


class Ran(Struct, frozen=True):
    """The run's first `done` records are handled; `failure` speaks of the one after them."""

    number: int
    done: int
    failure: Failure | None = None
    verdict: Verdict = "failed"
    published: Mapping[int, Sequence[Publication]] = {}
    """By offset, what the handler made of these, where a transaction is to publish it."""


class SoFar(Struct, frozen=True):
    """What is to be known of the records of a run that come before the one at hand."""

    published: Mapping[int, Sequence[Publication]] = {}
    """As in Ran."""
    undelivered: int | None = None
    """The place of the first of which something published is not durable yet; it does not count as done."""


class TimedOut(Struct, frozen=True):
    number: int
    offset: int | None
    """Of the record at hand; None when the handler came back after all."""
    cause: Literal["timed out", "cpu exceeded"] = "timed out"
    before: SoFar = SoFar()


class CpuExceeded(Struct, frozen=True):
    """The record that this worker has at hand has used more than cpu_limit."""

    worker: int
    offset: int


class Recalled(Struct, frozen=True):
    """The last `count` records of the run were not begun, and Ran will not speak of them."""

    number: int
    count: int


class DeadLetterPublished(Struct, frozen=True):
    """It is durable, or its transaction is to publish it."""

    lane: int
    published: Sequence[Publication] = ()


class DeadLetterFailed(Struct, frozen=True):
    lane: int
    reason: str


def tell_of(record: Record, level: int, event: str, **fields: Any) -> WriteLog:
    """A line about one record."""
    tp = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return WriteLog(level, event, {**tp, **fields})


WARNING = logging.WARNING
ERROR = logging.ERROR
CRITICAL = logging.CRITICAL
