"""The metrics: name, type, labels and meaning of each. Pure.

docs/metrics.md has the same table. Base units, seconds and bytes, last in the names; counters end in `_total`.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

Labels: TypeAlias = tuple[str, ...]
"""The values of the labels, in the order of the family's names."""
Samples: TypeAlias = dict[tuple[str, Labels], float]
Type: TypeAlias = Literal["counter", "gauge", "histogram"]
Page: TypeAlias = Literal["metrics", "detailed", "kafka"]


class Histogram(Struct):
    bounds_us: tuple[int, ...]
    counts: list[int]
    """One more than there are bounds: the last has no upper bound."""
    total_us: int = 0


class Family(Struct, frozen=True):
    type: Type
    labels: Labels
    help: str
    page: Page = "metrics"
    """The page that shows it; `kafka`: /metrics, with the option for these names."""


_ACTOR = ("actor_kind",)
_TOPIC = ("topic",)
_PARTITION = ("topic", "partition")
_CONSUMERS = ("consumergroup", "topic", "partition")
_GROUP_PARTITION = ("group", "topic", "partition")

FAMILIES: dict[str, Family] = {
    # The broker
    "planaria_build_info": Family(
        "gauge", ("version", "node"), "1; the version that runs, and the node's name."
    ),
    "planaria_uptime_seconds": Family("gauge", (), "Time since the start of the supervisor."),
    "planaria_disk_free_bytes": Family("gauge", (), "Free space on the disk of the data directory."),
    "planaria_disk_size_bytes": Family("gauge", (), "Size of the disk of the data directory."),
    # Records
    "planaria_topic_records_in_total": Family("counter", _TOPIC, "Records appended by producers."),
    "planaria_topic_bytes_in_total": Family("counter", _TOPIC, "Bytes of these records, in batches."),
    "planaria_topic_records_out_total": Family("counter", _TOPIC, "Offsets read by consumers."),
    "planaria_topic_bytes_out_total": Family("counter", _TOPIC, "Bytes of batches read by consumers."),
    "planaria_topic_partitions": Family("gauge", _TOPIC, "Partitions with a process here that leads."),
    "planaria_topic_records": Family("gauge", _TOPIC, "Offsets between the starts and the ends of its logs."),
    "planaria_topic_size_bytes": Family("gauge", _TOPIC, "Size of its logs on disk, replicas included."),
    "planaria_backpressure_seconds_total": Family(
        "counter", _TOPIC, "Time for which a partition refused producers because a group was behind."
    ),
    "planaria_throttled_seconds_total": Family("counter", (), "Time for which quotas delayed requests."),
    "planaria_limited_connections": Family("gauge", (), "Connections that hold a place under a limit."),
    "planaria_refused_by_limits_total": Family(
        "counter", (), "Requests refused for a limit of connections or of requests in flight."
    ),
    # Requests
    "planaria_requests_total": Family(
        "counter", ("actor_kind", "op", "outcome"), "Answers: done, forwarded, or the code of an error."
    ),
    "planaria_request_seconds": Family(
        "histogram", ("actor_kind", "op"), "Time from the arrival of a request to its answer, waits included."
    ),
    "planaria_fsync_seconds": Family("histogram", _ACTOR, "Duration of file syncs."),
    "planaria_requests_waiting": Family(
        "gauge", _ACTOR, "Requests that have arrived and are not handled yet."
    ),
    "planaria_requests_open": Family("gauge", _ACTOR, "Requests of clients without an answer yet."),
    "planaria_calls_in_flight": Family("gauge", _ACTOR, "Calls to other actors without an answer yet."),
    "planaria_fetches_parked": Family("gauge", _ACTOR, "Fetches that wait for records."),
    # Groups
    "planaria_group_members": Family("gauge", ("group",), "Members."),
    "planaria_group_state": Family("gauge", ("group", "type", "state"), "1 for the state of the group."),
    "planaria_group_rebalances_total": Family("counter", ("group",), "Assignments of partitions to members."),
    "planaria_group_lag": Family("gauge", ("group", "topic"), "Messages that the group has not read."),
    "planaria_group_lag_seconds": Family(
        "gauge",
        ("group", "topic"),
        "Age of the oldest message that the group has not read; 0 if there is none.",
    ),
    "planaria_group_retrying": Family(
        "gauge", ("group",), "Failed records that wait for their next attempt."
    ),
    "planaria_retries_total": Family("counter", ("group",), "Attempts after a failure."),
    "planaria_dead_letters_total": Family(
        "counter", ("group", "reason"), "Records written to a dead-letter topic."
    ),
    # Transactions and delayed messages
    "planaria_transactions_open": Family("gauge", (), "Transactions that are open."),
    "planaria_transactions_total": Family("counter", ("outcome",), "Transactions that were completed."),
    "planaria_scheduled_messages": Family("gauge", (), "Delayed messages that are not delivered yet."),
    "planaria_delivery_lateness_seconds": Family(
        "histogram", (), "Time from the due time of a delayed message to its delivery."
    ),
    # Mirrors
    "planaria_mirror_partitions": Family("gauge", ("mirror",), "Partitions that the mirror copies."),
    "planaria_mirror_lag_offsets": Family(
        "gauge", ("mirror",), "Offsets between the ends of its copies and those of the source."
    ),
    "planaria_mirror_lag_bytes": Family(
        "gauge", ("mirror",), "Bytes that were read from the source and are not appended yet."
    ),
    "planaria_mirror_lag_seconds": Family(
        "gauge", ("mirror",), "Longest time for which one of its copies has been incomplete."
    ),
    "planaria_mirror_copied_bytes": Family("gauge", ("mirror",), "Bytes appended by its present process."),
    "planaria_mirror_skipped_offsets": Family(
        "gauge", ("mirror",), "Offsets that the source had deleted before they were copied."
    ),
    "planaria_mirror_faulted_topics": Family(
        "gauge", ("mirror",), "Topics whose source is not the one that was copied."
    ),
    "planaria_mirror_unreachable": Family(
        "gauge", ("mirror",), "1 if the source has not answered for 10 seconds."
    ),
    # Actors
    "planaria_actors": Family("gauge", ("actor_kind", "state"), "Actors."),
    "planaria_actor_quarantined": Family("gauge", _ACTOR, "Actors in quarantine: they need an operator."),
    "planaria_actor_restarts_total": Family("counter", _ACTOR, "Starts after a death."),
    "planaria_actor_hang_kills_total": Family("counter", _ACTOR, "Kills of actors that made no progress."),
    "planaria_actor_memory_bytes": Family(
        "gauge", _ACTOR, "Memory that the processes share with no other; measured in turn."
    ),
    "planaria_actor_messages_in_total": Family("counter", _ACTOR, "Messages received from peers."),
    "planaria_actor_bytes_in_total": Family("counter", _ACTOR, "Bytes of these messages."),
    "planaria_actor_messages_out_total": Family("counter", _ACTOR, "Messages sent to peers."),
    "planaria_actor_bytes_out_total": Family("counter", _ACTOR, "Bytes of these messages."),
    "planaria_alarms": Family("gauge", _ACTOR, "Alarms, as `planaria status` shows them."),
    # The cluster
    "planaria_partitions_led": Family("gauge", (), "Partitions that this node leads."),
    "planaria_isr_size": Family(
        "gauge", _TOPIC, "Replicas in sync, of the partition led here with the fewest."
    ),
    "planaria_partitions_under_replicated": Family(
        "gauge", (), "Partitions led here of which a replica is not in sync."
    ),
    "planaria_partitions_below_minimum": Family(
        "gauge", (), "Partitions led here with fewer replicas in sync than the topic requires."
    ),
    "planaria_replica_lag_records": Family(
        "gauge",
        ("topic", "node"),
        "Records that the node's replica does not hold durably; the most of a partition.",
    ),
    "planaria_replica_records_in_total": Family(
        "counter", _TOPIC, "Records copied from leaders of other nodes."
    ),
    "planaria_replica_bytes_in_total": Family("counter", _TOPIC, "Bytes of these records, in batches."),
    "planaria_leaders_elected_total": Family(
        "counter", (), "Partitions of which a replica here began to lead."
    ),
    "planaria_cluster_nodes": Family("gauge", ("state",), "Nodes of the cluster, as this node sees them."),
    "planaria_cluster_controller": Family("gauge", (), "1 if the controller of this node leads."),
    "planaria_cluster_controllers": Family("gauge", (), "1 if a controller leads, as this node sees it."),
    "planaria_cluster_session": Family("gauge", (), "1 if this node has a session in the metadata store."),
    "planaria_cluster_offline_partitions": Family("gauge", (), "Partitions without a leader."),
    "planaria_cluster_under_replicated_partitions": Family(
        "gauge", (), "Partitions of which a replica is not in sync."
    ),
    "planaria_cluster_moving_partitions": Family("gauge", (), "Partitions that are being moved."),
    "planaria_node_critical": Family("gauge", (), "1 if a stop of this node would lose availability."),
    # By partition and by actor
    "planaria_partition_log_start_offset": Family("gauge", _PARTITION, "First offset.", "detailed"),
    "planaria_partition_high_watermark": Family("gauge", _PARTITION, "End of the readable part.", "detailed"),
    "planaria_partition_log_end_offset": Family("gauge", _PARTITION, "End of the log.", "detailed"),
    "planaria_partition_size_bytes": Family("gauge", _PARTITION, "Size of the log on disk.", "detailed"),
    "planaria_partition_leader_epoch": Family("gauge", _PARTITION, "Leader epoch.", "detailed"),
    "planaria_partition_replicas": Family("gauge", _PARTITION, "Replicas; of a leader.", "detailed"),
    "planaria_partition_isr_size": Family("gauge", _PARTITION, "Replicas in sync; of a leader.", "detailed"),
    "planaria_partition_replica_lag_records": Family(
        "gauge", ("topic", "partition", "node"), "Records that the node's replica does not hold.", "detailed"
    ),
    "planaria_partition_records_in_total": Family(
        "counter", _PARTITION, "Records appended by producers, since the process began.", "detailed"
    ),
    "planaria_partition_records_out_total": Family(
        "counter", _PARTITION, "Offsets read by consumers, since the process began.", "detailed"
    ),
    "planaria_partition_fsync_seconds": Family(
        "histogram", _PARTITION, "Duration of file syncs, since the process began.", "detailed"
    ),
    "planaria_group_partition_offset": Family(
        "gauge", _GROUP_PARTITION, "First offset that the group has not read.", "detailed"
    ),
    "planaria_group_partition_lag": Family(
        "gauge", _GROUP_PARTITION, "Messages that the group has not read.", "detailed"
    ),
    "planaria_group_partition_lag_seconds": Family(
        "gauge", _GROUP_PARTITION, "Age of the oldest message that the group has not read.", "detailed"
    ),
    "planaria_actor_up": Family("gauge", ("actor",), "1 if the actor is ready or sleeps.", "detailed"),
    "planaria_actor_starts": Family("gauge", ("actor",), "Restarts of the actor.", "detailed"),
    "planaria_actor_resident_bytes": Family("gauge", ("actor",), "Memory of the actor.", "detailed"),
    # The names of kafka_exporter
    "kafka_brokers": Family("gauge", (), "Number of Brokers in the Kafka Cluster.", "kafka"),
    "kafka_topic_partitions": Family("gauge", _TOPIC, "Number of partitions for this Topic", "kafka"),
    "kafka_topic_partition_current_offset": Family(
        "gauge", _PARTITION, "Current Offset of a Broker at Topic/Partition", "kafka"
    ),
    "kafka_topic_partition_oldest_offset": Family(
        "gauge", _PARTITION, "Oldest Offset of a Broker at Topic/Partition", "kafka"
    ),
    "kafka_topic_partition_leader": Family(
        "gauge", _PARTITION, "Leader Broker ID of this Topic/Partition", "kafka"
    ),
    "kafka_topic_partition_leader_is_preferred": Family(
        "gauge", _PARTITION, "1 if Topic/Partition is using the Preferred Broker", "kafka"
    ),
    "kafka_topic_partition_replicas": Family(
        "gauge", _PARTITION, "Number of Replicas for this Topic/Partition", "kafka"
    ),
    "kafka_topic_partition_in_sync_replica": Family(
        "gauge", _PARTITION, "Number of In-Sync Replicas for this Topic/Partition", "kafka"
    ),
    "kafka_topic_partition_under_replicated_partition": Family(
        "gauge", _PARTITION, "1 if Topic/Partition is under Replicated", "kafka"
    ),
    "kafka_consumergroup_current_offset": Family(
        "gauge", _CONSUMERS, "Current Offset of a ConsumerGroup at Topic/Partition", "kafka"
    ),
    "kafka_consumergroup_lag": Family(
        "gauge", _CONSUMERS, "Current Approximate Lag of a ConsumerGroup at Topic/Partition", "kafka"
    ),
    "kafka_consumergroup_lag_sum": Family(
        "gauge",
        ("consumergroup", "topic"),
        "Current Approximate Lag of a ConsumerGroup at Topic for all partitions",
        "kafka",
    ),
    "kafka_consumergroup_members": Family(
        "gauge", ("consumergroup",), "Amount of members in a consumer group", "kafka"
    ),
}
