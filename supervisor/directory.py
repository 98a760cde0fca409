"""Notification of actors that come and go: PeerUp and PeerDown to the children that subscribe to them. Pure.

    by kind        gateway, controller and link need to know every actor: the kinds are in their specs. Such a child
                   receives all that it subscribes to with its first message to the supervisor (its control socket is
                   connected then), the sleeping actors in one message, and each change after that
    by address     all others watch the actors that they call: the present state answers the watch, each change follows

So the number of messages grows with the number of actors that call each other, and not with all pairs. Called by
machine.py.
"""

from collections.abc import Iterable

from ..transport.addresses import Address
from ..transport.protocol.control import Location, PeerDown, PeersAsleep, PeerUp, is_among
from .children import Child
from .events import Tell
from .states import State
from .tree import Tree


def snapshot(tree: Tree, newcomer: Child) -> list[Tell]:
    """Return the whole directory for `newcomer`: actors up, asleep, given up. All others are down."""
    if not newcomer.spec.directory:
        return []
    told: list[Tell] = []
    asleep: list[Address] = []
    for child in tree.among(newcomer.spec.directory):
        if child.state is State.READY:
            told.append(_tell(newcomer, _up(child)))
        elif child.state is State.QUARANTINED:
            told.append(_tell(newcomer, _down(child)))
        elif child.has_slept and child is not newcomer:
            asleep.append(child.address)
    told += [
        _tell(newcomer, peer) for peer in tree.locations if is_among(newcomer.spec.directory, peer.address)
    ]
    return [*told, _tell(newcomer, PeersAsleep(addresses=asleep))] if asleep else told


def state_of(tree: Tree, watcher: Child, address: Address) -> Tell:
    """Return the present state of an actor, for a child that watches it from now on."""
    child = tree.get(address)
    located = tree.locations.state_of(address)
    if child is None and located is not None:
        return _tell(watcher, located)
    if child is None:
        return _tell(watcher, PeerDown(address=address, incarnation=0, reason="there is no such actor"))
    if child.state is State.READY:
        return _tell(watcher, _up(child))
    if child.has_slept and child.state is not State.QUARANTINED:
        return _tell(watcher, PeersAsleep(addresses=[address]))
    return _tell(watcher, _down(child))


def announce_up(tree: Tree, child: Child) -> list[Tell]:
    located = tree.locations.on_up(child.address, child.endpoint)
    return [*_publish(tree, child, _up(child)), *_publish_all(tree, located)]


def announce_down(tree: Tree, child: Child) -> list[Tell]:
    located = tree.locations.on_down(child.address, child.reason or "")
    return [*_publish(tree, child, _down(child)), *_publish_all(tree, located)]


def locate(tree: Tree, locations: Iterable[Location]) -> list[Tell]:
    """Replace locations, and notify of the changes."""
    changes: list[PeerUp | PeerDown] = []
    for location in locations:
        changes += tree.locations.locate(location, lambda address: _endpoint(tree, address))
    return _publish_all(tree, changes)


def announce_removed(tree: Tree, address: Address) -> list[Tell]:
    """Notify of the process that answers for a removed child's address, if it is located elsewhere."""
    return _publish_all(tree, tree.locations.on_removed(address, lambda other: _endpoint(tree, other)))


def _endpoint(tree: Tree, address: Address) -> str | None:
    child = tree.get(address)
    return child.endpoint if child is not None and child.state is State.READY else None


def _up(child: Child) -> PeerUp:
    return PeerUp(address=child.address, incarnation=child.incarnation, endpoint=child.endpoint)


def _down(child: Child) -> PeerDown:
    return PeerDown(
        address=child.address,
        incarnation=child.incarnation,
        reason=child.reason or "",
        quarantined=child.state is State.QUARANTINED,
        asleep=child.has_slept and child.state is not State.QUARANTINED,
    )


def _publish_all(tree: Tree, changes: Iterable[PeerUp | PeerDown]) -> list[Tell]:
    return [_tell(child, news) for news in changes for child in tree.listeners.of(news.address)]


def _publish(tree: Tree, subject: Child, news: PeerUp | PeerDown) -> list[Tell]:
    return [_tell(child, news) for child in tree.listeners.of(subject.address) if child is not subject]


def _tell(child: Child, news: PeerUp | PeerDown | PeersAsleep) -> Tell:
    return Tell(child.address, child.incarnation, news)
