"""The topic API group, answered by the controller (and, for figures, by the partitions it queries).

create_topic(topic, partitions, config, if_not_exists)    -> description
alter_topic(topic, partitions, config)                    -> description    partitions can grow, never shrink
delete_topic(topic)                                       -> done
list_topics(internal)                                     -> names and partition counts
describe_topic(topic)                                     -> configuration and each partition's figures
delete_records(topic, partition, before_offset)           -> log_start_offset       (answered by the partition)
watch_catalog(after_version, max_wait_ms)                 -> version, topics (sent by gateways and coordinators)
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .. import patterns
from ..batch import MAX_RECORDS_PER_BATCH
from ..compression import MAX_UNPACKED_BYTES
from ..security.principals import SecurityTable
from .data import WaitMilliseconds
from .message import InternalRequest, Reply, Request
from .mirrored import TopicMirror
from .quotas import Quota

PartitionCount = Annotated[int, Meta(ge=1, le=10_000)]
Milliseconds = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Bytes = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
SegmentBytes = Annotated[int, Meta(ge=1024, le=2**31 - 1)]
SegmentMilliseconds = Annotated[int, Meta(ge=100, le=2**63 - 1)]
MessageBytes = Annotated[int, Meta(ge=1, le=32 * 1024 * 1024)]
RecordsPerBatch = Annotated[int, Meta(ge=20_000, le=MAX_RECORDS_PER_BATCH)]
UnpackedBytes = Annotated[int, Meta(ge=1024 * 1024, le=MAX_UNPACKED_BYTES)]
LagMilliseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ReplicaCount = Annotated[int, Meta(ge=0, le=100)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Cleanup: TypeAlias = Literal["delete", "compact", "compact,delete"]
DedupMilliseconds = Annotated[int, Meta(ge=0, le=24 * 3600 * 1000)]
DedupCount = Annotated[int, Meta(ge=0, le=1_000_000)]
Backlog = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
FlushPolicy = Annotated[str, Meta(pattern=patterns.FLUSH)]


class TopicConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of a topic. -1 means no limit."""

    retention_ms: Milliseconds = 7 * 24 * 3600 * 1000
    retention_bytes: Bytes = -1
    """Per partition."""
    segment_bytes: SegmentBytes = 128 * 1024 * 1024
    segment_ms: SegmentMilliseconds = 7 * 24 * 3600 * 1000
    flush: FlushPolicy = "batch"
    """Time of the sync of an append: `batch`, before it is acknowledged; `interval:200ms`; or `os`, decided by the
    kernel."""
    max_message_bytes: MessageBytes = 1024 * 1024
    """The largest batch a producer may send."""
    max_timestamp_ahead_ms: Milliseconds = 3600 * 1000
    """Limit of a record's timestamp ahead of the broker's clock."""
    max_records_per_batch: RecordsPerBatch = 100_000
    """The maximum number of records in one batch."""
    max_unpacked_bytes: UnpackedBytes = 64 * 1024 * 1024
    """The maximum size of a batch's records once decompressed."""
    cleanup: Cleanup = "delete"
    """`delete`: retention deletes segments. `compact`: the newest record of each key stays. Or both."""
    delete_retention_ms: LagMilliseconds = 24 * 3600 * 1000
    """Time for which a compacted topic keeps the nil that deletes a key, once compaction has reached it."""
    min_compaction_lag_ms: LagMilliseconds = 0
    """Minimum age of a segment's newest record before the segment is compacted."""
    min_cleanable_ratio: Ratio = 0.5
    """Minimum share of the log that must be new to compaction before it runs."""
    dedup_window_ms: DedupMilliseconds = 120_000
    """Time for which a record's `dedup_id` is remembered; 0: not at all."""
    dedup_window_count: DedupCount = 100_000
    """Maximum number of remembered ids per partition; beyond it the oldest are forgotten."""
    key_versions: bool = False
    """The partitions know the offset of each key's last record, so that a record may expect it. Given at the topic's
    creation; then neither this nor the number of partitions changes."""
    max_backlog_messages: Backlog = -1
    """Per partition: maximum lag of the slowest live group, beyond which producers are refused with BACKPRESSURE."""
    max_backlog_bytes: Backlog = -1
    """The same in bytes of the log."""
    backlog_group_timeout_ms: LagMilliseconds = 600_000
    """A group without members and commits for this long blocks no producer."""
    retain_until_consumed: bool = False
    """Retention keeps records that some group has not committed, within the two limits that follow."""
    retain_max_bytes: Bytes = 10 * 1024 * 1024 * 1024
    """Per partition."""
    retain_max_ms: Milliseconds = 30 * 24 * 3600 * 1000
    replication_factor: ReplicaCount = 0
    """Number of nodes that hold a copy of each partition. 0: 1 on one machine; in a cluster 3, or the number of nodes."""
    min_in_sync_replicas: ReplicaCount = 0
    """Number of copies that an acknowledgement with `acks=all` requires. 0: a majority of the replicas."""

    @property
    def tracks_groups(self) -> bool:
        """True if the partitions need the committed offsets of the groups."""
        return self.retain_until_consumed or self.max_backlog_messages >= 0 or self.max_backlog_bytes >= 0


class TopicConfigChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of TopicConfig to change; omitted fields keep their value."""

    retention_ms: Milliseconds | UnsetType = UNSET
    retention_bytes: Bytes | UnsetType = UNSET
    segment_bytes: SegmentBytes | UnsetType = UNSET
    segment_ms: SegmentMilliseconds | UnsetType = UNSET
    flush: FlushPolicy | UnsetType = UNSET
    max_message_bytes: MessageBytes | UnsetType = UNSET
    max_timestamp_ahead_ms: Milliseconds | UnsetType = UNSET
    max_records_per_batch: RecordsPerBatch | UnsetType = UNSET
    max_unpacked_bytes: UnpackedBytes | UnsetType = UNSET
    cleanup: Cleanup | UnsetType = UNSET
    delete_retention_ms: LagMilliseconds | UnsetType = UNSET
    min_compaction_lag_ms: LagMilliseconds | UnsetType = UNSET
    min_cleanable_ratio: Ratio | UnsetType = UNSET
    dedup_window_ms: DedupMilliseconds | UnsetType = UNSET
    dedup_window_count: DedupCount | UnsetType = UNSET
    key_versions: bool | UnsetType = UNSET
    max_backlog_messages: Backlog | UnsetType = UNSET
    max_backlog_bytes: Backlog | UnsetType = UNSET
    backlog_group_timeout_ms: LagMilliseconds | UnsetType = UNSET
    retain_until_consumed: bool | UnsetType = UNSET
    retain_max_bytes: Bytes | UnsetType = UNSET
    retain_max_ms: Milliseconds | UnsetType = UNSET
    replication_factor: ReplicaCount | UnsetType = UNSET
    min_in_sync_replicas: ReplicaCount | UnsetType = UNSET


class CreateTopic(Request, tag="create_topic", frozen=True):
    topic: str
    partitions: PartitionCount = 1
    config: TopicConfigChange = TopicConfigChange()
    """Omitted fields have the defaults of the broker's configuration."""
    if_not_exists: bool = False


class AlterTopic(Request, tag="alter_topic", frozen=True):
    topic: str
    partitions: PartitionCount | None = None
    config: TopicConfigChange = TopicConfigChange()


class DeleteTopic(Request, tag="delete_topic", frozen=True):
    topic: str


class ListTopics(Request, tag="list_topics", frozen=True):
    internal: bool = False


class TopicSummary(Struct):
    topic: str
    partitions: int


class ListTopicsReply(Reply):
    topics: list[TopicSummary]
    sites: dict[str, int] | UnsetType = UNSET
    """The sites in producer ids that a broker with mirrors knows, its own included, by the ids of catalogs."""


class DescribeTopic(Request, tag="describe_topic", frozen=True):
    topic: str


class PartitionDescription(Struct, kw_only=True):
    partition: int
    online: bool
    incarnation: int = 0
    leader_epoch: int = -1
    log_start_offset: int = -1
    high_watermark: int = -1
    log_end_offset: int = -1
    size_bytes: int = -1
    reason: str | None = None


class DescribeTopicReply(Reply):
    topic: str
    topic_id: str
    config: TopicConfig
    partitions: list[PartitionDescription]
    mirror: TopicMirror | UnsetType = UNSET
    """Set if the topic follows one of another broker, or did until it was promoted."""


class DescribePartition(InternalRequest, tag="describe_partition", frozen=True):
    """Sent to a partition itself."""


class DescribePartitionReply(Reply):
    description: PartitionDescription


class HighestEra(InternalRequest, tag="highest_era", frozen=True):
    """Sent to a partition by the controller, which must not issue the producer ids of eras up to the reply's."""


class HighestEraReply(Reply):
    era: int
    """The highest era of the producers that the partition remembers (`producer_ids.py`); -1: none."""


class DeleteRecords(Request, tag="delete_records", frozen=True):
    topic: str
    partition: int
    before_offset: int
    """-1 deletes up to the high watermark."""


class DeleteRecordsReply(Reply):
    log_start_offset: int


class ConfigurePartition(InternalRequest, tag="configure_partition", frozen=True):
    """Sent by the controller to a running partition: its topic's new configuration."""

    config: TopicConfig
    mirror: TopicMirror | None = None
    """None for a topic that follows no other."""


class WatchCatalog(InternalRequest, tag="watch_catalog", frozen=True):
    """Sent to the controller: parked until the topics' version differs from `after_version`.

    None requests the present catalog. A version that the controller has not reached belongs to an earlier life, and
    is answered at once.
    """

    after_version: int | None = None
    max_wait_ms: WaitMilliseconds = 0
    with_security: bool = False
    """True to receive principals and roles, too."""


class CatalogTopic(Struct, frozen=True):
    topic: str
    topic_id: str
    """Distinguishes a topic from earlier ones of its name."""
    partitions: int
    max_message_bytes: int
    tracks_groups: bool = False
    """True if its partitions receive the committed offsets of each group (`progress.py`)."""
    max_timestamp_ahead_ms: int = -1


class WatchCatalogReply(Reply):
    version: int
    topics: list[CatalogTopic]
    """Every topic, the internal ones too."""
    quotas: dict[str, Quota] = msgspec.field(default_factory=dict)
    """Quotas by client id. Changing them changes the version of the topics."""
    security: SecurityTable | msgspec.UnsetType = msgspec.UNSET
    """Set if it was requested. Changing it changes the version of the topics."""
