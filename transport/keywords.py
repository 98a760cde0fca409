"""The options that programs pass by keyword, as types for editors and type checkers. Pure.

Each TypedDict lists the keywords of one call. The Struct beside it checks the values when the call is made; a message is
checked by the accumulator:

    PublishDetails        publish and publish_nowait of AsyncClient and AsyncProducer
    MessageDetails        the same of AsyncTransaction
    ProducerConfig        Client.producer, Broker.producer                  client.options.ProducerOptions
    ConsumerConfig        Client.consumer, Broker.consumer                  client.options.ConsumerOptions
    ShareConsumerConfig   Client.share_consumer, Broker.share_consumer      client.share_messages.ShareOptions
    SubscriberConfig      Broker.subscribe with a handler                   subscription.SubscriberOptions
    TopicSettings         create_topic, alter_topic                         protocol.topics.TopicConfigChange
    QuotaSettings         Client.set_quota                                  protocol.quotas.QuotaChange
    BrokerSettings        Broker                                            supervisor.config.BrokerConfig

Every key is optional. A key that ends with `_ms` takes milliseconds or a timedelta.
tests/rules/test_keywords.py compares the fields and types with those of the Structs.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from os import PathLike
from typing import Literal, TypeAlias, TypedDict

from .addresses import TopicPartition

Milliseconds: TypeAlias = int | timedelta
"""Whole milliseconds, or a timedelta, which is rounded up to them."""


class MessageDetails(TypedDict, total=False):
    """Details of a message, as `Producer.publish` takes them; None is as if left out."""

    key: bytes | str | None
    """Key, text as UTF-8: messages of a key go to one partition, in order. Default None: no key."""
    headers: dict[str, str] | None
    """Headers of the message. Default None: none."""
    partition: int | None
    """Number of the partition. Default None: by the key, otherwise in turn."""
    timestamp_ms: datetime | int | None
    """Timestamp, a datetime or milliseconds since the epoch. Default None: the time of the call."""
    expires_at: datetime | int | None
    """Time from which the message is of no use, a datetime or milliseconds since the epoch. Default None: never."""
    priority: int | None
    """Priority in share groups, 0 to 9. Default None: 0."""


class PublishDetails(MessageDetails, total=False):
    """Details of a message that is published outside a transaction."""

    dedup_id: str | None
    """Id by which the partition recognises a repeat. Default None: repeats are not recognised."""
    deliver_at: datetime | int | None
    """Time until which the broker holds the message back, a datetime or milliseconds since the epoch. Default None."""
    delay: timedelta | float | None
    """The same as a delay, in seconds or as a timedelta. Default None: delivered at once."""
    scheduled_id: str | None
    """Id of a message that is held back, until its delivery. Default None: a random one."""
    expected_offset: int | None
    """Offset that the message must get. Default None: any."""
    expected_key_version: int | None
    """Offset of the last message with its key, -1 for none, that it must follow. Default None: any."""


class ProducerConfig(TypedDict, total=False):
    """Options of a producer."""

    acks: Literal[0, 1, "all"]
    """Replicas that hold a batch before it is acknowledged: none, the leader, or all in sync. Default "all"."""
    linger_ms: Milliseconds
    """Milliseconds a batch waits for more records, from 0. A caller that waits for a delivery ends the wait.
    Default 5."""
    batch_bytes: int
    """Maximum size of a batch in bytes, from 1. Default 524,288."""
    batch_records: int
    """Maximum number of records in a batch, from 1. Default 10,000."""
    buffer_bytes: int
    """Maximum bytes of all full and unacknowledged batches, from 1. Default 33,554,432."""
    max_block_ms: Milliseconds
    """Milliseconds `publish` waits for room in the buffer before it raises BufferFull, from 0. Default 60,000."""
    delivery_timeout_ms: Milliseconds
    """Milliseconds until an unacknowledged message fails, from 1. Time under backpressure does not count.
    Default 120,000."""
    request_timeout_ms: Milliseconds
    """Milliseconds until a request without an answer is sent again, from 1. Default: the client's."""
    compression: Literal["none", "zstd", "lz4"]
    """Codec of the batches; "zstd" and "lz4" need the extra of that name: `planaria[zstd]`. Default "none"."""
    on_backpressure: Literal["block", "raise"]
    """Reaction to a partition that refuses records because a group lags too far behind: keep them and block when the
    buffer is full, or raise Backpressure from `publish`. Default "block"."""
    transaction_timeout_ms: Milliseconds
    """Milliseconds after which the broker aborts an open transaction, 100 to 900,000. Default 60,000."""


class ConsumerConfig(TypedDict, total=False):
    """Options of a consumer."""

    partitions: Sequence[TopicPartition | tuple[str, int]] | None
    """Partitions to read without a group's assignment. Default None: the group assigns them."""
    auto_offset_reset: Literal["earliest", "latest", "error"]
    """Start position without a committed offset or with one outside the log; "error" raises NoOffset or
    OffsetOutOfRange. Default "latest"; "earliest" in `Broker.subscribe`."""
    isolation: Literal["read_committed", "read_uncommitted"]
    """"read_committed" leaves out records of open and aborted transactions. Default "read_committed"."""
    auto_commit: bool
    """Commit messages of earlier polls in the background and on close. Default True."""
    auto_commit_interval_ms: Milliseconds
    """Milliseconds between automatic commits, from 0. Default 5,000."""
    session_timeout_ms: Milliseconds
    """Milliseconds without a heartbeat after which the group removes the member, 100 to 1,800,000. Default 10,000."""
    max_poll_interval_ms: Milliseconds
    """Milliseconds without a poll after which the consumer leaves the group, from 1. Default 300,000."""
    fetch_max_bytes: int
    """Maximum bytes of one fetch from one partition, from 1. Default 1,048,576."""
    fetch_min_bytes: int
    """Bytes a partition collects before it answers a fetch, from 0. Default 1."""
    fetch_max_wait_ms: Milliseconds
    """Milliseconds a partition waits for `fetch_min_bytes`, 0 to 60,000. Default 500."""
    prefetch_bytes: int
    """Maximum bytes fetched ahead of `poll`, from 1. Default 16,777,216."""
    skip_expired: bool
    """Leave out messages whose header `expires-at-ms` is past, except in `poll_batches`. Default False."""
    on_assigned: Callable[[list[TopicPartition]], object] | None
    """Called inside `poll` with partitions that were assigned. Default None."""
    on_revoked: Callable[[list[TopicPartition]], object] | None
    """Called inside `poll` before partitions are released; with `auto_commit`, after the commit. Default None."""
    on_lost: Callable[[list[TopicPartition]], object] | None
    """Called inside `poll` with partitions that are already lost. Default None: `on_revoked` is called."""
    instance_id: str | None
    """Name of a static member, which keeps its partitions over a restart within the session timeout; at least one
    character. Default None."""
    assignor: Literal["sticky", "range", "round_robin"] | None
    """Assignment strategy of the group. Default None: "sticky", or the choice of the other members."""
    client_id: str
    """Name of the member in `describe_group`. Default: the client's."""
    request_timeout_ms: Milliseconds
    """Milliseconds until a request raises TimedOut, from 1. Default: the client's."""


class ShareConsumerConfig(TypedDict, total=False):
    """Options of a share consumer."""

    member_id: str | None
    """Name of the member in the group, 1 to 256 characters. Default None: a random one."""
    acknowledge: Literal["explicit", "implicit"]
    """"implicit": a poll accepts the messages of the previous poll that were not acknowledged. Default "explicit"."""
    lock_ms: Milliseconds | None
    """Milliseconds a message stays locked to this member, 100 to 3,600,000. Default None: the group's."""
    renew: bool
    """Renew locks in the background. Default True."""
    charge_on_disconnect: bool
    """Count the deliveries of messages that this member holds when its connection is lost as failed. Default False."""
    max_poll_interval_ms: Milliseconds
    """Milliseconds after the last poll for which locks are renewed, from 1. Default 300,000."""
    max_bytes: int
    """Maximum bytes of the messages of one poll, 1 to 16,777,216. Default 16,777,216."""
    request_timeout_ms: Milliseconds
    """Milliseconds until a request raises TimedOut, from 1. Default: the client's."""


class SubscriberConfig(TypedDict, total=False):
    """Options of a hosted subscription."""

    delivery: Literal["at-most-once", "at-least-once", "exactly-once"]
    """Time of the commit: before the handler, after it, or with its published messages. Default "at-least-once"."""
    retries: int
    """Retries of a failed record, from 0; at-most-once never retries. Default 5."""
    backoff_ms: Milliseconds | list[Milliseconds]
    """Milliseconds before the first retry, from 1, or a list of all waits. Default 1,000."""
    backoff_factor: float
    """Growth of the wait with each retry, 1 to 100. Default 2.0."""
    backoff_max_ms: Milliseconds
    """Longest wait in milliseconds, from `backoff_ms`. Default 60,000."""
    backoff_jitter: float
    """Random share by which a wait varies, 0 to 1. Default 0.2."""
    dead_letter: str | None
    """Topic for records that failed all retries. Default None: they are parked and retried at the longest wait."""
    retry_alarm_ms: Milliseconds
    """Milliseconds of failure after which `status` shows an alarm, from 1. Default 600,000."""
    concurrency: int
    """Records handled at a time by one process, 1 to 256; records of one key stay in order. Default 1."""
    max_in_flight_per_key: int
    """Records of one key handled at a time, 1 to 256; above 1 in any order. Needs `concurrency`. Default 1."""
    rate_per_key: float
    """Handler calls a second for the records of one key, 0 to 100,000; 0: no limit. Needs `concurrency`. Default 0.0."""
    weights: dict[str, int]
    """Records in one turn of a key, 1 to 100, for up to 1,000 keys; 1 for others. Needs `concurrency`. Default {}."""
    coalesce: Literal["none", "latest"]
    """"latest": of a key's waiting records only the newest is handled. Needs `concurrency`. Default "none"."""
    max_wait_ms: Milliseconds
    """Milliseconds for which `coalesce` collects records of a key, 0 to 3,600,000. Default 0."""
    expired: Literal["deliver", "skip", "dead_letter"]
    """The end of records past their `expires_at`; "dead_letter" needs `dead_letter`. Default "deliver"."""
    breaker_window: int
    """Records that the circuit breaker looks at, 0 to 10,000; 0 turns it off. Default 20."""
    breaker_share: float
    """Share of failed records that opens the breaker, 0.01 to 1. Default 0.5."""
    breaker_pause_ms: Milliseconds
    """First pause of the breaker in milliseconds, 1 to 60,000; it doubles up to a minute. Default 1,000."""
    handler_timeout_ms: Milliseconds | None
    """Milliseconds that one record may take, from 1. Default None: no limit."""
    cpu_limit: float | None
    """Seconds of CPU time that one record may take, 0.1 to 86,400. Default None: no limit."""
    memory_limit: int | None
    """Bytes of memory a process may take beyond its start, from 16,777,216; Linux only. Default None: no limit."""
    session_timeout_ms: Milliseconds
    """Milliseconds without a heartbeat after which the group removes the member, 100 to 1,800,000. Default 10,000."""
    auto_offset_reset: Literal["earliest", "latest", "error"]
    """Start position without a committed offset or with one outside the log. Default "earliest"."""
    on_damage: Literal["stop", "skip"]
    """At records that cannot be read: stop with an alarm, or continue after them. Default "stop"."""
    max_records: int
    """Maximum number of records per partition that wait for the handler, from 1. Default 10,000."""
    correlation_header: str | None
    """Header, such as "correlation-id", that a handler's messages take over from their record. Default None."""


class TopicSettings(TypedDict, total=False):
    """Configuration of a topic. The defaults are those of `topic_defaults` in the broker's configuration."""

    retention_ms: Milliseconds
    """Milliseconds after which records are deleted; -1: never. Default 604,800,000 (7 days)."""
    retention_bytes: int
    """Bytes per partition above which the oldest records are deleted; -1: no limit. Default -1."""
    segment_bytes: int
    """Size of a segment file in bytes, 1,024 to 2,147,483,647. Default 134,217,728."""
    segment_ms: Milliseconds
    """Age in milliseconds at which a segment is closed, from 100. Default 604,800,000 (7 days)."""
    flush: str
    """Sync of appends to disk: "batch" (before the acknowledgement), "interval:200ms", or "os".
    Default "batch"."""
    max_message_bytes: int
    """Maximum size of a batch in bytes, 1 to 33,554,432. Default 1,048,576."""
    max_timestamp_ahead_ms: Milliseconds
    """Milliseconds that a timestamp may be ahead of the broker's clock; -1: no limit. Default 3,600,000."""
    max_records_per_batch: int
    """Maximum number of records in a batch, from 20,000. Default 100,000."""
    max_unpacked_bytes: int
    """Maximum bytes of a batch after decompression, from 1,048,576. Default 67,108,864."""
    cleanup: Literal["delete", "compact", "compact,delete"]
    """Delete by retention, keep the newest record of each key, or both. Default "delete"."""
    delete_retention_ms: Milliseconds
    """Milliseconds that a compacted topic keeps the empty value that deletes a key, from 0. Default 86,400,000."""
    min_compaction_lag_ms: Milliseconds
    """Minimum age in milliseconds of records that compaction removes, from 0. Default 0."""
    min_cleanable_ratio: float
    """Share of the log not yet compacted at which compaction begins, 0 to 1. Default 0.5."""
    dedup_window_ms: Milliseconds
    """Milliseconds for which a dedup id is remembered, 0 (off) to 86,400,000. Default 120,000."""
    dedup_window_count: int
    """Maximum number of dedup ids remembered per partition, 0 to 1,000,000. Default 100,000."""
    key_versions: bool
    """Keep the offset of each key's last record, for `expected_key_version`; only at the creation. Default False."""
    max_backlog_messages: int
    """Records per partition that the slowest live group may be behind before producers are refused; -1: no limit.
    Default -1."""
    max_backlog_bytes: int
    """The same limit in bytes; -1: no limit. Default -1."""
    backlog_group_timeout_ms: Milliseconds
    """Milliseconds after which a group without members and commits no longer counts, from 0. Default 600,000."""
    retain_until_consumed: bool
    """Keep records that some group has not committed, within the two limits below. Default False."""
    retain_max_bytes: int
    """Maximum bytes per partition kept for slow groups; -1: no limit. Default 10,737,418,240."""
    retain_max_ms: Milliseconds
    """Maximum age in milliseconds of records kept for slow groups; -1: no limit. Default 2,592,000,000."""
    replication_factor: int
    """Nodes that hold a copy of each partition; fixed when the topic is created. Default 0: 1 on one machine, 3 in a
    cluster."""
    min_in_sync_replicas: int
    """Copies that an acknowledgement with `acks="all"` requires. Default 0: a majority of the replicas."""


class QuotaSettings(TypedDict, total=False):
    """Limits of a client id, principal or address; -1 removes a limit, up to 2**53."""

    produce_bytes: int
    """Bytes per second of produce requests. Default: unchanged, first -1."""
    fetch_bytes: int
    """Bytes per second of fetch replies. Default: unchanged, first -1."""
    produce_requests: int
    """Produce requests per second. Default: unchanged, first -1."""
    fetch_requests: int
    """Fetch requests per second. Default: unchanged, first -1."""
    connections: int
    """Connections at a time. Default: unchanged, first -1."""
    requests_in_flight: int
    """Requests without an answer at a time. Default: unchanged, first -1."""


class BrokerSettings(TypedDict, total=False):
    """Settings of an embedded broker: the keys of planaria.toml but `endpoint`."""

    data: str | PathLike[str]
    """Directory of everything that lasts, in place of the argument `data_dir`. Default "planaria-data"."""
    authentication: Literal["auto", "none", "curve", "curve+token"]
    """Required proof of a client: none, a known key, or also a token or password. Default "auto":
    "curve+token" if the data directory has keys, else "none"."""
    tls_endpoint: str
    """Endpoint for clients over TLS, such as "tls://0.0.0.0:5574". Default "": none."""
    tls_certificate: str
    """Certificate of the broker for that endpoint, a file in PEM. Default ""."""
    tls_key: str
    """Key of that certificate, a file in PEM with the mode 0600. Default ""."""
    tls_client_ca: str
    """Authorities of clients' certificates, a file in PEM. Default "": clients have no certificates."""
    tls_max_connections: int
    """Connections over TLS, from 1. Default 2,000."""
    insecure_public: bool
    """True to listen at a public endpoint without authentication. Default False."""
    audit: Literal["auto", "on", "off"]
    """Record administrative acts and refusals in the topic `__audit`; auto: with authentication. Default "auto"."""
    audit_retention_ms: Milliseconds
    """Milliseconds after which records of the audit are deleted; -1: never. Default 7,776,000,000, 90 days."""
    audit_retention_bytes: int
    """Bytes of the audit beyond which its oldest records are deleted; -1: any. Default 1,073,741,824."""
    http_endpoint: str
    """HOST:PORT at which metrics and probes are served over HTTP; a port of `*` is a free one. Default "": none."""
    http_bridge: bool
    """True to serve topics and groups over HTTP there, too. Default False."""
    console: str
    """HOST:PORT at which the console is served, with the extra `console`. Default "": none."""
    kafka_names: bool
    """True to serve metrics under the names of kafka_exporter, too. Default False."""
    node: str
    """Name of this node of a cluster. Default "": a broker on one machine."""
    cluster: str
    """Metadata store and name of the cluster, such as "etcd://a:2379,b:2379/prod". Default ""."""
    advertise: str
    """Address by which clients and other nodes reach the endpoint. Default "": the endpoint itself."""
    peer_endpoint: str
    """Endpoint for the other nodes of the cluster. Default ""."""
    advertise_peer: str
    """Peer endpoint as other nodes reach it. Default "": that of `peer_endpoint`."""
    peer_keys: str
    """File of the cluster's keys, from `planaria cluster keys`. Default "": nodes do not authenticate each other."""
    direct_replication: bool
    """False: replicas on other nodes are reached through the peer endpoint alone. Default True."""
    etcd_ca: str
    """Authority of etcd's certificates, a file in PEM: nodes then use TLS to etcd. Default ""."""
    etcd_certificate: str
    """Certificate of this node for etcd, a file in PEM. Default ""."""
    etcd_key: str
    """Key of that certificate, a file in PEM. Default ""."""
    rack: str
    """Failure domain of this node. Default ""."""
    refuse_unsafe_stop: bool
    """True to refuse a first SIGTERM while partitions of the cluster need this node. Default True."""
    slow_sync_ms: Milliseconds
    """Milliseconds of a sync from which on a leader in a cluster asks to be relieved, from 0: never. Default 1,000."""
    replication_bytes_per_second: int
    """Bytes per second to replicas that catch up, from 0, which means any rate. Default 52,428,800."""
    cpu_latency_us: int
    """Microseconds to which the wake-up latency of all processors is limited while the broker runs; 0: they poll.
    Default -1: as the system is set."""
    heartbeat_interval_ms: Milliseconds
    """Milliseconds between heartbeats of an actor, from 1. Default 500."""
    hang_timeout_ms: Milliseconds
    """Milliseconds without progress after which a ready actor is restarted, from 1. Default 5,000."""
    abort_grace_ms: Milliseconds
    """Milliseconds that it has to write its stack to the log before it is killed, from 1. Default 300."""
    restart_intensity: int
    """Restarts of an actor allowed in `restart_period_ms`, from 0; one more quarantines it. Default 5."""
    restart_period_ms: Milliseconds
    """Milliseconds over which restarts are counted, from 1. Default 30,000."""
    backoff_reset_ms: Milliseconds
    """Milliseconds that an actor is ready before its restart delay is reset, from 1. Default 1,000."""
    quarantine_retry_ms: Milliseconds
    """Milliseconds after which a quarantined actor is restarted, from 0; 0: only by `revive`. Default 300,000."""
    max_actors: int
    """Maximum number of actors, from 0; 0: as many as the system's limits allow. Default 0."""
    coordinator_idle_ms: Milliseconds
    """Milliseconds after which the coordinator of an idle group is stopped until used, from 0; 0: never.
    Default 600,000."""
    offsets_retention_ms: Milliseconds
    """Milliseconds after which unused offsets of an empty group are deleted; -1: never. Default -1."""
    disconnect_grace_ms: Milliseconds
    """Milliseconds after which a member whose connection is lost has left its group, from 0; 0: when its session ends.
    Default 500."""
    partition_idle_ms: Milliseconds
    """Milliseconds after which an idle partition is stopped until used, from 0; 0: never. Default 0."""
    offsets_partitions: int
    """Partitions of the internal offsets topic, 1 to 1,000; read when it is created. Default 4."""
    delayed_partitions: int
    """Partitions of the internal topic of delayed messages, 1 to 1,000; read when it is created. Default 2."""
    disk_reserve_bytes: int
    """Free bytes on the disk below which producers are refused, from 0. Default 134,217,728."""
    transaction_coordinators: int
    """Transaction coordinators, 1 to 250; read when their topic is created. Default 2."""
    topic_defaults: TopicSettings
    """Configuration of topics that are created without their own. Default: that of TopicSettings."""
    log_level: Literal["debug", "info", "warning", "error"]
    """Least severe level that is logged. Default "info"."""
    log_format: Literal["text", "json"]
    """Format of a log line. Default "text"."""
    log_file: str | PathLike[str]
    """File of the logs, relative to the data directory; empty: standard error. Default "logs/broker.log"."""
