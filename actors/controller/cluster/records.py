"""The values that the metadata store keeps for a cluster, one under each key. Pure.

    key                          value            written by
    controller                   Leader           the controllers, in their sessions (`leadership.py`)
    nodes/<node>                 NodeSession      the node, in its session
    settings/<node>              NodeSettings     any controller, for an operator
    disks/<node>                 DiskRecord       the node (`disk.py`)
    partitions/<topic>/<n>       PartitionRecord  the leading controller, and the controller on the leader's node
    removals/<node>/<topic id>   Removal          the leading controller; removed by the node. The key of one partition
                                                  ends with its number, after a dot

An entry that is put in a session disappears with it.

A PartitionRecord changes only by a write that is guarded by the revision at which its writer read it. So all changes of
one partition form one sequence, and each of them is decided on the result of the change before.
"""

from msgspec import Struct

from ....transport.protocol.replication import Member

__all__ = ["Leader", "Member", "NodeSession", "NodeSettings", "PartitionRecord", "Removal", "process_name"]


class Leader(Struct, frozen=True):
    """The node whose controller leads."""

    node: str
    start_id: str


class NodeSession(Struct, frozen=True, kw_only=True):
    """A node that is running."""

    node: str
    data_id: str
    start_id: str
    """Different for each start of the node."""
    endpoint: str
    """The endpoint for clients, as they reach it."""
    peer_endpoint: str
    """The endpoint for other nodes."""
    rack: str = ""
    is_stopping: bool = False
    """True if it is about to stop: it should lead nothing and be in no in-sync set."""
    protocol: int = 1
    """The newest version of the protocol between nodes that it speaks (`versions.py`)."""
    oldest_protocol: int = 1


class NodeSettings(Struct, frozen=True, kw_only=True):
    """The instructions of operators for a node; they outlive its session."""

    is_cordoned: bool = False
    """True if it gets no new replicas."""
    is_draining: bool = False
    """True if it should lead nothing."""
    is_leaving: bool = False
    """True if it should hold no replica."""


class Removal(Struct, frozen=True):
    """A topic that was deleted, or a partition that was moved to other nodes, while the node was away: it removes the
    files when it returns."""

    topic: str
    partition: int | None = None
    """None: all of the topic."""


DEFAULT_SETTINGS = NodeSettings()


def process_name(start_id: str, incarnation: int) -> str:
    """Return the name of one process of a node, which no other process of any start has."""
    return f"{start_id}/{incarnation}"


class PartitionRecord(Struct, frozen=True, kw_only=True):
    """The replicas of a partition and their roles."""

    topic_id: str = ""
    """The topic that it belongs to: a later one of the same name has records of its own."""
    replicas: tuple[str, ...]
    """Nodes that hold a copy; the first is the preferred leader."""
    target: tuple[str, ...] = ()
    """Replicas that it should have when a reassignment is done; empty if there is none."""
    leader: str
    """Node that leads, or led last."""
    leader_epoch: int = 0
    """Rises with each election and each claim; never repeated."""
    claim: str = ""
    """The process that leads in this epoch (`process_name`); empty after an election, until one has claimed it."""
    in_sync: tuple[Member, ...]
    """Members that have every committed record."""
    eligible: tuple[Member, ...] = ()
    """Members that left the in-sync set while it was below its minimum: nothing has been committed since."""
    relieved: str = ""
    """The last node that gave up the lead because of its slow disk."""
    relieved_ms: int = 0
    """The time at which it did."""
    unclean_epochs: tuple[int, ...] = ()
    """The epochs that began with an unclean election; never removed."""
    is_new: bool = False
    """True until a leader changes the set."""

    @property
    def is_unused(self) -> bool:
        """Return True while nothing can have been committed.

        No process has led, or the replicas of the first record are eligible still: a leader commits nothing then.
        """
        return self.leader_epoch == 0 or (self.is_new and bool(self.eligible))

    @property
    def is_reassigned(self) -> bool:
        """Return True while a reassignment is in progress."""
        return bool(self.target)

    @property
    def in_sync_nodes(self) -> frozenset[str]:
        return frozenset(member.node for member in self.in_sync)
