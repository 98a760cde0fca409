"""Locations: which process answers for the address of a partition, and for the actors that follow its leader. Pure.

    address                            answered by
    partition/T/N                      the replica that leads T/N, on its node
    coordinator/G                      the coordinator on the node that leads the group's partition of `__offsets`
    transactions/N, scheduler/N        the same, for their partitions of `__transactions` and `__delayed`

A leader is a process that has claimed its epoch, on a node that is alive; until there is one, no process answers. Only
changes are reported, and each address once by each process of the controller: the supervisor may have the locations
of an earlier one. The leader epoch is part of the location of another node, so that a process that replaces one there
is noticed: groups report their progress to it again. A location that is this node's own child is not reported: the
supervisor knows its children.
"""

from collections.abc import Iterable

from ....transport.addresses import Address, TopicPartition, link_address, partition_address, replica_address
from ....transport.protocol.control import Location
from .deciding import Versioned
from .elections import DataIds


class Locations:
    def __init__(self, node: str) -> None:
        self._node = node
        self._link = link_address(node)
        self._reported: dict[Address, Location] = {}

    def forget(self) -> None:
        """Report everything again: the supervisor may not have received it."""
        self._reported.clear()

    def changes(
        self,
        partition: TopicPartition,
        versioned: Versioned | None,
        live: DataIds,
        followers: Iterable[Address],
        *,
        leads_here: bool,
    ) -> list[Location]:
        """Return the locations of a partition and its followers that have changed.

        `leads_here` is True once a process of this node has confirmed that it leads.
        """
        leader = leader_of(versioned, live)
        is_here = leader == self._node
        target = replica_address(*partition)
        version = 0 if versioned is None else versioned.record.leader_epoch
        address = partition_address(*partition)
        locations = [self._location(address, target, leader, version, is_here=is_here and leads_here)]
        for follower in followers:
            if is_here:
                # Its own child answers, or none yet.
                locations.append(Location(address=follower))
            else:
                locations.append(self._location(follower, follower, leader, version, is_here=False))
        changed = []
        for location in locations:
            if self._reported.get(location.address) != location:
                self._reported[location.address] = location
                changed.append(location)
        return changed

    def _location(
        self, address: Address, target: Address, leader: str | None, version: int, *, is_here: bool
    ) -> Location:
        if is_here:
            return Location(address=address, target=target)
        if leader is None or leader == self._node:
            return Location(address=address)
        return Location(address=address, target=target, node=leader, via=self._link, version=version)


def leader_of(versioned: Versioned | None, live: DataIds) -> str | None:
    """Return the node whose process has claimed to lead; None if there is none that is alive."""
    if versioned is None or not versioned.record.claim or versioned.record.leader not in live:
        return None
    return versioned.record.leader
