"""Reports of the leading controller to leaders on nodes that do not watch a suspected node. Pure.

In a cluster of more than `MONITORS` + 1 nodes, such a leader would not know before the session of a follower's node ends
that it is suspected, or trusted again.

    report of a partition and a node   left by
    none                               the node is suspected, or trusted again -> open
    open                               answered, or refused for good, or `REPORTED_MS` over -> none
                                       the node is suspected, or trusted again -> withdrawn, and a newer one is open

A report waits for the leader's process and for the way to it, as long as it may be of use: after `REPORTED_MS` the
session of a dead node has ended. A withdrawn report is not sent again, so it does not arrive after its successor.
"""

from collections.abc import Set
from itertools import count

from ....transport.addresses import TopicPartition, partition_address
from ....transport.machine import Call, CancelCall, Effect
from ....transport.monitors import MONITORS, monitors_of
from ....transport.protocol.message import Done
from ....transport.protocol.replication import ReplicaReported
from ..keys import LivenessCall
from .elections import DataIds
from .messages import reported
from .mirror import Mirror

REPORTED_MS = 6_000


class DistantLeaders:
    """The reports of the controller on the node `node`."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._open: dict[tuple[TopicPartition, str], int] = {}
        self._numbers = count(1)

    def on_changed(self, mirror: Mirror, changed: Set[str], live: DataIds) -> list[Effect]:
        """Report the nodes that are suspected, or trusted again, if this controller leads."""
        sessions, present = mirror.sessions, mirror.present
        if len(sessions) <= MONITORS + 1 or present is None or present.entry.node != self._node:
            return []  # in a small cluster every node watches all others
        monitors = monitors_of(sessions)
        effects: list[Effect] = []
        for partition, versioned in mirror.partitions.items():
            record = versioned.record
            if record.leader == self._node or record.leader not in live:
                continue
            for node in sorted(changed & set(record.replicas) & sessions.keys()):
                if record.leader not in (*monitors[node], node):
                    report = reported(partition, record, node, is_up=node in live)
                    effects += self._report(LivenessCall(partition, node, next(self._numbers)), report)
        return effects

    def _report(self, key: LivenessCall, report: ReplicaReported) -> list[Effect]:
        before = self._open.get((key.partition, key.node))
        self._open[key.partition, key.node] = key.number
        call = Call(
            key,
            partition_address(*key.partition),
            report,
            Done,
            is_retried=True,
            retry_timeout_ms=REPORTED_MS,
            token=key.number,
        )
        return [call] if before is None else [CancelCall(before), call]

    def on_outcome(self, key: LivenessCall) -> list[Effect]:
        if self._open.get((key.partition, key.node)) == key.number:
            del self._open[key.partition, key.node]
        return []
