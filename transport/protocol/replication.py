"""The replication API group: between the replicas of a partition, and between a partition and its node's controller.

    C: lead(leader_epoch, replicas, in_sync, ..., revision) | follow(leader_epoch, leader, address, revision)
    P: the role that the partition now has
    P: relieve_leader(leader_epoch, successors)          C: done: another one leads                     a leader's
    P: confirm_session()                                 C: trusted_until_ms                            a leader's
    P: propose_in_sync(in_sync, eligible, revision)      C: applied, or the state that is there        the leader's
    C: replica_reported(replica, is_up, is_node)         a cast to the leader
    C: report_log_end()                                  P: last_epoch, log_end_offset                     in any role

    F: replica_fetch(leader_epoch, fetch_offset, last_epoch, durable_offset)        parked at the end of the log
    L: high_watermark, log_start_offset, diverging | null   + batch frames, as they are on the leader's disk
    F: replica_durable(durable_offset)                   a cast: a sync has returned while the fetch is parked
    F: reach_leader(leader_epoch)                        L: the endpoint of the leader's own process for other nodes

C controller, P partition, L leader, F follower. `lead` and `follow` describe a state, not a change: the controller may
repeat them at any time, and a partition ignores one that is older, by leader epoch and then revision, than the newest
that it has received. One with a leader epoch that was ever used in the log is not taken: the reply names the highest.
Nor is one in which a partition would begin, or end, to follow a mirror in the epoch that it has, or would lead below the
first epoch of a promoted one: the reply names an epoch that the next one has to exceed.
A fetch under another leader epoch than the leader's is refused: FENCED_LEADER_EPOCH if it is lower, else
UNKNOWN_LEADER_EPOCH. A fetch below the log's start is refused with OFFSET_OUT_OF_RANGE and the start as `next_offset`:
the follower starts again there. All of them are internal: no client may send one. A follower sends its requests through
the links, and straight to the leader's process once that has answered `reach_leader` at the endpoint which it names.
"""

from typing import Annotated, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from ..addresses import Address
from .data import WaitMilliseconds
from .message import InternalRequest, PeerRequest, Reply
from .mirrored import Cut, TopicMirror

LeaderEpoch = Annotated[int, Meta(ge=0)]
Role = Literal["undecided", "leader", "follower"]


class Member(NamedTuple):
    """One copy of a partition that counts: the node and its data directory. An empty disk is another member."""

    node: str
    data_id: str


class Lead(InternalRequest, tag="lead", frozen=True):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: LeaderEpoch
    replicas: dict[str, str]
    """The nodes with a replica, and the id of the data directory that each has now; empty while it is unknown."""
    in_sync: tuple[Member, ...]
    eligible: tuple[Member, ...] = ()
    min_in_sync_replicas: Annotated[int, Meta(ge=1)] = 1
    stopping: tuple[str, ...] = ()
    """Nodes with a replica that are about to stop: they leave the set beforehand."""
    down: tuple[str, ...] = ()
    """Other nodes with a replica that are suspected, or have no session."""
    trusted_until_ms: int = 0
    """As in `confirm_session`."""
    unclean_epochs: tuple[int, ...] = ()
    """Leader epochs that began with an unclean election: records committed before may be missing."""
    mirror: TopicMirror | UnsetType | None = UNSET
    """The topic's, None if it follows no other; left out where the controller does not know the topic."""
    revision: int = 0
    """Revision of the partition's state in the metadata store: the guard of the leader's next proposal."""


class Follow(InternalRequest, tag="follow", frozen=True):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: LeaderEpoch
    leader: str
    """The leader's node."""
    address: Address
    """The actor that takes the follower's requests; the directory knows the node that answers."""
    unclean_epochs: tuple[int, ...] = ()
    """As in `lead`: a follower with records of an earlier epoch cuts them, also committed ones."""
    is_member: bool = True
    """True if this replica is in sync or eligible: what it has may be needed."""
    mirror: TopicMirror | UnsetType | None = UNSET
    revision: int = 0


class LogDamaged(InternalRequest, tag="log_damaged", frozen=True):
    """A leader cannot read a part of its log: another in-sync replica should lead. The reply is `Done`."""

    topic: str
    topic_id: str
    partition: int


class RoleReply(Reply):
    role: Role
    leader_epoch: int
    revision: int
    """Leader epoch and revision of the newest `lead` or `follow` that the partition has received."""
    highest_leader_epoch: int
    """A leader of this partition needs a higher one."""


class ReportLogEnd(InternalRequest, tag="report_log_end", frozen=True):
    topic: str
    topic_id: str
    partition: int


class LogEndReply(Reply):
    last_epoch: int
    """Leader epoch of the log's last batch, -1 without batches."""
    log_end_offset: int


class RelieveLeader(InternalRequest, tag="relieve_leader", frozen=True):
    """The leader's disk is slow, and those of these replicas are not: let one of them lead."""

    topic: str
    partition: int
    leader_epoch: LeaderEpoch
    successors: tuple[str, ...]


class ConfirmSession(InternalRequest, tag="confirm_session", frozen=True):
    """Ask until when the session of this node certainly lives."""


class ConfirmSessionReply(Reply):
    trusted_until_ms: int
    """By CLOCK_BOOTTIME, with a margin. It lies in the past while etcd has not answered for a while."""


class ProposeInSync(InternalRequest, tag="propose_in_sync", frozen=True):
    topic: str
    topic_id: str
    partition: int
    leader: str
    leader_epoch: int
    in_sync: tuple[Member, ...]
    eligible: tuple[Member, ...]
    revision: int
    """The change is made only if the partition's state still has this revision."""


class ProposeInSyncReply(Reply):
    applied: bool
    leader_epoch: int
    in_sync: tuple[Member, ...]
    eligible: tuple[Member, ...]
    revision: int
    """The state of the partition after the request, whether it was applied or not."""


class ReplicaReported(InternalRequest, tag="replica_reported", frozen=True):
    """The process of a replica has ended, or the link to its node is silent; or it is back.

    The reply of a leader is `Done`, unless it is a cast."""

    topic: str
    topic_id: str
    partition: int
    replica: str
    is_up: bool
    is_node: bool = False
    """True if its whole node is taken for dead: no process there will be back soon."""


class ReplicaFetch(PeerRequest, tag="replica_fetch", frozen=True):
    topic: str
    topic_id: str
    partition: int
    replica: str
    data_id: str
    leader_epoch: LeaderEpoch
    fetch_offset: Annotated[int, Meta(ge=0)]
    """The end of the follower's log."""
    last_epoch: int
    """Leader epoch of its last batch, -1 without batches."""
    durable_offset: int
    """Everything below it survives a power failure there, as far as the topic's flush policy requires."""
    sync_ms: int | None = None
    """The duration of the sync that has just returned, if one has."""
    max_bytes: Annotated[int, Meta(ge=1)] = 1024 * 1024
    max_wait_ms: WaitMilliseconds = 30_000


class Diverging(Struct, frozen=True):
    """The end of the part that the two logs share: the leader's log has no later batch of an epoch up to `epoch`."""

    epoch: int
    end_offset: int
    given_up: tuple[Cut, ...] = ()
    """Fail-backs by which the follower may lose committed records: the leader's log was cut by them."""


class ReplicaFetchReply(Reply):
    leader_epoch: int
    high_watermark: int
    log_start_offset: int
    diverging: Diverging | None = None


class ReplicaDurable(PeerRequest, tag="replica_durable", frozen=True):
    topic: str
    topic_id: str
    partition: int
    replica: str
    data_id: str
    leader_epoch: LeaderEpoch
    durable_offset: int
    sync_ms: int = 0
    """The duration of the sync."""


class ReachLeader(PeerRequest, tag="reach_leader", frozen=True):
    """Ask where the leader's process takes requests of other nodes, or, there, whether it is reached."""

    topic: str
    topic_id: str
    partition: int
    leader_epoch: LeaderEpoch


class ReachLeaderReply(Reply):
    endpoint: str
    """Empty: it has none."""


REQUESTS_TO_REPLICA: tuple[type[InternalRequest], ...] = (
    Follow,
    Lead,
    ReachLeader,
    ReplicaDurable,
    ReplicaFetch,
    ReplicaReported,
    ReportLogEnd,
)
