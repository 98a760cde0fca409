"""Locations: addresses for which another process answers, a child of another name or of another node. Pure.

In a cluster the leader of a partition moves between processes and nodes while its address stays. The controller reports
who answers for an address (`locate`), and the directory reports it like a child's.

    state   means                                                       left by
    down    no process, or the child that it needs is not ready         located at a ready child; that child is ready
    up      its child is ready: the target on this node, or the link    located elsewhere, or in another version; that
                                                                        child is down

A location of this node ends with its process: the next process answers only after the controller says so. One of
another node comes back with the link.

A child answers for its own address. A location that is reported while there is such a child, which may be stopping,
takes effect when the child is removed.
"""

from collections.abc import Callable, Iterable, Iterator

from ..transport.addresses import Address
from ..transport.protocol.control import Location, PeerDown, PeerUp

NOWHERE = "no process answers for it now"


class Locations:
    def __init__(
        self, next_incarnation: Callable[[Address], int], is_child: Callable[[Address], bool]
    ) -> None:
        self._next_incarnation = next_incarnation
        self._is_child = is_child
        self._located: dict[Address, Location] = {}
        self._needing: dict[Address, dict[Address, None]] = {}
        """Addresses by the child that they need."""
        self._up: dict[Address, PeerUp] = {}
        self._ended: dict[Address, int] = {}
        """Last incarnation of each address that is down."""

    def __iter__(self) -> Iterator[PeerUp]:
        """Iterate over the addresses that are up."""
        return iter(list(self._up.values()))

    def state_of(self, address: Address) -> PeerUp | PeerDown | None:
        """Return the state of a located address; None for any other."""
        if address in self._up:
            return self._up[address]
        if address in self._located or address in self._ended:
            return PeerDown(address=address, incarnation=self._ended.get(address, 0), reason=NOWHERE)
        return None

    def locate(
        self, location: Location, endpoint_of: Callable[[Address], str | None]
    ) -> list[PeerUp | PeerDown]:
        """Replace a location. `endpoint_of` returns the endpoint of a ready child."""
        address = location.address
        before = self._located.get(address)
        if before == location and address in self._up:
            return []
        if before is not None:
            self._needing[_need(before)].pop(address, None)
        changes: list[PeerUp | PeerDown] = [*self._end(address, "another process answers for it")]
        if location.target is None:
            self._located.pop(address, None)
            return changes
        self._located[address] = location
        self._needing.setdefault(_need(location), {})[address] = None
        return [*changes, *self._begin(location, endpoint_of(_need(location)))]

    def on_up(self, child: Address, endpoint: str | None) -> list[PeerUp | PeerDown]:
        """Report the addresses on other nodes that are reached through this child; it answers for its own."""
        self._up.pop(child, None)  # replaced by the child's own PeerUp
        remote = [self._located[address] for address in self._needing.get(child, ())]
        return [up for location in remote if location.node for up in self._begin(location, endpoint)]

    def on_removed(
        self, child: Address, endpoint_of: Callable[[Address], str | None]
    ) -> list[PeerUp | PeerDown]:
        """Report the process that answers for the address of a removed child."""
        location = self._located.get(child)
        return [] if location is None else [*self._begin(location, endpoint_of(_need(location)))]

    def on_down(self, child: Address, reason: str) -> list[PeerUp | PeerDown]:
        changes: list[PeerUp | PeerDown] = []
        for address in list(self._needing.get(child, ())):
            changes += self._end(address, reason)
            if not self._located[address].node:
                del self._needing[child][address]
                del self._located[address]
        return changes

    def _begin(self, location: Location, endpoint: str | None) -> Iterable[PeerUp]:
        if endpoint is None or location.address in self._up or self._is_child(location.address):
            return
        peer = PeerUp(
            address=location.address,
            incarnation=self._next_incarnation(location.address),
            endpoint=endpoint,
            node=location.node,
            target=location.target,
        )
        self._up[location.address] = peer
        yield peer

    def _end(self, address: Address, reason: str) -> Iterable[PeerDown]:
        peer = self._up.pop(address, None)
        if peer is not None:
            self._ended[address] = peer.incarnation
            yield PeerDown(address=address, incarnation=peer.incarnation, reason=reason)


def _need(location: Location) -> Address:
    """Return the child that has to be ready."""
    needed = location.via if location.node else location.target
    assert needed is not None
    return needed
