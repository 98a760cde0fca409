"""The messages between a controller and the replicas and the supervisor of its node. Pure."""

from msgspec import UNSET

from ....transport.addresses import SUPERVISOR, TopicPartition, partition_address, replica_address
from ....transport.machine import Call, Cast, Reply
from ....transport.protocol.control import AwaitStop, AwaitStopReply, ConcludeStop, StopState
from ....transport.protocol.errors import ErrorBody, ErrorCode
from ....transport.protocol.message import Done
from ....transport.protocol.replication import (
    Follow,
    Lead,
    ProposeInSyncReply,
    ReplicaReported,
    RoleReply,
)
from ...log.epochs import NO_EPOCH
from ..catalog import Catalog, TopicEntry
from ..effects import MakeReplica
from ..keys import ConclusionCall, RoleCall, StopWatch
from ..topics import configuration
from .deciding import Versioned
from .local_replicas import AssignRole
from .machine import Cluster, InSyncOutcome
from .records import Member, NodeSession, PartitionRecord

ROLE_TIMEOUT_MS = 30_000
STOP_WATCH_MS = 3_600_000


def role_call(role: AssignRole, own: NodeSession, cluster: Cluster, catalog: Catalog) -> Call:
    """Return the call that gives a replica of the node `own` its role."""
    partition, record = role.partition, role.record
    sessions = cluster.mirror.sessions
    entry = catalog.topics.get(partition.topic)
    is_known = entry is not None and entry.topic_id == record.topic_id
    mirror = entry.mirror if entry is not None and is_known else UNSET
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
            min_in_sync_replicas=cluster.assignments.minimum(partition.topic),
            stopping=tuple(
                node for node in record.replicas if node in sessions and sessions[node].is_stopping
            ),
            down=tuple(node for node in record.replicas if node not in cluster.live and node != own.node),
            trusted_until_ms=cluster.trusted_until_ms,
            unclean_epochs=record.unclean_epochs,
            mirror=mirror,
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
            is_member=is_member(record, own),
            mirror=mirror,
            revision=role.revision,
        )
    key = RoleCall(partition, role.incarnation, role.revision)
    return Call(key, replica_address(*partition), request, RoleReply, timeout_ms=ROLE_TIMEOUT_MS)


def is_member(record: PartitionRecord, own: NodeSession) -> bool:
    """Return True if the disk of a node is in sync or eligible."""
    return Member(own.node, own.data_id) in (*record.in_sync, *record.eligible)


def files_to_make(
    record: PartitionRecord, own: NodeSession, entry: TopicEntry, partition: int
) -> list[MakeReplica]:
    """Return the order to make the files of a replica; none if those of a member are missing, which were lost then."""
    may_make = record.is_unused or not is_member(record, own)
    return [MakeReplica(entry, partition)] if may_make else []


def used_epoch_of(reply: RoleReply, present: Versioned | None) -> int:
    """Return the epoch that a process knows and its record has not reached, or has reached again; else NO_EPOCH."""
    is_refused = reply.role == "undecided" or reply.highest_leader_epoch > reply.leader_epoch
    used_epoch = reply.highest_leader_epoch if is_refused else NO_EPOCH
    known = (reply.leader_epoch, reply.revision)
    if present is not None and known > (present.record.leader_epoch, present.revision):
        return max(used_epoch, reply.leader_epoch)  # the store is an old copy
    return used_epoch


def reported(
    partition: TopicPartition, record: PartitionRecord, node: str, *, is_up: bool, is_node: bool = True
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


def replica_ended(partition: TopicPartition, record: PartitionRecord, own: str) -> Cast:
    """Return the report to a leader on another node that the process of a replica here has ended.

    It saves time only, and may be lost: the leader also notices that the connection by which this follower's fetch came
    has ended, and the next process of the replica fetches.
    """
    report = reported(partition, record, own, is_up=False, is_node=False)
    return Cast(partition_address(*partition), report)


def configure_replica(
    partition: TopicPartition, present: Versioned | None, own: NodeSession, catalog: Catalog
) -> list[Cast]:
    """Return the message with the topic's configuration to the replica here, if this node has one."""
    entry = catalog.topics.get(partition.topic)
    if present is None or entry is None or entry.topic_id != present.record.topic_id:
        return []
    is_here = own.node in present.record.replicas
    return [Cast(replica_address(*partition), configuration(entry))] if is_here else []


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


def stop_watch(known: StopState) -> Call:
    """Return the long poll of the supervisor, until its stop is no longer in the known state."""
    return Call(StopWatch(), SUPERVISOR, AwaitStop(known=known), AwaitStopReply, timeout_ms=STOP_WATCH_MS)


def conclusion_call(refusal: str) -> Call:
    """Return the outcome of the preparations for a stop, for the supervisor."""
    return Call(ConclusionCall(), SUPERVISOR, ConcludeStop(refusal=refusal), Done)
