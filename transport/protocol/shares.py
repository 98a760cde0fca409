"""The work-queue dialog, answered by the coordinator of a share group (the model is KIP-932).

    acquire(group, topics, member_id, ...)            -> records, or ranges of offsets to fetch from their partitions
    acknowledge(group, member_id, acknowledgements)   -> one result for each, in order; what succeeded is durable
    configure_share_group(group, ...)                 -> the settings that hold now

Members are bound to no partition, and nobody joins: whoever acquires is a member. A record that is acquired is locked
to its member until it is acknowledged or `lock_ms` are over.

    available --acquire--> acquired --accept--> done
                                    --release--> available, as if it had not been delivered
                                    --fail, or the lock expires--> available, after `delay_ms`
                                                       at `max_deliveries`: dead
                                    --reject--> dead: copied into the dead-letter topic, or parked if there is none
                                    --renew--> acquired, with a new lock
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from .data import MAX_DELAY_MS, Offset, WaitMilliseconds
from .errors import ErrorBody
from .message import Reply, Request

MAX_LOCKED = 1_000
"""Records of a partition that members of one group may hold at a time."""
MAX_LOCKED_BYTES = 64 * 1024 * 1024
"""The same in bytes, as far as the size of records can be told by that of the batch where nobody has read yet."""
MAX_RETRYING_RANGES = 100
MAX_ACQUIRED_BYTES = 16 * 1024 * 1024

GroupName = Annotated[str, Meta(min_length=1)]
ShareMemberId = Annotated[str, Meta(min_length=1, max_length=256)]
LockMilliseconds = Annotated[int, Meta(ge=100, le=3_600_000)]
MaxDeliveries = Annotated[int, Meta(ge=1, le=1_000)]
Verdict = Literal["accept", "release", "fail", "reject", "renew"]


class Acquire(Request, tag="acquire", frozen=True):
    group: GroupName
    topics: Annotated[list[str], Meta(min_length=1, max_length=100)]
    member_id: ShareMemberId
    """The member's own choice; it names itself by it when it acknowledges."""
    max_records: Annotated[int, Meta(ge=1, le=MAX_LOCKED)] = 100
    max_bytes: Annotated[int, Meta(ge=1, le=MAX_ACQUIRED_BYTES)] = 1024 * 1024
    """A bound on keys and values; one record is given even when it alone is larger. With ranges, who fetches them
    applies it and releases the rest."""
    max_wait_ms: WaitMilliseconds = 0
    lock_ms: LockMilliseconds | None = None
    """None: the group's."""
    format: Literal["ranges", "records"] | None = None
    """None: `records` to a JSON request, `ranges` to a MessagePack one."""


class AcquiredRange(Struct, frozen=True):
    """All offsets from the first to the last, both included. Those that hold no record are to be accepted."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    delivery_count: int
    """1 the first time."""
    topic_id: str = ""
    leader_epoch: int | UnsetType = UNSET
    """Of what the offsets stand for: a `fetch` of them names both, and reads no other records that have these offsets."""


class AcquiredRecord(Struct, kw_only=True, frozen=True):
    topic: str
    partition: int
    offset: int
    delivery_count: int
    timestamp_ms: int
    key: bytes | None = None
    key_text: str | None = None
    """The key, when it is UTF-8."""
    value: bytes | None = None
    value_text: str | None = None
    headers: dict[str, str] | None = None


class AcquireReply(Reply):
    lock_ms: int
    """How long the locks are, counted from when the request was decided."""
    ranges: list[AcquiredRange] | UnsetType = UNSET
    records: list[AcquiredRecord] | UnsetType = UNSET


class Acknowledgement(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    topic: str
    partition: int
    first_offset: Offset
    last_offset: Offset | None = None
    """None: the first."""
    verdict: Verdict
    delay_ms: Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] = 0
    """With `fail`: how long it is not delivered again."""
    reason: Annotated[str, Meta(max_length=1_000)] = ""
    """With `fail` and `reject`: what a dead letter will say."""
    lock_ms: LockMilliseconds | None = None
    """With `renew`; None: the group's."""


class ShareMemberGone(Request, tag="share_member_gone", frozen=True):
    """The gateway tells a coordinator that a member's connection is gone. Not answered."""

    group: GroupName
    member_id: ShareMemberId


class Acknowledge(Request, tag="acknowledge", frozen=True):
    group: GroupName
    member_id: ShareMemberId
    acknowledgements: Annotated[list[Acknowledgement], Meta(min_length=1, max_length=10_000)]


class AcknowledgeResult(Struct, frozen=True):
    error: ErrorBody | None = None
    """NOT_ACQUIRED: the member does not hold all of the range, and nothing of it has changed."""


class AcknowledgeReply(Reply):
    results: list[AcknowledgeResult]


class ConfigureShareGroup(Request, tag="configure_share_group", frozen=True):
    """Make a share group, or change one. What is left out stays as it is, or is the default of a new group."""

    group: GroupName
    lock_ms: LockMilliseconds | None = None
    max_deliveries: MaxDeliveries | None = None
    dead_letter: str | None = None
    """The topic for dead records; an empty name for none: they are parked."""
    start: Literal["earliest", "latest"] | None = None
    """Where the group begins in a partition that is new to it."""


class ConfigureShareGroupReply(Reply):
    lock_ms: int
    max_deliveries: int
    dead_letter: str | None
    start: Literal["earliest", "latest"]


class HeldRange(Struct, kw_only=True, frozen=True):
    """Records that are locked to a member."""

    member_id: str
    first_offset: int
    last_offset: int
    delivery_count: int
    since_ms: int
    """When it acquired them."""
    locked_until_ms: int


class RetryingRange(Struct, kw_only=True, frozen=True):
    """Records that were delivered in vain and wait for their next delivery."""

    first_offset: int
    last_offset: int
    delivery_count: int
    """How often they were delivered."""
    reason: str | None
    """Why the last delivery failed, in one line; None when the coordinator was restarted since."""
    first_failed_ms: int | None
    """Ms since the epoch; None as above."""
    next_try_ms: int
    """Ms since the epoch: when they are available again. What is 0 or lies in the past is available now."""


class SharePartitionDescription(Struct, kw_only=True, frozen=True):
    topic: str
    partition: int
    start_offset: int
    """Everything below is done."""
    acquired: int
    returned: int
    """Delivered before, and available again at once or after a delay."""
    dead: int
    """On their way to the dead-letter topic, or parked because there is none."""
    held: list[HeldRange]
    """Those that are acquired: by whom, and since when."""
    retrying: list[RetryingRange]
    """Of those that are returned, the ones that failed: up to MAX_RETRYING_RANGES ranges, by offset."""


class ShareDescription(Struct, kw_only=True, frozen=True):
    lock_ms: int
    max_deliveries: int
    dead_letter: str | None
    start: Literal["earliest", "latest"]
    members: list[str]
    """Those who hold records or wait for some."""
    partitions: list[SharePartitionDescription]
