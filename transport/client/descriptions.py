"""Results of administrative calls: descriptions of topics, groups, offsets and processes. Pure.

Independent of the wire: every value is plain, and an absent one is None. Times are in milliseconds since the epoch,
sizes in bytes. All names are exported by `planaria`. Made by the admin calls of Client and Broker, and by the link to
the supervisor.
"""

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from ..addresses import TopicPartition, as_text
from ..protocol.groups import GroupStateName
from ..protocol.operations import ActorState
from ..protocol.quotas import RATES
from ..protocol.shares import Coalesce, Expired
from ..protocol.topics import TopicConfig
from .mirror_descriptions import MirrorDescription, TopicMirror

# Topics.


class TopicSummary(Struct, frozen=True):
    """An entry of `list_topics`."""

    topic: str
    partitions: int
    """Number of partitions."""


class PartitionDescription(Struct, frozen=True, kw_only=True):
    """A partition of a topic. While it is offline, its figures are None."""

    partition: int
    online: bool
    incarnation: int
    """Number of its process's starts."""
    leader_epoch: int | None
    log_start_offset: int | None
    """The first offset that can be read."""
    high_watermark: int | None
    """The offset after the last record that consumers can read."""
    log_end_offset: int | None
    """The offset of the next record."""
    size_bytes: int | None
    """Size of its log on disk."""
    reason: str | None
    """The reason why it is offline."""


class TopicDescription(Struct, frozen=True, kw_only=True):
    """A topic, its configuration and its partitions."""

    topic: str
    topic_id: str
    """Distinguishes the topic from earlier ones of its name."""
    config: TopicConfig
    """All settings, as `create_topic` and `alter_topic` take them."""
    partitions: list[PartitionDescription]
    mirror: TopicMirror | None = None
    """None for a topic that follows no other broker's, and never did."""


class LogPosition(Struct, frozen=True, kw_only=True):
    """The offset at a point of a partition's log."""

    offset: int
    timestamp_ms: int | None
    """Time of the record at the offset, if it was found by a time."""


# Groups.


class CommittedOffset(Struct, frozen=True, kw_only=True):
    """A committed offset of a group: the offset of the next record that it reads."""

    topic: str
    partition: int
    offset: int
    metadata: str = ""
    """Text that was stored with it."""

    @property
    def topic_partition(self) -> TopicPartition:
        """The topic and partition."""
        return TopicPartition(self.topic, self.partition)


class GroupMember(Struct, frozen=True, kw_only=True):
    """A member of a consumer group."""

    member_id: str
    instance_id: str | None
    """Name of a static member."""
    client_id: str
    topics: list[str]
    """Topics to which it is subscribed."""
    generation: int
    assignment: dict[str, list[int]]
    """Partitions by topic that it should own."""
    owned: dict[str, list[int]]
    """Partitions by topic that it has reported as its own."""


class HeldRange(Struct, frozen=True, kw_only=True):
    """Consecutive records of a share group that are locked to a member."""

    member_id: str
    first_offset: int
    last_offset: int
    delivery_count: int
    """Number of their deliveries, this one included."""
    since_ms: int
    """Time at which the member acquired them."""
    locked_until_ms: int


class RetryingRange(Struct, frozen=True, kw_only=True):
    """Consecutive records of a share group that failed and wait for their next delivery."""

    first_offset: int
    last_offset: int
    delivery_count: int
    reason: str | None
    """Reason of the last failure; None if the group's coordinator has been restarted since."""
    first_failed_ms: int | None
    """Time of the first failure; None as above."""
    next_try_ms: int
    """Time of the next delivery; 0 or a time in the past: now."""


class SharePartition(Struct, frozen=True, kw_only=True):
    """The progress of a share group in a partition."""

    topic: str
    partition: int
    start_offset: int
    """All records below it are done."""
    next_offset: int
    """No record from here on has been delivered."""
    acquired: int
    """Number of records that are locked to members."""
    returned: int
    """Number of records that were delivered before and will be again."""
    dead: int
    """Number of records in transit to the dead-letter topic, or parked because there is none."""
    held: list[HeldRange]
    retrying: list[RetryingRange]
    """The first of the returned records that failed, by offset."""


class ShareGroupSettings(Struct, frozen=True, kw_only=True):
    """The settings of a share group."""

    lock_ms: int
    """Time in milliseconds for which a record stays locked."""
    max_deliveries: int
    """Number of deliveries after which a failed record is dead."""
    dead_letter: str | None
    """Topic for dead records; None: they are parked."""
    start: Literal["earliest", "latest"]
    """Start position in a partition that is new to the group."""
    fair: bool
    """Keys take turns."""
    max_in_flight_per_key: int
    """Records of a key that may be locked at a time, by partition; 0: no limit."""
    rate_per_key: float
    """Records of a key that are delivered in a second, by partition; 0: no limit."""
    weights: dict[str, int]
    """Records a turn by key; 1 for others."""
    coalesce: Coalesce
    max_wait_ms: int
    """Time for which records of a key are collected, with `coalesce`."""
    expired: Expired
    """The end of records whose time is over."""


class ShareGroupDescription(ShareGroupSettings, frozen=True, kw_only=True):
    """A share group: its settings, its members and its progress."""

    members: list[str]
    """Members that hold records or wait for some."""
    partitions: list[SharePartition]


class GroupPause(Struct, frozen=True, kw_only=True):
    """An operator's pause of a group."""

    reason: str
    since_ms: int
    until_ms: int | None
    """None: until it is resumed."""


class GroupDescription(Struct, frozen=True, kw_only=True):
    """A consumer group or share group."""

    group: str
    type: Literal["consumer", "share"]
    state: GroupStateName
    """State; a paused group is `pausing` while members hold partitions or records, and then `paused`."""
    generation: int
    """Number of assignments that the group has made; 0 for a share group."""
    assignor: str
    """Assignment strategy of the group; empty for a share group."""
    members: list[GroupMember]
    offsets: list[CommittedOffset]
    share: ShareGroupDescription | None
    """Set for a share group, which has no members and offsets of the other kind."""
    paused: GroupPause | None


# Quotas, delayed messages, transactions.


class Quota(Struct, frozen=True, kw_only=True):
    """Limits of a client id, principal or address. None: no limit."""

    produce_bytes: int | None
    fetch_bytes: int | None
    produce_requests: int | None
    fetch_requests: int | None
    """These four are per second."""
    connections: int | None = None
    requests_in_flight: int | None = None


class ScheduledMessage(Struct, frozen=True, kw_only=True):
    """A message that is held back until its time."""

    scheduled_id: str
    topic: str
    partition: int | None
    """None: decided when the message is due."""
    key: bytes | None
    key_text: str | None
    """The key, if it is UTF-8."""
    deliver_at_ms: int
    """Time of the delivery by the broker's present clock."""
    scheduled_at_ms: int
    size_bytes: int
    """Size of key and value."""
    reason: str | None
    """The reason why a due message has not been delivered."""


class TransactionDescription(Struct, frozen=True, kw_only=True):
    """A transactional id, and the state of its last transaction."""

    transactional_id: str
    state: Literal[
        "Empty", "Ongoing", "PrepareCommit", "CompleteCommit", "PrepareAbort", "CompleteAbort", "Dead"
    ]
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    """Time after which the broker aborts an open transaction."""
    started_ms: int | None
    """Time at which an open transaction began; None: none is open."""
    partitions: dict[str, list[int]]
    """Partitions by topic that take part, as far as the coordinator knows them."""
    groups: list[str]
    """Groups whose offsets it commits, as far as the coordinator knows them."""


# Processes.


class RecordInFlight(Struct, frozen=True, kw_only=True):
    """A record that a hosted handler is processing."""

    topic: str
    partition: int
    offset: int
    attempt: int
    """Number of this attempt; 1 for the first."""
    since_ms: int


class RecordRetrying(Struct, frozen=True, kw_only=True):
    """A failed record that waits for its next attempt."""

    topic: str
    partition: int
    offset: int
    key: str | None
    """As text, with other bytes escaped, cut after 100 characters; None: no key, or unknown here."""
    attempts: int
    """Number of failed attempts."""
    reason: str | None
    first_failed_ms: int | None
    next_try_ms: int
    parked: bool
    """True if it is out of attempts and cannot be dead-lettered: it is retried until that changes."""


class RetryReport(Struct, frozen=True, kw_only=True):
    """The failed records of an actor."""

    count: int
    records: list[RecordRetrying]
    """The 100 with the earliest next attempt."""


class Durations(Struct, frozen=True, kw_only=True):
    """Durations of something that an actor does, since its start."""

    bounds_us: list[int]
    """Upper bounds of the buckets, in microseconds."""
    counts: list[int]
    """Number of durations in each bucket. The last, one more than there are bounds, has no upper bound."""
    total_us: int


class LogReport(Struct, frozen=True, kw_only=True):
    """The log of a partition, or of its replica on this node."""

    role: Literal["leader", "follower", "undecided"]
    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    size_bytes: int
    replicas: int
    """Known to a leader, as the fields that follow."""
    in_sync: int
    is_below_minimum: bool
    """True if fewer replicas are in sync than the topic requires."""
    replica_lags: dict[str, int]
    """By node, the records that its replica does not hold durably yet."""


class GroupPosition(Struct, frozen=True, array_like=True):
    """How far a group has read a partition."""

    topic: str
    partition: int
    offset: int
    """The first offset that is not read."""
    done: int
    """Number of records after it that are done; of a share group."""


class GroupReport(Struct, frozen=True, kw_only=True):
    """The group of a coordinator."""

    type: Literal["consumer", "share"]
    state: str
    members: int
    generation: int
    """Number of its assignments; 0 of a share group."""
    positions: list[GroupPosition]


class ActorStatus(Struct, frozen=True, kw_only=True):
    """A process of the broker."""

    address: str
    """Stable name, such as `partition/ORDERS/0`, as `kill` and `revive` take it."""
    pid: int | None
    incarnation: int
    """Number of its starts."""
    restarts: int
    state: ActorState
    uptime_ms: int
    memory_bytes: int
    """Resident memory that it shares with no other process; 0 where the system does not report it."""
    endpoint: str | None
    reason: str | None
    """The reason why it is not ready, or of its last death."""
    traceback: str | None
    since_death_ms: int | None
    """Time since its last death; None if it has not died since it was last asleep."""
    downtime_ms: int | None
    """Time from its last death until it was ready again; None while that lasts, or without a death."""
    report_age_ms: int | None
    """Age of the figures below, which come with its heartbeats; None if there has been none."""
    alarms: list[str]
    """Conditions that need an operator, such as records that cannot be dead-lettered."""
    in_flight: list[RecordInFlight]
    retrying: RetryReport
    paused: GroupPause | None
    """The pause of a coordinator's group by an operator."""
    counters: dict[str, int]
    """Since its start: messages_in, bytes_in, messages_out, bytes_out, and those of its kind."""
    gauges: dict[str, int]
    """Present lengths of its queues."""
    requests: dict[str, dict[str, int]]
    """Answers since its start, by operation and outcome: `done`, `forwarded` (answers of other actors that the gateway
    passes on), or the code of an error."""
    syncs: Durations
    latencies: dict[str, Durations]
    """By operation, the time from the arrival of a request to its answer."""
    lateness: Durations
    """Time from the due time of a scheduler's messages to their delivery."""
    log: LogReport | None
    group: GroupReport | None


class BrokerStatus(Struct, frozen=True, kw_only=True):
    """The processes of a broker."""

    supervisor_pid: int
    instance_id: str
    """Changes with each start of the supervisor."""
    data_directory: str
    endpoint: str
    uptime_ms: int
    actors: list[ActorStatus]
    version: int
    """Number of the last change of an actor's state, process or existence."""
    is_whole: bool
    """False: `actors` has those alone that have changed since the given version, and no memory of processes."""
    removed: list[str]
    """Actors that were removed since that version."""


class KilledActor(Struct, frozen=True, kw_only=True):
    """The process that received a signal."""

    pid: int
    incarnation: int


DescriptionT = TypeVar("DescriptionT", bound=Struct)
_PARTITION_FIGURES = ("leader_epoch", "log_start_offset", "high_watermark", "log_end_offset", "size_bytes")
_LIMITS = (*RATES, "connections", "requests_in_flight")


def described(kind: type[DescriptionT], found: Struct) -> DescriptionT:
    """Return the description that a reply or a part of one contains."""
    return msgspec.convert(_plain(found), kind)


def described_topic(found: Struct) -> TopicDescription:
    plain = _plain(found)
    plain["partitions"] = [_without_absent(each, _PARTITION_FIGURES) for each in plain["partitions"]]
    return msgspec.convert(plain, TopicDescription)


def described_mirror(found: Struct) -> MirrorDescription:
    plain = _plain(found)
    spec = plain.pop("spec")
    plain |= {"source": spec["source"], "topic_patterns": spec["topics"], "group_patterns": spec["groups"]}
    plain |= {"bytes_per_second": spec["bytes_per_second"], "failback": spec["is_failback"]}
    return msgspec.convert(plain, MirrorDescription)


def described_status(found: Struct) -> BrokerStatus:
    plain = _plain(found)
    plain["actors"] = [each | each.pop("report") for each in plain["actors"]]
    return msgspec.convert(plain, BrokerStatus)


def described_position(found: Struct) -> LogPosition:
    return msgspec.convert(_without_absent(_plain(found), ("timestamp_ms",)), LogPosition)


def described_quota(found: Struct) -> Quota:
    return msgspec.convert(_without_absent(_plain(found), _LIMITS), Quota)


def _plain(found: Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found, builtin_types=(bytes,), enc_hook=as_text)
    return plain


def _without_absent(plain: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields with None in the place of the wire's -1."""
    return plain | {name: None for name in names if plain[name] < 0}
