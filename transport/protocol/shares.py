"""The work-queue API group, answered by the coordinator of a share group (the model is KIP-932).

    acquire(group, topics, member_id, ...,            -> records, or ranges of offsets to fetch from their partitions;
            acknowledgements)                            one result for each acknowledgement, as of `acknowledge`
    acknowledge(group, member_id, acknowledgements)   -> one result for each, in order; successful ones are durable
    configure_share_group(group, ...)                 -> the settings in force

Members are bound to no partition and do not join: a client that acquires is a member. A record that is acquired is locked
to its member until it is acknowledged or `lock_ms` are over.

    available --acquire--> acquired --accept--> done
                                    --release--> available; the delivery does not count
                                    --the member's connection is lost--> available; counts as lost
                                    --fail, or the lock expires--> available, after `delay_ms`
                                                       at `max_deliveries` of either: dead
                                    --reject--> dead: copied into the dead-letter topic, or parked if there is none
                                    --renew--> acquired, with a new lock
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from ..addresses import TopicPartition
from .data import MAX_DELAY_MS, Offset, WaitMilliseconds
from .errors import ErrorBody
from .message import Reply, Request

MAX_LOCKED = 1_000
"""Records of a partition that members of one group may hold at a time."""
MAX_LOCKED_BYTES = 64 * 1024 * 1024
"""The same in bytes, estimated from the batch where a record has not been read yet."""
MAX_RETRYING_RANGES = 100
MAX_ACKNOWLEDGEMENTS = 10_000
MAX_ACQUIRED_BYTES = 16 * 1024 * 1024

GroupName = Annotated[str, Meta(min_length=1)]
ShareMemberId = Annotated[str, Meta(min_length=1, max_length=256)]
LockMilliseconds = Annotated[int, Meta(ge=100, le=3_600_000)]
MaxDeliveries = Annotated[int, Meta(ge=1, le=1_000)]
Coalesce = Literal["none", "latest"]
Expired = Literal["deliver", "skip", "dead_letter"]
InFlightPerKey = Annotated[int, Meta(ge=0, le=MAX_LOCKED)]
RatePerKey = Annotated[float, Meta(ge=0, le=100_000)]
Weights = Annotated[dict[str, Annotated[int, Meta(ge=1, le=100)]], Meta(max_length=1_000)]
MaxWaitMilliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]
Verdict = Literal["accept", "release", "fail", "reject", "renew"]


class Acknowledgement(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    topic: str
    partition: int
    first_offset: Offset
    last_offset: Offset | None = None
    """None: the same as the first."""
    verdict: Verdict
    delivery_count: Annotated[int, Meta(ge=1)] | None = None
    """That of the delivery which is acknowledged; the range holds records of no other one. None: of whatever delivery the
    member has, even one that it has not seen yet."""
    delay_ms: Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] = 0
    """With `fail`: delay of the next delivery."""
    reason: Annotated[str, Meta(max_length=1_000)] = ""
    """With `fail` and `reject`: the reason in a dead letter."""
    lock_ms: LockMilliseconds | None = None
    """With `renew`; None: the group's lock time."""


class AcknowledgeResult(Struct, frozen=True):
    error: ErrorBody | None = None
    """NOT_ACQUIRED: the member does not hold all of the range by this delivery, and nothing in it has changed."""


class Acquire(Request, tag="acquire", frozen=True):
    group: GroupName
    topics: Annotated[list[str], Meta(min_length=1, max_length=100)]
    member_id: ShareMemberId
    """Chosen by the member, which uses the same id to acknowledge."""
    max_records: Annotated[int, Meta(ge=1, le=MAX_LOCKED)] = 100
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_ACQUIRED_BYTES)] = 1024 * 1024
    """Limit of keys and values. One record is delivered even if it alone is larger. With ranges, the member that
    fetches them applies it and releases the others."""
    max_wait_ms: WaitMilliseconds = 0
    lock_ms: LockMilliseconds | None = None
    """None: the group's lock time."""
    format: Literal["ranges", "records"] | None = None
    """None: `records` to a JSON request, `ranges` to a MessagePack one."""
    acknowledgements: Annotated[list[Acknowledgement], Meta(max_length=MAX_ACKNOWLEDGEMENTS)] = field(
        default_factory=list
    )
    """Applied before records are acquired, as by `acknowledge`. The request then does not wait for records: it is
    answered when all is durable, with those that are known by then."""
    charge_on_disconnect: bool = False
    """The deliveries of records that this member holds when its connection is lost for good count as failed."""


class AcquiredRange(Struct, frozen=True):
    """All offsets from the first to the last, both included. Offsets without a record must be accepted."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    delivery_count: int
    """1 for the first delivery."""
    topic_id: str = ""
    leader_epoch: int | UnsetType = UNSET
    """Leader epoch of the offsets: a `fetch` of them sends it with the topic id, and reads no other records at
    these offsets."""

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    @property
    def offsets(self) -> range:
        return range(self.first_offset, self.last_offset + 1)


class AcquiredRecord(Struct, kw_only=True, frozen=True):
    topic: str
    partition: int
    offset: int
    delivery_count: int
    timestamp_ms: int
    key: bytes | None = None
    key_text: str | None = None
    """The key, if it is UTF-8."""
    value: bytes | None = None
    value_text: str | None = None
    headers: dict[str, str] | None = None


class AcquireReply(Reply):
    lock_ms: int
    """Duration of the locks, counted from the decision on the request."""
    ranges: list[AcquiredRange] | UnsetType = UNSET
    records: list[AcquiredRecord] | UnsetType = UNSET
    results: list[AcknowledgeResult] | UnsetType = UNSET
    """One for each acknowledgement of the request, in order; set if it had some."""


class Acknowledge(Request, tag="acknowledge", frozen=True):
    group: GroupName
    member_id: ShareMemberId
    acknowledgements: Annotated[list[Acknowledgement], Meta(min_length=1, max_length=MAX_ACKNOWLEDGEMENTS)]


class AcknowledgeReply(Reply):
    results: list[AcknowledgeResult]


class ConfigureShareGroup(Request, tag="configure_share_group", frozen=True):
    """Create a share group, or change one. Omitted fields keep their value, or have the default in a new group."""

    group: GroupName
    lock_ms: LockMilliseconds | None = None
    max_deliveries: MaxDeliveries | None = None
    dead_letter: str | None = None
    """The topic for dead records; an empty name for none: they are parked."""
    start: Literal["earliest", "latest"] | None = None
    """Start of the group in a partition that is new to it."""
    fair: bool | None = None
    """Keys take turns, and records of a higher priority (header `priority`) come first."""
    max_in_flight_per_key: InFlightPerKey | None = None
    """Records of a key in a partition that may be locked at a time; 0: no limit."""
    rate_per_key: RatePerKey | None = None
    """Records of a key in a partition that are delivered in a second; 0: no limit."""
    weights: Weights | None = None
    """Records a turn by key; 1 for others. Replaces all weights."""
    coalesce: Coalesce | None = None
    """`latest`: of the available records of a key only the newest is delivered."""
    max_wait_ms: MaxWaitMilliseconds | None = None
    """With `coalesce`: time for which records of a key are collected."""
    expired: Expired | None = None
    """The end of records whose header `expires-at-ms` is past."""


class ConfigureShareGroupReply(Reply):
    lock_ms: int
    max_deliveries: int
    dead_letter: str | None
    start: Literal["earliest", "latest"]
    fair: bool = False
    max_in_flight_per_key: int = 0
    rate_per_key: float = 0
    weights: dict[str, int] = field(default_factory=dict)
    coalesce: Coalesce = "none"
    max_wait_ms: int = 0
    expired: Expired = "deliver"


class HeldRange(Struct, kw_only=True, frozen=True):
    """Records that are locked to a member."""

    member_id: str
    first_offset: int
    last_offset: int
    delivery_count: int
    since_ms: int
    """The time at which it acquired them."""
    locked_until_ms: int


class RetryingRange(Struct, kw_only=True, frozen=True):
    """Records whose deliveries failed, waiting for their next delivery."""

    first_offset: int
    last_offset: int
    delivery_count: int
    """Number of their deliveries."""
    reason: str | None
    """Reason of the last failure, in one line; None if the coordinator was restarted since."""
    first_failed_ms: int | None
    """Ms since the epoch; None as above."""
    next_try_ms: int
    """Ms since the epoch: when they are available again. 0 or a time in the past means now."""


class SharePartitionDescription(Struct, kw_only=True, frozen=True):
    topic: str
    partition: int
    start_offset: int
    """All records below it are done."""
    next_offset: int
    """No record from here on has been delivered."""
    acquired: int
    returned: int
    """Delivered before, and available again at once or after a delay."""
    dead: int
    """In transit to the dead-letter topic, or parked because there is none."""
    held: list[HeldRange]
    """Acquired records: their member, and the time."""
    retrying: list[RetryingRange]
    """Those of the returned records that failed: up to MAX_RETRYING_RANGES ranges, by offset."""


class ShareDescription(Struct, kw_only=True, frozen=True):
    lock_ms: int
    max_deliveries: int
    dead_letter: str | None
    start: Literal["earliest", "latest"]
    fair: bool = False
    max_in_flight_per_key: int = 0
    rate_per_key: float = 0
    weights: dict[str, int] = field(default_factory=dict)
    coalesce: Coalesce = "none"
    max_wait_ms: int = 0
    expired: Expired = "deliver"
    members: list[str]
    """Members that hold records or wait for some."""
    partitions: list[SharePartitionDescription]
