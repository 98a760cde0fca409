"""The data API group, answered by partitions; through the gateway, or at a partition's own endpoint.

    init_producer(transactional_id?)                   -> producer_id, producer_epoch       (answered by the controller,
                                                          with a transactional_id by its coordinator: transactions.py)
    produce(topic, partition, acks) batch+             -> one result a batch, in order; no reply when acks = 0
    publish(topic, partition?, acks, records)          -> partition and offset of each      (answered by the gateway)
    fetch(topic, partition, offset, max_wait_ms, ...)  -> format batches: batch frames; format records: records inline
    list_offsets(topic, partition, at)                 -> offset

A batch of an idempotent producer (producer_id >= 0) that repeats one of its last five is answered with the first
one's offset; so is a record with a `dedup_id` seen within the topic's window. A published record with a delivery time
is delayed (delayed.py) and answered with an id. A fetch is parked until `min_bytes` are available or `max_wait_ms`
have passed. Fetched batches are whole: the first may begin
before `offset`, and the reader skips to it.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import ErrorBody
from .message import Reply, Request

Acks = Literal[0, 1, "all"]
"""Replicas that must hold a batch before it is acknowledged: none, the leader, all in sync."""

Isolation = Literal["read_committed", "read_uncommitted"]
"""read_committed: a reader waits for open transactions and skips aborted ones."""

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
MAX_TIMESTAMP_MS = 2**53
TimestampMilliseconds = Annotated[int, Meta(ge=0, le=MAX_TIMESTAMP_MS)]
MAX_DELAY_MS = 366 * 24 * 3600 * 1000
"""Limit of a record's delay."""
MAX_WAIT_MS = 60_000
"""Limit of the time for which a request may be parked."""
WaitMilliseconds = Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)]
TransactionalId = Annotated[str, Meta(min_length=1, max_length=256)]
TransactionMilliseconds = Annotated[int, Meta(ge=100, le=900_000)]
"""Time after which an open transaction is aborted."""
DEFAULT_TRANSACTION_MS = 60_000


class InitProducer(Request, tag="init_producer", frozen=True):
    transactional_id: TransactionalId | None = None
    """The requester becomes its only holder: an earlier holder's open transaction is aborted, and its later
    requests are PRODUCER_FENCED."""
    transaction_timeout_ms: TransactionMilliseconds = DEFAULT_TRANSACTION_MS
    producer_id: int | None = None
    producer_epoch: int | None = None
    """The requester's previous epoch, if it continues after an error: PRODUCER_FENCED if another producer has
    taken over."""


class InitProducerReply(Reply):
    producer_id: int
    producer_epoch: int
    endpoint: str | UnsetType = UNSET
    """Endpoint of its transaction coordinator, for a client on the broker's machine."""
    node: str | UnsetType = UNSET
    """The node of that coordinator, in a cluster."""


class Expected(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The condition under which a batch is appended. Otherwise it is refused with CONFLICT, and nothing is written."""

    offset: Offset | None = None
    """The offset that its first record gets."""
    key_version: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    """The offset of the last record with the key of its only record; -1: there is none, or it has no value."""


class Produce(Request, tag="produce", frozen=True):
    topic: str
    partition: int
    acks: Acks = "all"
    client_id: str = ""
    """The requester's client id at a partition's own endpoint, where `hello` is not sent: quotas use it."""
    topic_id: str | None = None
    """Id of the topic that the batches belong to. Another topic of the name answers UNKNOWN_TOPIC_ID and writes
    nothing."""
    expected: list[Expected | None] | None = None
    """One for each batch; such a batch has no producer id. A repeat, recognised by its dedup id, is not compared."""


class ProducedBatch(Struct, frozen=True):
    """The result of one batch: an offset or an error."""

    base_offset: int
    duplicate: bool = False
    error: ErrorBody | None = None


class ProduceReply(Reply):
    batches: list[ProducedBatch]
    high_watermark: int
    throttle_ms: int | UnsetType = UNSET
    """Time for which the gateway delayed the request for its client's quota (quotas.py)."""


class PublishRecord(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One record inline. Bytes are base64 in JSON; `key_text` and `value_text` are UTF-8 in their place."""

    key: bytes | None = None
    key_text: str | None = None
    value: bytes | None = None
    value_text: str | None = None
    headers: dict[str, str] | None = None
    timestamp_ms: TimestampMilliseconds | None = None
    dedup_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """A duplicate within the topic's window is not written, but answered with the first one's offset."""
    expected_offset: Offset | None = None
    expected_key_version: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    """As in Expected. Not for delayed records."""
    deliver_at_ms: TimestampMilliseconds | None = None
    delay_ms: Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] | None = None
    """Delayed until this time or by this duration. Not both, and not with `dedup_id`."""
    scheduled_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """Id of a delayed record, by which a duplicate is recognised. None: the broker makes one."""


class Publish(Request, tag="publish", frozen=True):
    topic: str
    records: Annotated[list[PublishRecord], Meta(min_length=1, max_length=10_000)]
    partition: int | None = None
    """None: by key; without a key the server chooses."""
    acks: Literal[1, "all"] = "all"


class PublishedRecord(Struct, frozen=True):
    partition: int
    offset: int
    error: ErrorBody | None = None
    duplicate: bool = False
    scheduled_id: str | UnsetType = UNSET
    """Id of a delayed record, which has no partition and offset yet."""


class PublishReply(Reply):
    records: list[PublishedRecord]
    throttle_ms: int | UnsetType = UNSET


class Fetch(Request, tag="fetch", frozen=True):
    topic: str
    partition: int
    offset: Offset
    max_bytes: Annotated[int, Meta(ge=1)] = 1024 * 1024
    """Limit of batch bytes. One whole batch is returned even if it alone is larger."""
    max_records: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Limit for the format `records`."""
    min_bytes: Annotated[int, Meta(ge=0)] = 1
    max_wait_ms: WaitMilliseconds = 0
    format: Literal["batches", "records"] | None = None
    """None: `records` to a JSON request, `batches` to a MessagePack one."""
    client_id: str = ""
    """As in Produce."""
    isolation: Isolation = "read_committed"
    topic_id: str | None = None
    """Id of the topic that `offset` belongs to. Another topic of the name answers UNKNOWN_TOPIC_ID. None: any
    topic of the name."""
    leader_epoch: Annotated[int, Meta(ge=0)] | None = None
    """Leader epoch of the reply that `offset` came from. LOG_TRUNCATED if records before it have been lost since."""


class AbortedTransaction(Struct, frozen=True, array_like=True):
    """A reader skips the batches of this producer and epoch at `first_offset` or after it."""

    producer_id: int
    producer_epoch: int
    first_offset: int


class FetchedRecord(Struct, kw_only=True, frozen=True):
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    key_text: str | None = None
    """The key, if it is UTF-8."""
    value: bytes | None = None
    value_text: str | None = None
    headers: dict[str, str] | None = None


class FetchReply(Reply):
    topic: str
    partition: int
    log_start_offset: int
    high_watermark: int
    next_offset: int
    """The next offset to fetch. It may lie far after the last record, because compaction removes offsets."""
    last_stable_offset: int = -1
    """No transaction is open below it. A read_committed fetch ends there."""
    aborted: list[AbortedTransaction] | UnsetType = UNSET
    """With read_committed and batches: the transactions to skip."""
    records: list[FetchedRecord] | None = None
    throttle_ms: int | UnsetType = UNSET
    topic_id: str | UnsetType = UNSET
    """Id of the topic that was read."""
    leader_epoch: int | UnsetType = UNSET
    """Leader epoch of the partition, which belongs to `next_offset`."""


class ListOffsets(Request, tag="list_offsets", frozen=True):
    topic: str
    partition: int
    at: Literal["earliest", "latest"] | int
    """A number is a timestamp in milliseconds: the first offset at or after it."""
    isolation: Isolation = "read_uncommitted"
    """With read_committed `latest` is the last stable offset, and searches by time end there."""


class ListOffsetsReply(Reply):
    offset: int
    """-1 if no record is that recent."""
    timestamp_ms: int = -1
    topic_id: str | UnsetType = UNSET
    """Id of the topic that the offset belongs to."""
    leader_epoch: int | UnsetType = UNSET
    """As in FetchReply."""
