"""Notification of actors that come and go: PeerUp and PeerDown to every child whose spec subscribes to them.

A child receives the whole directory with its first message to the supervisor (its control socket is connected then), the
sleeping actors in one message, and each change after that; so it can contact others before it is ready itself. Called by
machine.py. Pure.
"""

from ..transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from .children import Child
from .events import Tell
from .states import State
from .tree import Tree


def snapshot(tree: Tree, newcomer: Child) -> list[Tell]:
    """Return the whole directory for `newcomer`: actors up, asleep, given up. All others are down."""
    if not newcomer.spec.directory:
        return []
    told: list[Tell] = []
    asleep: list[str] = []
    for child in tree.among(newcomer.spec.directory):
        if not _hears_of(newcomer, child):
            continue
        if child.state is State.READY:
            told.append(_tell(newcomer, _up(child)))
        elif child.state is State.QUARANTINED:
            told.append(_tell(newcomer, _down(child)))
        elif child.has_slept and child is not newcomer:
            asleep.append(child.address)
    return [*told, _tell(newcomer, PeersAsleep(addresses=asleep))] if asleep else told


def announce_up(tree: Tree, child: Child) -> list[Tell]:
    return _publish(tree, child, _up(child))


def announce_down(tree: Tree, child: Child) -> list[Tell]:
    return _publish(tree, child, _down(child))


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


def _publish(tree: Tree, subject: Child, news: PeerUp | PeerDown) -> list[Tell]:
    return [_tell(child, news) for child in tree.listeners.of(subject.address) if child is not subject]


def _hears_of(child: Child, other: Child) -> bool:
    return other.address.startswith(child.spec.directory)


def _tell(child: Child, news: PeerUp | PeerDown | PeersAsleep) -> Tell:
    return Tell(child.address, child.incarnation, news)
