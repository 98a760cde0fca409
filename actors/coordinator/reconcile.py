"""One member's next step towards its target: the rebalance protocol as a function of three sets.

Owns the rule of KIP-848 (Kafka's CurrentAssignmentBuilder): keep the held partitions that are in the target, revoke the
others, add those of the target that are free. There is no barrier: each member moves independently, and waits only for
partitions that another member still holds. Called by member_decisions.py; must never use more than its arguments.

    held    granted by the coordinator and not released yet      target   assigned by the assignor
    keep    held and in the target: the member's assignment      revoke   held and not in the target: to be released
    add     in the target and free: granted now                  (in the target, held by another member: waits)
"""

from collections.abc import Collection, Set
from typing import NamedTuple

from ...transport.addresses import TopicPartition


class Step(NamedTuple):
    keep: frozenset[TopicPartition]
    revoke: frozenset[TopicPartition]
    add: frozenset[TopicPartition]

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions the member should own now."""
        return self.keep | self.add


def reconcile(
    held: Set[TopicPartition],
    target: frozenset[TopicPartition],
    all_held: Collection[TopicPartition],
) -> Step:
    keep = target.intersection(held)  # with `&`, the keys of a dict make it a set
    return Step(
        keep=keep,
        revoke=frozenset(held - target),
        add=frozenset(item for item in target if item not in keep and item not in all_held),
    )


def released_by(
    held: Set[TopicPartition], target: frozenset[TopicPartition], owned: Set[TopicPartition]
) -> frozenset[TopicPartition]:
    """Return the partitions that a member's report `owned` releases.

    A report counts only if the member knows its latest assignment. An assigned partition stays held, reported or
    not: the member may be about to open it.
    """
    return frozenset(item for item in held if item not in target and item not in owned)
