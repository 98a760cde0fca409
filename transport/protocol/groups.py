"""The consumer-group API, answered by the group's coordinator. The server makes the assignment (the model is KIP-848).

    group_heartbeat(group, member_id?, generation, topics, owned, max_wait_ms)
        -> member_id, generation, assignment: partitions the member should own now
    commit_offsets(group, member_id, generation, offsets)  -> done            fetch_offsets(group, partitions) -> offsets
    leave_group(group, member_id)                          -> done
    describe_group, list_groups, reset_offsets, delete_group, pause_group, resume_group

A member reports the partitions it owns and receives those it should own. The request is parked until the assignment
changes or `max_wait_ms` have passed. A partition is assigned to its next owner only after the last one has released
it, by a heartbeat without it, or after its session has expired. Joining is a heartbeat without member_id. Commits are
refused unless the member is known, its generation is not ahead, and it may still hold the partition.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .data import Offset, WaitMilliseconds
from .message import InternalRequest, Reply, Request, TopicPartitions
from .shares import ShareDescription
from .transactions import ProducerEpoch, ProducerId

AssignorName = Literal["sticky", "range", "round_robin"]
GroupStateName = Literal["empty", "rebalancing", "stable", "pausing", "paused"]
MAX_SESSION_MS = 1_800_000
MAX_PAUSE_MS = 366 * 24 * 3600 * 1000
MAX_PAUSE_REASON = 500
SessionMilliseconds = Annotated[int, Meta(ge=100, le=MAX_SESSION_MS)]


class GroupHeartbeat(Request, tag="group_heartbeat", frozen=True):
    group: str
    member_id: str | None = None
    """None joins the group; the reply names the member. A member may choose its own id: an unused id with
    generation 0 and topics joins under that id, and repeating it after a lost reply finds the same member."""
    instance_id: str | None = None
    """A static member: keeps its partitions across a restart within the session timeout."""
    generation: int = 0
    """Generation of the member's assignment; 0 when it joins. A heartbeat of an older generation than the member's
    latest assignment is answered at once, and its `owned` releases nothing."""
    topics: list[str] | None = None
    """Subscribed topics: required to join; None keeps the present ones."""
    owned: TopicPartitions | None = None
    """The partitions that the member owns now. None repeats the last report."""
    session_timeout_ms: SessionMilliseconds = 10_000
    """Applies when it joins. Heartbeats are parked for a third of it at most."""
    assignor: AssignorName | None = None
    max_wait_ms: WaitMilliseconds = 0
    client_id: str = ""


class GroupHeartbeatReply(Reply):
    member_id: str
    generation: int
    assignment: TopicPartitions
    """The partitions that the member should own now. It must release its others and report that."""
    heartbeat_interval_ms: int
    """Maximum time until the member's next heartbeat."""


class PartitionOffset(Struct, frozen=True):
    topic: str
    partition: int
    offset: Offset
    metadata: str = ""
    topic_id: str | UnsetType = UNSET
    """Id of the topic that the offset belongs to."""
    reset_epoch: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Number of resets of the group's offsets, or deletions of the group, when the last one affected this
    partition. In a commit both are optional; one of an earlier topic or epoch is refused."""
    leader_epoch: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    """Leader epoch under which the offset was read (data.py). Kept with the offset."""


PartitionOffsets = Annotated[list[PartitionOffset], Meta(max_length=100_000)]


class CommitOffsets(Request, tag="commit_offsets", frozen=True):
    group: str
    offsets: PartitionOffsets
    member_id: str | None = None
    """None: a consumer outside the group; refused while the group has members."""
    generation: int = 0
    """The generation of the last heartbeat's reply. Older than the partition's assignment is STALE_GENERATION."""
    producer_id: ProducerId | None = None
    producer_epoch: ProducerEpoch | None = None
    """Epoch of a transaction (transactions.py): the offsets take effect if and when it commits."""


class CommitOffsetsReply(Reply):
    pass


class FetchOffsets(Request, tag="fetch_offsets", frozen=True):
    group: str
    partitions: TopicPartitions | None = None
    """None requests everything that the group has committed."""
    require_stable: bool = True
    """Refuse with UNSTABLE_OFFSETS while a transaction is about to commit offsets."""


class FetchOffsetsReply(Reply):
    offsets: list[PartitionOffset]
    """Partitions without a committed offset are omitted."""
    reset_epoch: int = 0
    """The epoch of omitted partitions, and of those without one of their own."""
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Ids of the requested topics, as far as the group knows them."""


class MemberGone(InternalRequest, tag="member_gone", frozen=True):
    """Sent by the gateway to a coordinator: the connection of a member of a group or share group is lost. The reply is
    `Done`, unless it is a cast."""

    group: str
    member_id: str
    connection: bytes
    """The name of the connection. The member stays if it has used another one since."""


class LeaveGroup(Request, tag="leave_group", frozen=True):
    group: str
    member_id: str


class ListGroups(Request, tag="list_groups", frozen=True):
    pass


class ListGroupsReply(Reply):
    groups: list[str]


class DescribeGroup(Request, tag="describe_group", frozen=True):
    group: str


class GroupPause(Struct, frozen=True, kw_only=True):
    """An operator's pause of a group."""

    reason: str
    since_ms: int
    """Ms since the epoch."""
    until_ms: int | None
    """Ms since the epoch; None: until it is resumed."""


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
    state: GroupStateName
    """State; a paused group is `pausing` while members hold partitions or records, and then `paused`."""
    generation: int
    assignor: str
    members: list[MemberDescription]
    offsets: list[PartitionOffset]
    type: Literal["consumer", "share"] = "consumer"
    share: ShareDescription | None = None
    """Set for a share group, which has no generation, assignor, members or offsets."""
    paused: GroupPause | None = None


class PauseGroup(Request, tag="pause_group", frozen=True):
    """Take the partitions of a consumer group from its members, and give out no records of a share group.

    The members stay. A pause of a paused group replaces its reason and its end.
    """

    group: str
    reason: Annotated[str, Meta(max_length=MAX_PAUSE_REASON)] = ""
    for_ms: Annotated[int, Meta(ge=1, le=MAX_PAUSE_MS)] | None = None
    """Time after which the group is resumed; None: by `resume_group` alone."""


class ResumeGroup(Request, tag="resume_group", frozen=True):
    """End the pause of a group. Changes nothing if it is not paused."""

    group: str


class ResetOffsets(Request, tag="reset_offsets", frozen=True):
    """Set offsets of a group that has no members, or is paused and whose members hold no partition."""

    group: str
    offsets: PartitionOffsets


class DeleteGroup(Request, tag="delete_group", frozen=True):
    """Delete a group that has no members, with its offsets."""

    group: str
