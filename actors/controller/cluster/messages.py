"""The messages between a controller and the replicas of its node. Pure."""

from collections.abc import Mapping

from ....transport.addresses import TopicPartition, partition_address, replica_address
from ....transport.machine import Call, Reply
from ....transport.protocol.errors import ErrorBody, ErrorCode
from ....transport.protocol.replication import (
    Follow,
    Lead,
    ProposeInSyncReply,
    ReplicaReported,
    RoleReply,
)
from ..keys import RoleCall
from .local_replicas import AssignRole
from .machine import InSyncOutcome
from .records import NodeSession, PartitionRecord

ROLE_TIMEOUT_MS = 30_000


def role_call(
    role: AssignRole, sessions: Mapping[str, NodeSession], minimum: int, trusted_until_ms: int
) -> Call:
    """Return the call that gives a replica its role. `minimum` is the topic's `min_in_sync_replicas`."""
    partition, record = role.partition, role.record
    request: Lead | Follow
    if role.is_leader:
        request = Lead(
            topic=partition.topic,
            topic_id=record.topic_id,
            partition=partition.partition,
            leader_epoch=record.leader_epoch,
            replicas={node: sessions[node].data_id if node in sessions else "" for node in record.replicas},
            in_sync=record.in_sync,
            eligible=record.eligible,
            min_in_sync_replicas=minimum,
            stopping=tuple(
                node for node in record.replicas if node in sessions and sessions[node].is_stopping
            ),
            trusted_until_ms=trusted_until_ms,
            unclean_epochs=record.unclean_epochs,
            revision=role.revision,
        )
    else:
        request = Follow(
            topic=partition.topic,
            topic_id=record.topic_id,
            partition=partition.partition,
            leader_epoch=record.leader_epoch,
            leader=record.leader,
            address=partition_address(*partition),
            unclean_epochs=record.unclean_epochs,
            revision=role.revision,
        )
    key = RoleCall(partition, role.incarnation, role.revision)
    return Call(key, replica_address(*partition), request, RoleReply, timeout_ms=ROLE_TIMEOUT_MS)


def reported(
    partition: TopicPartition, record: PartitionRecord, node: str, *, is_up: bool, is_node: bool
) -> ReplicaReported:
    """Return the report to a leader that a replica, or its whole node, is up or down."""
    return ReplicaReported(
        topic=partition.topic,
        topic_id=record.topic_id,
        partition=partition.partition,
        replica=node,
        is_up=is_up,
        is_node=is_node,
    )


def in_sync_reply(outcome: InSyncOutcome) -> Reply:
    """Return the answer to a leader that asked for a change of its in-sync set."""
    present = outcome.present
    if outcome.is_applied is None or present is None:
        error = ErrorBody(ErrorCode.TIMED_OUT, "the metadata store did not answer", True)
        return Reply(outcome.sender, error)
    record = present.record
    reply = ProposeInSyncReply(
        applied=outcome.is_applied,
        leader_epoch=record.leader_epoch,
        in_sync=record.in_sync,
        eligible=record.eligible,
        revision=present.revision,
    )
    return Reply(outcome.sender, reply)
