"""The role of a partition that is its only replica: it leads, by itself, from its start. Pure; called by the machine.

Its topic may follow one of another broker, and be promoted. Then it leads again, in a later epoch: `mirrored.py` and
`leader.py` are two roles, and one of them does not become the other in the middle of an epoch.
"""

from typing import TypeAlias

from ...transport.machine import Received, Reply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.mirrors import (
    MirrorAppend,
    PromotePartition,
    PromotePartitionReply,
    RejoinPartition,
    SealMirror,
)
from ...transport.protocol.replication import Lead, Member
from ...transport.protocol.topics import ConfigurePartition
from .arguments import PartitionArguments
from .effects import CutLog, OpenedLog
from .leader import Leader
from .mirrored import MirroredLeader
from .roles import Undecided

CHANGES_OF_ROLE = (ConfigurePartition, PromotePartition, RejoinPartition)
"""Requests that may change the role of a partition that leads by itself."""


MirrorRequest: TypeAlias = MirrorAppend | SealMirror | PromotePartition | RejoinPartition


def mirror_refusal(
    arguments: PartitionArguments, role: Undecided, request: MirrorRequest
) -> ProtocolError | None:
    """Return the refusal of a request of a mirror that this partition does not follow, or not any more."""
    known, message = arguments.mirror, ""
    if isinstance(request, MirrorAppend | SealMirror):
        if isinstance(role, Leader) and not arguments.is_mirrored:
            message = f"{arguments.topic} follows no other topic"
    elif isinstance(request, RejoinPartition):
        is_over = known is not None and known.mirror == request.mirror.mirror and known.state != "rejoining"
        if is_over:
            message = f"{arguments.topic} does not rejoin by mirror {request.mirror.mirror!r}"
        elif arguments.leadership == "given" and isinstance(role, Leader) and _takes_producers(role):
            message = "this leader does not know yet that its topic rejoins"
            return ProtocolError(ErrorCode.PARTITION_OFFLINE, message)
    return ProtocolError(ErrorCode.NOT_MIRRORED, message) if message else None


def take_mirror(arguments: PartitionArguments, role: Undecided, request: MirrorRequest) -> bool:
    """Take the state of the topic's mirror that a request has. Return False if the role is left to answer it."""
    if isinstance(request, PromotePartition | RejoinPartition) and arguments.leadership == "own":
        arguments.mirror = request.mirror
    return isinstance(request, PromotePartition) or (
        isinstance(request, RejoinPartition) and must_lead_again(role, arguments)
    )


def own_lead(arguments: PartitionArguments, log: OpenedLog) -> Lead:
    """Return the state of a partition with one replica."""
    return Lead(
        topic=arguments.topic,
        topic_id=arguments.topic_id,
        partition=arguments.partition,
        leader_epoch=log.leader_epoch,
        replicas={arguments.node: arguments.data_id},
        in_sync=(Member(arguments.node, arguments.data_id),),
    )


def must_lead_again(role: Undecided, arguments: PartitionArguments) -> bool:
    """Return True if this partition leads by itself, and not as its topic's mirror demands."""
    is_own = isinstance(role, Leader) and arguments.leadership == "own"
    return is_own and not leads_as_demanded(role, arguments)


def leads_as_demanded(role: Undecided, arguments: PartitionArguments) -> bool:
    """Return True for a leader that takes batches from its topic's mirror alone, if there is one, or from producers.

    One whose log has to be cut first leads in another epoch: no follower of this one then meets a log that is cut.
    """
    is_as_demanded = _takes_producers(role) != arguments.is_mirrored
    return is_as_demanded and not due_cut(role, arguments)


def due_cut(role: Undecided, arguments: PartitionArguments) -> list[CutLog]:
    """Return the removal of records that a fail-back gives up, which precedes a new role; empty if none is due."""
    mirror = arguments.mirror
    cut = None if mirror is None else mirror.cut_of(arguments.partition)
    if cut is None or not cut.is_due(role.log_end_offset):
        return []
    if cut.is_whole:
        return [CutLog(0, is_reset=True)]
    return [CutLog(cut.offset, is_reset=cut.offset < role.watermarks.log_start_offset)]


def _takes_producers(role: Undecided) -> bool:
    return not isinstance(role, MirroredLeader)


def answer_of(received: Received, role: Undecided) -> Reply:
    """Return the answer to a request that has changed the role, or has found it changed."""
    if isinstance(received.request, RejoinPartition):
        error = ProtocolError(ErrorCode.PARTITION_OFFLINE, "the partition no longer accepts producers")
        return Reply(received.sender, error.body)
    if not isinstance(received.request, PromotePartition):
        return Reply(received.sender, Done())
    if isinstance(role, Leader) and not isinstance(role, MirroredLeader):
        return Reply(received.sender, PromotePartitionReply(leader_epoch=role.leader_epoch))
    error = ProtocolError(
        ErrorCode.PARTITION_OFFLINE, "the partition does not lead in an epoch of its own yet"
    )
    return Reply(received.sender, error.body)
