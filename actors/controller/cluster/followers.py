"""The actors that keep their state in a partition, and so run on the node of its leader. Pure.

partition of       actors
__offsets          coordinators of the groups that have it
__transactions     the coordinator of transactions of its number
__delayed          the scheduler of its number
"""

from ....transport.addresses import DELAYED_TOPIC, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, TopicPartition
from ....transport.protocol.control import ChildSpec
from ..catalog import Catalog
from ..children import GroupLife, coordinator_spec, scheduler_specs, transactions_specs

FOLLOWED = {OFFSETS_TOPIC, TRANSACTIONS_TOPIC, DELAYED_TOPIC}


def followers(partition: TopicPartition, catalog: Catalog, life: GroupLife, node: str) -> list[ChildSpec]:
    """Return the specs of the actors that run where this partition is led, for the node `node`."""
    entry = catalog.topics.get(partition.topic)
    if entry is None or partition.topic not in FOLLOWED:
        return []
    if partition.topic == OFFSETS_TOPIC:
        groups = sorted(group for group, number in catalog.groups.items() if number == partition.partition)
        return [coordinator_spec(group, partition.partition, life, in_cluster=True) for group in groups]
    is_scheduler = partition.topic == DELAYED_TOPIC
    specs = scheduler_specs(entry) if is_scheduler else transactions_specs(entry, node)
    return [spec for spec in specs if spec.address.number == partition.partition]
