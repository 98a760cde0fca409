"""Requests of the operators of a cluster, over a client's connection. Called by the command line.

Programs in any language make the same requests by docs/protocol.md; none of them needs more than one node.
"""

from typing import Self

from ..protocol.cluster import (
    MOVES_AT_ONCE,
    ChangeNode,
    ClusterStatus,
    ClusterStatusReply,
    ElectLeader,
    NodeAction,
    PartitionMove,
    PlanRebalance,
    PlanRebalanceReply,
    ReassignPartitions,
)
from ..protocol.message import Done
from .admin_requests import AdminRequests

MOVES_IN_PROGRESS = 10
"""Maximum number of partitions that an operator moves at a time: each move copies a whole partition."""


class ClusterAdmin(AdminRequests):
    """The calls of an operator of a cluster. All of them can be repeated."""

    @classmethod
    def over(cls, client: AdminRequests) -> Self:
        """Return the calls over the connection of a client."""
        return cls(client._network, client._request_timeout_ms)

    def status(self) -> ClusterStatusReply:
        """Return all nodes and partitions. Raises ProtocolError if the broker is no cluster, TimedOut."""
        return self._ask(ClusterStatus(), ClusterStatusReply)

    def change(self, node: str, action: NodeAction, *, force: bool = False) -> None:
        """Cordon or drain a node, let it leave, or end that. Raises ProtocolError, TimedOut."""
        self._ask(ChangeNode(node=node, action=action, force=force), Done)

    def reassign(self, moves: list[PartitionMove]) -> None:
        """Begin moves of replicas. Raises ProtocolError, TimedOut."""
        for first in range(0, len(moves), MOVES_AT_ONCE):
            self._ask(ReassignPartitions(moves=moves[first : first + MOVES_AT_ONCE]), Done)

    def moves_to(self, topic: str, replicas: list[str], partition: int | None = None) -> list[PartitionMove]:
        """Return the moves of one partition, or of all of a topic, whose preferred leaders take turns, to these nodes.

        Of a topic that does not exist they are refused by `reassign`. Raises ProtocolError, TimedOut.
        """
        if partition is None:
            numbers = sorted(each.partition for each in self.status().partitions if each.topic == topic)
        else:
            numbers = []
        if not numbers:
            return [PartitionMove(topic=topic, partition=partition or 0, replicas=replicas)]
        return [
            PartitionMove(topic=topic, partition=number, replicas=_rotated(replicas, number))
            for number in numbers
        ]

    def plan(self) -> list[PartitionMove]:
        """Return the moves that spread replicas evenly. Raises ProtocolError, TimedOut."""
        return self._ask(PlanRebalance(), PlanRebalanceReply).moves

    def elect(self, topic: str, partition: int, *, unclean: bool = False) -> None:
        """Let the preferred replica lead. Raises ProtocolError, TimedOut."""
        self._ask(ElectLeader(topic=topic, partition=partition, unclean=unclean), Done)


def _rotated(nodes: list[str], number: int) -> list[str]:
    first = number % len(nodes)
    return [*nodes[first:], *nodes[:first]]
