"""The processes that the catalog calls for: addresses and child specs of partitions and coordinators. Pure.

The supervisor knows none of this; it starts what the controller orders.
"""

from zlib import crc32

import msgspec

from ...transport.addresses import OFFSETS_TOPIC, coordinator_address, partition_address
from ...transport.protocol.control import ChildSpec
from .catalog import Catalog, TopicEntry

_ACTORS = __package__.rpartition(".")[0]
PARTITION_ENTRY = f"{_ACTORS}.partition.process:main"
COORDINATOR_ENTRY = f"{_ACTORS}.coordinator.process:main"


def offsets_partition_for(group: str, partitions: int) -> int:
    return crc32(group.encode()) % partitions


def partition_addresses(entry: TopicEntry) -> list[str]:
    return [partition_address(entry.topic, partition) for partition in range(entry.partitions)]


def partition_spec(entry: TopicEntry, partition: int) -> ChildSpec:
    return ChildSpec(
        address=partition_address(entry.topic, partition),
        start=PARTITION_ENTRY,
        arguments={
            "topic": entry.topic,
            "partition": partition,
            "topic_id": entry.topic_id,
            "config": msgspec.to_builtins(entry.config),
            "directory": f"topics/{entry.topic}/{partition}",
        },
    )


def coordinator_spec(group: str, offsets_partition: int) -> ChildSpec:
    return ChildSpec(
        address=coordinator_address(group),
        start=COORDINATOR_ENTRY,
        arguments={
            "group": group,
            "offsets_topic": OFFSETS_TOPIC,
            "offsets_partition": offsets_partition,
        },
        directory=True,
    )


def partition_specs(entry: TopicEntry) -> list[ChildSpec]:
    return [partition_spec(entry, partition) for partition in range(entry.partitions)]


def all_specs(catalog: Catalog) -> list[ChildSpec]:
    """Everything that must run: the partitions that keep the groups first, for the coordinators need them."""
    topics = sorted(catalog.topics.values(), key=lambda entry: (entry.topic != OFFSETS_TOPIC, entry.topic))
    partitions = [spec for entry in topics for spec in partition_specs(entry)]
    coordinators = [coordinator_spec(group, number) for group, number in sorted(catalog.groups.items())]
    return partitions + coordinators
