"""Elections: the next record of a partition when its leader is gone, is to move, or is forced by an operator. Pure.

A function takes the present record and returns the next one, or None if the present one should stay. The caller writes
it guarded by the present record's revision.

    leader of the present record        next leader
    has a session                       unchanged; the dead leave the in-sync set by its own proposals
    is gone, an in-sync member lives    the first live in-sync member in the order of `replicas`
    is gone, an eligible member lives   the first live eligible member: it has all that was ever committed
    is gone, only others live           none: the partition is offline until a member returns, or an operator forces it

An election names a node. A process there leads once it has claimed the record (`claimed`), by a second guarded write.

Invariants (`docs/cluster.md` has the argument):

1. The leader epoch of the next record is higher.
2. The next leader is in the present record's `in_sync`, or, if none of these lives, in `eligible`; but for `forced`.
3. Every member of the next `in_sync` and `eligible` was a member of the present `in_sync` or `eligible`.
4. A member stays eligible only while nothing is committed without it: the in-sync set is below its minimum, or nothing
   has ever been committed.
"""

from collections.abc import Collection, Mapping

import msgspec

from .records import Member, PartitionRecord

DataIds = Mapping[str, str]
"""The data id of each node that is alive, by node."""


def is_live(member: Member, live: DataIds) -> bool:
    """Return True if the member's node is alive with the disk that made it a member."""
    return live.get(member.node) == member.data_id


def successor(record: PartitionRecord, live: DataIds, minimum: int) -> PartitionRecord | None:
    """Return the record with a new leader in place of one that is not alive; None if no member can lead.

    `minimum` is the topic's `min_in_sync_replicas`.
    """
    leader = first_live(record, record.in_sync, live) or first_live(record, record.eligible, live)
    return None if leader is None else led_by(record, leader, live, minimum)


def handed_over(
    record: PartitionRecord, live: DataIds, minimum: int, *, avoid: Collection[str]
) -> PartitionRecord | None:
    """Return the record led by an in-sync member that is not on one of these nodes; None if there is none."""
    usable = {node: data_id for node, data_id in live.items() if node not in avoid}
    leader = first_live(record, record.in_sync, usable)
    return None if leader is None else led_by(record, leader, live, minimum)


def without_damaged(
    record: PartitionRecord, live: DataIds, minimum: int, node: str
) -> PartitionRecord | None:
    """Return the record led by another in-sync member than that on `node`, which leaves the set: its log is damaged.

    It stays eligible if the set is below its minimum after that. None if no other one is in sync.
    """
    usable = {each: data_id for each, data_id in live.items() if each != node}
    leader = first_live(record, record.in_sync, usable)
    return None if leader is None else led_by(record, leader, usable, minimum)


def preferred(record: PartitionRecord, live: DataIds, minimum: int) -> PartitionRecord | None:
    """Return the record led by its preferred leader; None if that one leads already, is not in sync or not alive."""
    first = record.replicas[0]
    if record.leader == first:
        return None
    member = next((member for member in record.in_sync if member.node == first), None)
    if member is None or not is_live(member, live):
        return None
    return led_by(record, member, live, minimum)


def forced(record: PartitionRecord, live: DataIds, node: str) -> PartitionRecord:
    """Return the record led by the live replica on this node, in sync or not.

    Committed records may be lost. Only an operator may ask for this, and the record keeps it.
    """
    leader_epoch = record.leader_epoch + 1
    return msgspec.structs.replace(
        record,
        leader=node,
        leader_epoch=leader_epoch,
        claim="",
        in_sync=(Member(node, live[node]),),
        eligible=(),
        is_new=False,
        unclean_epochs=(*record.unclean_epochs, leader_epoch),
    )


def claimed(record: PartitionRecord, process: str, used_epoch: int = 0) -> PartitionRecord:
    """Return the record for a process of its leader's node that begins to lead, above the epochs of its log.

    An epoch belongs to one process. Followers may have read records that an earlier process had not synced, so
    its successor must not append under the same epoch.
    """
    leader_epoch = max(record.leader_epoch, used_epoch) + 1
    return msgspec.structs.replace(record, leader_epoch=leader_epoch, claim=process)


def raised(record: PartitionRecord, used_epoch: int) -> PartitionRecord:
    """Return the record with an epoch that a replica knows, for its leader to claim the next one.

    A store that was restored from an old copy has lower epochs than its replicas, which refuse them.
    """
    return msgspec.structs.replace(record, leader_epoch=max(record.leader_epoch, used_epoch), claim="")


def led_by(record: PartitionRecord, leader: Member, live: DataIds, minimum: int) -> PartitionRecord:
    """Return the record led by this member, without members that are not alive.

    A dead member would hold up every acknowledgement until the new leader had removed it.
    """
    staying = tuple(member for member in record.in_sync if member == leader or is_live(member, live))
    in_sync = staying if leader in staying else (leader,)
    if record.is_unused:
        minimum = len(in_sync) + 1  # nothing has been committed, so no member misses a record
    candidates = [*record.eligible, *(member for member in record.in_sync if member not in in_sync)]
    return msgspec.structs.replace(
        record,
        leader=leader.node,
        leader_epoch=record.leader_epoch + 1,
        claim="",
        in_sync=in_sync,
        eligible=still_eligible(in_sync, candidates, minimum),
    )


def still_eligible(
    in_sync: Collection[Member], candidates: Collection[Member], minimum: int
) -> tuple[Member, ...]:
    """Return the members outside the in-sync set that have every committed record.

    There are none once the set reaches its minimum, because then it may commit without them.
    """
    if len(in_sync) >= minimum:
        return ()
    nodes = {member.node for member in in_sync}
    return tuple(dict.fromkeys(member for member in candidates if member.node not in nodes))


def first_live(record: PartitionRecord, members: Collection[Member], live: DataIds) -> Member | None:
    """Return the live member that comes first in the order of replicas."""
    by_node = {member.node: member for member in members if is_live(member, live)}
    return next((by_node[node] for node in record.replicas if node in by_node), None)
