"""One member's next step towards its target: the whole of the rebalance protocol, as a function of three sets.

Owns the rule of KIP-848 (Kafka's CurrentAssignmentBuilder): keep what you hold and should have, let go of the rest, take
what you should have and nobody else holds. There is no barrier: each member walks alone, and the only wait is for a
partition that another still holds. Called by decisions.py; must never look at more than its arguments.

    held    granted by the coordinator and not yet let go of     target   what the assignor wants it to have
    keep    held and target: what the member is told to own      revoke   held and not target: to be let go of
    add     target, and held by nobody: granted now              (target held by another: waits)
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
        """What the member should own now."""
        return self.keep | self.add


def reconcile(
    held: Set[TopicPartition],
    target: frozenset[TopicPartition],
    held_by_anybody: Collection[TopicPartition],
) -> Step:
    keep = target & held
    return Step(
        keep=keep,
        revoke=frozenset(held - target),
        add=frozenset(item for item in target if item not in keep and item not in held_by_anybody),
    )


def let_go(
    held: Set[TopicPartition], target: frozenset[TopicPartition], owned: Set[TopicPartition]
) -> frozenset[TopicPartition]:
    """What a member's report `owned` releases. Only a report of one who knows its latest assignment counts.

    A partition it should have stays its own, reported or not: it may be about to open it.
    """
    return frozenset(item for item in held if item not in target and item not in owned)
