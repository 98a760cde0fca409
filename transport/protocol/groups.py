"""The group dialog, answered by the group's coordinator. The assignment is the server's (the model is KIP-848).

    group_heartbeat(group, member_id?, generation, topics, owned, max_wait_ms)
        -> member_id, generation, assignment: what the member should own now
    commit_offsets(group, member_id, generation, offsets)  -> done            fetch_offsets(group, partitions) -> offsets
    leave_group(group, member_id)                          -> done
    describe_group, list_groups, reset_offsets, delete_group

A member says what it owns and is told what it should own; the request is parked until that changes or `max_wait_ms`
have passed. A partition goes to its next owner only after the last one said, by a heartbeat without it, that it let
go, or after its session has expired. Joining is a heartbeat without member_id. Commits are refused unless the member
is known, its generation is not ahead, and it may still hold the partition.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .data import Offset, WaitMilliseconds
from .message import Reply, Request, TopicPartitions
from .shares import ShareDescription
from .transactions import ProducerEpoch, ProducerId

AssignorName = Literal["sticky", "range", "round_robin"]
MAX_SESSION_MS = 1_800_000
SessionMilliseconds = Annotated[int, Meta(ge=100, le=MAX_SESSION_MS)]


class GroupHeartbeat(Request, tag="group_heartbeat", frozen=True):
    group: str
    member_id: str | None = None
    """None joins the group; the reply names the member. A member may name itself instead: an unused name with generation
    0 and topics joins under that name, and repeating it after a lost answer finds the same member again."""
    instance_id: str | None = None
    """A static member: keeps its partitions over a restart within the session timeout."""
    generation: int = 0
    """The generation of the assignment the member has; 0 when it joins. A heartbeat of an older one than the member's
    latest assignment is answered at once, and what it says of `owned` releases nothing."""
    topics: list[str] | None = None
    """Subscribed topics: needed to join, None leaves them as they are."""
    owned: TopicPartitions | None = None
    """What the member holds at this moment; None stands for what it said last."""
    session_timeout_ms: SessionMilliseconds = 10_000
    """Counts when it joins. Heartbeats are parked for a third of it at most."""
    assignor: AssignorName | None = None
    max_wait_ms: WaitMilliseconds = 0
    client_id: str = ""


class GroupHeartbeatReply(Reply):
    member_id: str
    generation: int
    assignment: TopicPartitions
    """What the member should own now. What it owns beyond that, it must let go of and say so."""
    heartbeat_interval_ms: int
    """The longest the member should let pass until its next heartbeat."""


class PartitionOffset(Struct, frozen=True):
    topic: str
    partition: int
    offset: Offset
    metadata: str = ""
    topic_id: str | UnsetType = UNSET
    """Which topic of this name the offset belongs to."""
    reset_epoch: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """How often the group's offsets had been reset, or the group deleted, when this partition was last affected. In a
    commit both are optional; one of an earlier topic or epoch is refused."""
    leader_epoch: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Of the partition's start that the offset was read from (data.py): kept with the offset."""


PartitionOffsets = Annotated[list[PartitionOffset], Meta(max_length=100_000)]


class CommitOffsets(Request, tag="commit_offsets", frozen=True):
    group: str
    offsets: PartitionOffsets
    member_id: str | None = None
    """None: a free-standing consumer; refused while the group has members."""
    generation: int = 0
    """The generation of the last heartbeat's reply; older than the partition's grant is STALE_GENERATION."""
    producer_id: ProducerId | None = None
    producer_epoch: ProducerEpoch | None = None
    """Of a transaction (transactions.py): the offsets take effect if and when it commits."""


class CommitOffsetsReply(Reply):
    pass


class FetchOffsets(Request, tag="fetch_offsets", frozen=True):
    group: str
    partitions: TopicPartitions | None = None
    """None asks for everything the group has committed."""
    require_stable: bool = True
    """Refused with UNSTABLE_OFFSETS while a transaction is about to move the offsets."""


class FetchOffsetsReply(Reply):
    offsets: list[PartitionOffset]
    """Partitions without a committed offset are left out."""
    reset_epoch: int = 0
    """Of the partitions that are left out, and of those for which none stands here."""
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Of the topics asked for, as far as the group knows them."""


class LeaveGroup(Request, tag="leave_group", frozen=True):
    group: str
    member_id: str


class ListGroups(Request, tag="list_groups", frozen=True):
    pass


class ListGroupsReply(Reply):
    groups: list[str]


class DescribeGroup(Request, tag="describe_group", frozen=True):
    group: str


class MemberDescription(Struct, kw_only=True):
    member_id: str
    instance_id: str | None
    client_id: str
    topics: list[str]
    generation: int
    assignment: TopicPartitions
    owned: TopicPartitions


class DescribeGroupReply(Reply):
    group: str
    state: Literal["empty", "rebalancing", "stable"]
    generation: int
    assignor: str
    members: list[MemberDescription]
    offsets: list[PartitionOffset]
    type: Literal["consumer", "share"] = "consumer"
    share: ShareDescription | None = None
    """Of a share group; it has no generation, assignor, members or offsets."""


class ResetOffsets(Request, tag="reset_offsets", frozen=True):
    """Set offsets of a group that has no members."""

    group: str
    offsets: PartitionOffsets


class DeleteGroup(Request, tag="delete_group", frozen=True):
    """Forget a group that has no members, offsets included."""

    group: str
