"""The API group of a cluster's operators, answered by the controller of any node.

cluster_status()                               -> cluster, leading, nodes, partitions, unplaced
change_node(node, action, force)               -> done        when it is in the metadata store
reassign_partitions(moves)                     -> done        the same; the replicas catch up and change afterwards
plan_rebalance()                               -> moves       for reassign_partitions; changes nothing
elect_leader(topic, partition, unclean)        -> done        when the next leader is in the metadata store

Each change is one write, guarded by the state on which it was decided. A broker that is no cluster refuses them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .message import Reply, Request

NodeName = Annotated[str, Meta(min_length=1, max_length=256)]
MOVES_AT_ONCE = 90
"""Maximum number of partitions in one `reassign_partitions`: they are one write."""

NodeState = Literal["alive", "suspected", "down"]
NodeAction = Literal["cordon", "uncordon", "drain", "undrain", "leave"]


class ClusterStatus(Request, tag="cluster_status", frozen=True):
    pass


class NodeReport(Struct, frozen=True, kw_only=True):
    node: str
    state: NodeState
    """`down`: it has no session."""
    endpoint: str | None
    """The endpoint for clients; None while it is down, as the next two."""
    peer_endpoint: str | None
    rack: str | None
    cordoned: bool
    draining: bool
    leaving: bool
    stopping: bool
    """It prepares to stop: its leaders move."""
    stop_refusal: str
    """The reason why it may not be stopped now; empty if it may, or does not run."""
    replicas: int
    leaders: int
    under_replicated: int
    """Its replicas that are not in sync."""


class PartitionReport(Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    replicas: list[str]
    """The first one is the preferred leader."""
    target: list[str]
    """The replicas when the reassignment in progress is done; empty if there is none."""
    leader: str | None
    """None while the partition is offline."""
    leader_epoch: int
    in_sync: list[str]
    """Members of the in-sync set whose nodes are alive."""
    eligible: list[str]
    unclean_epochs: list[int]
    """Leader epochs that began with an unclean election: records committed before may be missing."""
    offline: bool
    under_replicated: bool


class ClusterStatusReply(Reply):
    cluster: str
    node: str
    """The node that has answered."""
    leading: str | None
    """The node whose controller leads."""
    nodes: list[NodeReport]
    partitions: list[PartitionReport]
    unplaced: str
    """The reason why partitions wait for a place, or a leaving node for one for its replicas; empty if none does."""


class ChangeNode(Request, tag="change_node", frozen=True):
    node: NodeName
    action: NodeAction
    force: bool = False
    """Also if partitions would be without their minimum of replicas."""


class PartitionMove(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    topic: str
    partition: int
    replicas: Annotated[list[NodeName], Meta(min_length=1, max_length=64)]
    """Nodes that should hold it; the first is the preferred leader."""


class ReassignPartitions(Request, tag="reassign_partitions", frozen=True):
    moves: Annotated[list[PartitionMove], Meta(min_length=1, max_length=MOVES_AT_ONCE)]


class PlanRebalance(Request, tag="plan_rebalance", frozen=True):
    pass


class PlanRebalanceReply(Reply):
    moves: list[PartitionMove]


class ElectLeader(Request, tag="elect_leader", frozen=True):
    topic: str
    partition: int
    unclean: bool = False
    """Elect a replica that may lack committed records, if no other one is alive."""


CLUSTER_REQUESTS: tuple[type[Request], ...] = (
    ClusterStatus,
    ChangeNode,
    ReassignPartitions,
    PlanRebalance,
    ElectLeader,
)
