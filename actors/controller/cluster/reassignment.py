"""Reassignment: the steps by which a partition changes its replicas. Pure.

    step       record                                    next step when               by
    begin      `replicas` are old and new, `target` set  -                            `begun`
    catch up   the same                                  every new one is in sync     `advanced`
    move       the same; `leader` is not in `target`     an in-sync one there leads,  `advanced`
                                                         on a node to avoid only if
                                                         there is no other
    finish     `replicas` are those of `target`          -                            `advanced`

Each step is one guarded write, so it can be interrupted anywhere and continues from the record. A reassignment is
withdrawn by one whose target is the replicas from before.
"""

from collections.abc import Collection, Sequence

import msgspec

from .elections import DataIds, handed_over, still_eligible
from .records import PartitionRecord


def begun(record: PartitionRecord, target: Sequence[str]) -> PartitionRecord:
    """Return the record whose replicas will become `target`; the present ones stay until these are in sync."""
    assert target
    assert len(set(target)) == len(target), target
    replicas = tuple(dict.fromkeys([*record.replicas, *target]))
    return msgspec.structs.replace(record, replicas=replicas, target=tuple(target))


def advanced(
    record: PartitionRecord, live: DataIds, minimum: int, avoid: Collection[str] = ()
) -> PartitionRecord | None:
    """Return the next step's record; None while replicas are still to catch up, or nothing is in progress.

    A node to `avoid` gets the lead only if no other new replica can have it.
    """
    if not record.is_reassigned or not record.in_sync_nodes.issuperset(record.target):
        return None
    if record.leader not in record.target:
        leaving = set(record.replicas) - set(record.target)
        return handed_over(record, live, minimum, avoid=leaving.union(avoid)) or handed_over(
            record, live, minimum, avoid=leaving
        )
    in_sync = tuple(member for member in record.in_sync if member.node in record.target)
    eligible = [member for member in record.eligible if member.node in record.target]
    return msgspec.structs.replace(
        record,
        replicas=record.target,
        target=(),
        in_sync=in_sync,
        eligible=still_eligible(in_sync, eligible, minimum),
    )
