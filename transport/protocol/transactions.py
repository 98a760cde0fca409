"""The transaction dialog: atomic writes to many partitions and groups, after KIP-98 with the epochs of KIP-890.

    init_producer(transactional_id, ...)                  -> producer_id, producer_epoch     (data.py), ends what is open
    produce: batches with the transactional bit            (data.py)      commit_offsets with a producer (groups.py)
    add_to_transaction(producer, partitions, groups)      -> done         a participant is made known
    end_transaction(producer, commit, partitions, groups) -> the epoch of the next transaction
    list_transactions(), describe_transaction(id)         -> states

    between actors
    coordinator -> partition             write_markers(topic, partition, markers)                   -> done, durable
    coordinator -> group's coordinator   end_group_transaction(group, producer, committed)          -> done, durable
    participant -> coordinator           add_to_transaction, of what has stayed open for REPORT_AFTER_MS

A transactional id has one coordinator, the actor of one partition of `__transactions`; a producer id says which one. A
producer's id and epoch name exactly one transaction: every end, and every `init_producer`, goes on to the next epoch. So
no late write and no repeated end can touch a transaction that is not its own.

A producer need not announce where it writes: it names all participants when it ends the transaction. What it wrote and
never ended, its participants report themselves, so a transaction whose producer has died is ended by its timeout.
The decision is the coordinator's record; markers follow it, and may be repeated.
"""

from typing import Annotated, Literal, NamedTuple
from zlib import crc32

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .message import Reply, Request, TopicPartitions

REPORT_AFTER_MS = 200
"""How long a participant lets a transaction be open before it tells the coordinator."""
DEFAULT_TIMEOUT_MS = 60_000
MAX_TIMEOUT_MS = 900_000
MAX_PARTICIPANTS = 10_000
ID_EXPIRY_MS = 7 * 24 * 3600 * 1000
"""A transactional id without transactions for so long is forgotten."""
LAST_EPOCH = 2**15 - 2
"""Of a producer id. After it the coordinator gives out another id."""

ProducerId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ProducerEpoch = Annotated[int, Meta(ge=0, le=2**15 - 1)]
"""As a batch has it."""


class TransactionId(NamedTuple):
    """Exactly one transaction: each end and each `init_producer` goes on to the next epoch."""

    producer_id: int
    producer_epoch: int


TimeoutMilliseconds = Annotated[int, Meta(ge=100, le=MAX_TIMEOUT_MS)]
TransactionalId = Annotated[str, Meta(min_length=1, max_length=256)]
ParticipantGroups = Annotated[list[str], Meta(max_length=MAX_PARTICIPANTS)]
State = Literal[
    "Empty", "Ongoing", "PrepareCommit", "CompleteCommit", "PrepareAbort", "CompleteAbort", "Dead"
]


class AddToTransaction(Request, tag="add_to_transaction", frozen=True):
    """Refused as `end_transaction` is. Of a transaction that has ended, participants are sent its marker."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    partitions: TopicPartitions = field(default_factory=dict)
    groups: ParticipantGroups = field(default_factory=list)


class EndTransaction(Request, tag="end_transaction", frozen=True):
    """Repeating it with the same outcome is answered as before. The answer is the commit point."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    commit: bool
    partitions: TopicPartitions = field(default_factory=dict)
    """All it wrote to, unless added before."""
    groups: ParticipantGroups = field(default_factory=list)
    """All whose offsets it moved, unless added before."""


class EndTransactionReply(Reply):
    """The identity of the next transaction; another id when the epochs of the last one have been used up."""

    producer_id: int
    producer_epoch: int
    endpoint: str | UnsetType = UNSET
    """As in the answer to `init_producer`; another one after a restart of the coordinator."""


class ListTransactions(Request, tag="list_transactions", frozen=True):
    pass


class TransactionDescription(Struct, frozen=True, kw_only=True):
    transactional_id: str
    state: State
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    started_ms: int | None = None
    """When the coordinator first heard of the transaction that is open or being ended."""
    partitions: TopicPartitions = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)


class ListTransactionsReply(Reply):
    transactions: list[TransactionDescription]


class Marker(Struct, frozen=True):
    """The end of one transaction in one partition."""

    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    committed: bool


class WriteMarkers(Request, tag="write_markers", frozen=True):
    """Answered when all are durable. One that is there already, or that has nothing to end here, is there."""

    topic: str
    partition: int
    markers: list[Marker]


class EndGroupTransaction(Request, tag="end_group_transaction", frozen=True):
    """Offsets committed under this producer's epoch take effect, or are forgotten."""

    group: str
    producer_id: ProducerId
    producer_epoch: ProducerEpoch
    committed: bool


def coordinator_for(transactional_id: str, coordinators: int) -> int:
    """Which coordinator a transactional id belongs to."""
    return crc32(transactional_id.encode("utf-8", "surrogatepass")) % coordinators
