"""The transaction API group: atomic writes to many partitions and groups, after KIP-98 with the epochs of KIP-890.

    init_producer(transactional_id, ...)                  -> producer_id, producer_epoch     (data.py), aborts an open one
    produce: batches with the transactional bit            (data.py)      commit_offsets with a producer (groups.py)
    add_to_transaction(producer, partitions, groups)      -> done         registers participants
    end_transaction(producer, commit, partitions, groups) -> the epoch of the next transaction
    list_transactions()                                   -> states

    between actors
    coordinator -> partition             write_markers(topic, partition, markers)                   -> done, durable
    coordinator -> group's coordinator   end_group_transaction(group, producer, committed)          -> done, durable
    participant -> coordinator           add_to_transaction, for transactions open for REPORT_AFTER_MS

A transactional id has one coordinator, the actor of one partition of `__transactions`; a producer id identifies it. A
producer's id and epoch name exactly one transaction: every end, and every `init_producer`, advances to the next epoch.
So no late write and no repeated end can affect another transaction.

A producer need not announce its participants: it names all of them when it ends the transaction. Participants report
transactions that stay open, so one whose producer has died is ended by its timeout. The coordinator's record is the
decision; markers follow it, and may be repeated.
"""

from typing import Annotated, Literal, NamedTuple
from zlib import crc32

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .message import InternalRequest, Reply, Request, TopicPartitions

REPORT_AFTER_MS = 200
"""Time for which a participant leaves a transaction open before it reports it to the coordinator."""
MAX_PARTICIPANTS = 10_000
ID_EXPIRY_MS = 7 * 24 * 3600 * 1000
"""A transactional id without transactions for this long is forgotten."""
LAST_EPOCH = 2**15 - 2
"""Last epoch of a producer id. After it the coordinator issues another id."""

ProducerId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ProducerEpoch = Annotated[int, Meta(ge=0, le=2**15 - 1)]
"""As stored in a batch."""


class TransactionId(NamedTuple):
    """Identifies exactly one transaction: each end and each `init_producer` advances to the next epoch."""

    producer_id: int
    producer_epoch: int


ParticipantGroups = Annotated[list[str], Meta(max_length=MAX_PARTICIPANTS)]
State = Literal[
    "Empty", "Ongoing", "PrepareCommit", "CompleteCommit", "PrepareAbort", "CompleteAbort", "Dead"
]


class AddToTransaction(Request, tag="add_to_transaction", frozen=True):
    """Refused as `end_transaction` is. If the transaction has ended, participants receive its marker."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    partitions: TopicPartitions = field(default_factory=dict)
    groups: ParticipantGroups = field(default_factory=list)


class EndTransaction(Request, tag="end_transaction", frozen=True):
    """Repeating it with the same outcome is answered as before. The reply is the commit point."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    commit: bool
    partitions: TopicPartitions = field(default_factory=dict)
    """All partitions that it wrote to, unless added before."""
    groups: ParticipantGroups = field(default_factory=list)
    """All groups whose offsets it commits, unless added before."""


class EndTransactionReply(Reply):
    """The identity of the next transaction; with another id if the epochs of the last one have been used up."""

    producer_id: int
    producer_epoch: int
    endpoint: str | UnsetType = UNSET
    """As in the reply to `init_producer`; another one after a restart of the coordinator."""
    node: str | UnsetType = UNSET


class ListTransactions(Request, tag="list_transactions", frozen=True):
    pass


class TransactionDescription(Struct, frozen=True, kw_only=True):
    transactional_id: str
    state: State
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    started_ms: int | None = None
    """Time at which the coordinator first received the transaction that is open or ending."""
    partitions: TopicPartitions = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


class ListTransactionsReply(Reply):
    transactions: list[TransactionDescription]


class Marker(Struct, frozen=True):
    """The end of one transaction in one partition."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    committed: bool


class WriteMarkers(InternalRequest, tag="write_markers", frozen=True):
    """Answered when all are durable. A marker that is already written, or has no transaction to end here, counts
    as durable."""

    topic: str
    partition: int
    markers: list[Marker]


class EndGroupTransaction(InternalRequest, tag="end_group_transaction", frozen=True):
    """Apply or discard the offsets committed under this producer's epoch."""

    group: str
    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    committed: bool


def coordinator_for(transactional_id: str, coordinators: int) -> int:
    """Return the coordinator of a transactional id."""
    return crc32(transactional_id.encode("utf-8", "surrogatepass")) % coordinators
