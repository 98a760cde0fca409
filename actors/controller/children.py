"""The processes that the catalog requires: addresses and child specs. Pure.

The supervisor has no knowledge of topics; it starts the children that the controller requests.
"""

from typing import NamedTuple
from zlib import crc32

import msgspec

from ...transport.addresses import (
    DELAYED_TOPIC,
    OFFSETS_TOPIC,
    TRANSACTIONS_TOPIC,
    Address,
    coordinator_address,
    is_internal,
    partition_address,
    replica_address,
    scheduler_address,
    transactions_address,
)
from ...transport.protocol.control import ChildSpec
from .catalog import Catalog, TopicEntry

_ACTORS = __package__.rpartition(".")[0]
PARTITION_ENTRY = f"{_ACTORS}.partition.process:main"
COORDINATOR_ENTRY = f"{_ACTORS}.coordinator.process:main"
SCHEDULER_ENTRY = f"{_ACTORS}.scheduler.process:main"
SUBSCRIBER_ENTRY = f"{_ACTORS}.subscriber.process:main"
MIRROR_ENTRY = f"{_ACTORS}.mirror.process:main"
TRANSACTIONS_ENTRY = f"{_ACTORS}.transactions.process:main"


def offsets_partition_for(group: str, partitions: int) -> int:
    return crc32(group.encode()) % partitions


def partition_addresses(entry: TopicEntry) -> list[Address]:
    return [partition_address(entry.topic, partition) for partition in range(entry.partitions)]


def partition_folder(topic: str, partition: int) -> str:
    """Return the partition's folder, relative to the data directory."""
    return f"topics/{topic}/{partition}"


def partition_spec(
    entry: TopicEntry, partition: int, disk_reserve_bytes: int = 0, idle_ms: int = 0
) -> ChildSpec:
    """Return the child spec of a partition.

    The broker's own topics may use the reserve, which exists for them, and do not sleep.
    """
    return ChildSpec(
        address=partition_address(entry.topic, partition),
        start=PARTITION_ENTRY,
        arguments={
            "topic": entry.topic,
            "partition": partition,
            "topic_id": entry.topic_id,
            "config": msgspec.to_builtins(entry.config),
            "directory": partition_folder(entry.topic, partition),
            "disk_reserve_bytes": 0 if is_internal(entry.topic) else disk_reserve_bytes,
            "idle_ms": 0 if is_internal(entry.topic) else idle_ms,
            **({} if entry.mirror is None else {"mirror": msgspec.to_builtins(entry.mirror)}),
        },
    )


class ReplicaSettings(NamedTuple):
    """The settings of a node for all its replicas."""

    disk_reserve_bytes: int = 0
    slow_sync_ms: int = 0
    peer_endpoint: str = ""
    """Endpoint of a replica's process for followers on other nodes, at any port; empty: none."""
    peer_host: str = ""
    """Its host, as other nodes reach it."""
    peer_keys: str = ""
    """The file of the cluster's keys; empty: none."""


DEFAULT_REPLICAS = ReplicaSettings()


def replica_spec(
    entry: TopicEntry, partition: int, node: str, data_id: str, settings: ReplicaSettings
) -> ChildSpec:
    """Return the child spec of one node's copy of a partition: it waits for its role, and does not sleep."""
    spec = partition_spec(entry, partition, settings.disk_reserve_bytes)
    return msgspec.structs.replace(
        spec,
        address=replica_address(entry.topic, partition),
        arguments={
            **spec.arguments,
            "leadership": "given",
            "node": node,
            "data_id": data_id,
            "slow_sync_ms": settings.slow_sync_ms,
            "peer_endpoint": settings.peer_endpoint,
            "peer_host": settings.peer_host,
            "peer_keys": settings.peer_keys,
        },
    )


class GroupLife(NamedTuple):
    """The lifetimes of an unused group's coordinator, of its offsets, and of members without a connection."""

    idle_ms: int = 0
    """A coordinator sleeps after this time without members and work; 0: never."""
    offsets_retention_ms: int = -1
    """Offsets unused for this long are deleted; -1: never."""
    disconnect_grace_ms: int = 0
    """A member whose connection is lost has left after this time; 0: when its session ends."""


KEPT = GroupLife()
"""Awake, and forever."""


def coordinator_spec(
    group: str, offsets_partition: int, life: GroupLife = KEPT, *, in_cluster: bool = False
) -> ChildSpec:
    return ChildSpec(
        address=coordinator_address(group),
        start=COORDINATOR_ENTRY,
        arguments={
            "group": group,
            "offsets_topic": OFFSETS_TOPIC,
            "offsets_partition": offsets_partition,
            "idle_ms": life.idle_ms,
            "offsets_retention_ms": life.offsets_retention_ms,
            "disconnect_grace_ms": life.disconnect_grace_ms,
            **({"is_replaceable": True} if in_cluster else {}),
        },
    )


def scheduler_specs(entry: TopicEntry) -> list[ChildSpec]:
    """Return one spec for each partition of `__delayed`."""
    return [
        ChildSpec(
            address=scheduler_address(number),
            start=SCHEDULER_ENTRY,
            arguments={"topic": entry.topic, "number": number, "schedulers": entry.partitions},
        )
        for number in range(entry.partitions)
    ]


def transactions_specs(entry: TopicEntry, node: str = "") -> list[ChildSpec]:
    """Return one coordinator's spec for each partition of `__transactions`. `node` is that of a cluster."""
    return [
        ChildSpec(
            address=transactions_address(number),
            start=TRANSACTIONS_ENTRY,
            arguments={"topic": entry.topic, "number": number, **({"node": node} if node else {})},
        )
        for number in range(entry.partitions)
    ]


def partition_specs(entry: TopicEntry, disk_reserve_bytes: int = 0, idle_ms: int = 0) -> list[ChildSpec]:
    return [
        partition_spec(entry, partition, disk_reserve_bytes, idle_ms) for partition in range(entry.partitions)
    ]


def all_specs(
    catalog: Catalog, disk_reserve_bytes: int = 0, life: GroupLife = KEPT, partition_idle_ms: int = 0
) -> list[ChildSpec]:
    """Return the specs of all required children, internal partitions first, because actors keep their records there."""
    topics = sorted(catalog.topics.values(), key=lambda entry: (not is_internal(entry.topic), entry.topic))
    partitions = [
        spec for entry in topics for spec in partition_specs(entry, disk_reserve_bytes, partition_idle_ms)
    ]
    coordinators = [coordinator_spec(group, number, life) for group, number in sorted(catalog.groups.items())]
    delayed = catalog.topics.get(DELAYED_TOPIC)
    schedulers = scheduler_specs(delayed) if delayed is not None else []
    transactions = catalog.topics.get(TRANSACTIONS_TOPIC)
    transactions_coordinators = transactions_specs(transactions) if transactions is not None else []
    return partitions + coordinators + transactions_coordinators + schedulers
