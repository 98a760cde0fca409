"""Which requests a partition takes: those meant for it, while it is not stopping and producers have room. Pure.

    request             refused with
    any                 SHUTTING_DOWN while stopping; UNKNOWN_PARTITION if it names another partition
    Produce, Fetch      UNKNOWN_TOPIC_ID if it was meant for an earlier topic of the name;
                        ACTOR_UNAVAILABLE if its client is under a quota and the gateway has not admitted it
    of other replicas,
     of mirrors         UNKNOWN_TOPIC_ID, likewise
    Produce             STORAGE_FULL (disk.py), BACKPRESSURE (backlog.py)

Called by the partition's machine with every request, and by the leader before it places batches.
"""

from typing import Any

from ...transport.machine import Received
from ...transport.protocol.data import Fetch, ListOffsets, Produce
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.mirrors import MirrorAppend, PromotePartition, SealMirror
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.quotas import QuotasInForce
from ...transport.protocol.replication import (
    Follow,
    Lead,
    ReachLeader,
    ReplicaDurable,
    ReplicaFetch,
    ReplicaReported,
    ReportLogEnd,
)
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import DeleteRecords
from ...transport.protocol.transactions import WriteMarkers
from .backlog import Backlog, LogEnd
from .disk import DiskReserve
from .effects import Effect

# Sets of classes, because comparing with each class is a call, and this is asked for every request.
_REPLICATION = frozenset(
    {
        *(Lead, Follow, ReplicaFetch, ReplicaDurable, ReachLeader, ReplicaReported, ReportLogEnd),
        *(MirrorAppend, SealMirror, PromotePartition),
    }
)
_ADMITTED = frozenset({Produce, Fetch})
_NAMING = _REPLICATION | _ADMITTED | {ListOffsets, DeleteRecords, ReportProgress, WriteMarkers}
"""Requests that name a topic and a partition."""


class PartitionAdmission:
    def __init__(
        self, topic: str, partition: int, topic_id: str, disk: DiskReserve, backlog: Backlog
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._topic_id = topic_id
        self._disk = disk
        self.backlog = backlog
        self.quotas = QuotasInForce()
        self.is_stopping = False

    def refusal(self, received: Received) -> ProtocolError | None:
        """Return the reason why a request is not taken."""
        request: Any = received.request
        kind, context = type(request), received.context
        if self.is_stopping and kind is not Cancel:
            return ProtocolError(ErrorCode.SHUTTING_DOWN, "the partition is stopping")
        if kind not in _NAMING:
            return None
        if request.partition != self._partition or request.topic != self._topic:
            here = f"{self._topic}/{self._partition}"
            there = f"{request.topic}/{request.partition}"
            return ProtocolError(ErrorCode.UNKNOWN_PARTITION, f"this is {here}, not {there}")
        if kind not in _ADMITTED:
            return self._topic_refusal(request.topic_id) if kind in _REPLICATION else None
        if request.topic_id is not None and request.topic_id != self._topic_id:
            return self._topic_refusal(request.topic_id)
        if context.client_id and not context.is_admitted and self.quotas.limits(context.client_id):
            client = repr(context.client_id[:256])
            message = f"client {client} is under a quota, which the gateway enforces: send the request there"
            return ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, message)
        return None

    def _topic_refusal(self, topic_id: str) -> ProtocolError | None:
        if topic_id == self._topic_id:
            return None
        message = f"{self._topic} was created again: its id is {self._topic_id}"
        return ProtocolError(ErrorCode.UNKNOWN_TOPIC_ID, message, topic_id=self._topic_id)

    def disk_refusal(self, end: LogEnd, now: int) -> tuple[ProtocolError | None, list[Effect]]:
        """Return the reason why nothing is appended now, with the effects of finding out."""
        return self._disk.on_produce(end.bytes, now)

    def produce_refusal(self, end: LogEnd, now: int) -> tuple[ProtocolError | None, list[Effect]]:
        """Return the reason why producers are refused now, with the effects of finding out."""
        refusal, effects = self._disk.on_produce(end.bytes, now)
        if refusal is None:
            refusal, alarm = self.backlog.refusal(end)
            effects += alarm
        return refusal, effects
