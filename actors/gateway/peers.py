"""The gateway's copy of the directory: the endpoints of actors that are up, and the reasons of those that are down.
Pure."""

from ...transport.addresses import Address
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp

MAX_DOWN = 20_000
"""Actors remembered as down; beyond it the oldest entry is dropped, and that actor counts as starting."""


class Peers:
    def __init__(self) -> None:
        self._up: dict[Address, PeerUp] = {}
        self._down: dict[Address, PeerDown] = {}
        self._asleep: dict[Address, int] = {}
        """The last known incarnation of each sleeping actor."""

    def on_up(self, peer: PeerUp) -> None:
        self._up[peer.address] = peer
        self._down.pop(peer.address, None)
        self._asleep.pop(peer.address, None)

    def on_asleep(self, news: PeersAsleep) -> None:
        self._asleep.update((address, 0) for address in news.addresses if address not in self._up)

    def on_down(self, peer: PeerDown) -> bool:
        """Record the report; return False for an incarnation that already has a successor."""
        known = self._up.get(peer.address)
        if known is not None and known.incarnation > peer.incarnation:
            return False
        self._up.pop(peer.address, None)
        self._down.pop(peer.address, None)
        self._asleep.pop(peer.address, None)
        if peer.asleep:
            self._asleep[peer.address] = peer.incarnation
            return True
        self._down[peer.address] = peer
        if len(self._down) > MAX_DOWN:
            del self._down[next(iter(self._down))]
        return True

    def forget_down(self, topic: str) -> None:
        """Forget that a deleted topic's partitions are down, which does not apply to its successor's.

        A partition that is up stays: it may already be the successor's, and will be reported down otherwise.
        """
        for address in [address for address in self._down if address.topic == topic]:
            del self._down[address]

    def up(self, address: Address) -> PeerUp | None:
        return self._up.get(address)

    def takes_calls(self, address: Address) -> bool:
        """Return True if the actor is up, or sleeps and is woken by a call."""
        return address in self._up or address in self._asleep

    def next_of_sleeper(self, address: Address) -> int | None:
        """Return the incarnation that a call will wake; None for an actor that does not sleep."""
        last = self._asleep.get(address)
        return None if last is None else last + 1

    def down(self, address: Address) -> PeerDown | None:
        """Return None for an actor that is up, or not reported yet."""
        return self._down.get(address)

    def is_starting(self, address: Address) -> bool:
        """Return True if the actor is neither up nor known to be down: its first start is not over."""
        return not self.takes_calls(address) and address not in self._down

    def why_down(self, address: Address) -> str:
        peer = self._down.get(address)
        if peer is None:
            return f"{address} is starting"
        return f"{address} is {'quarantined' if peer.quarantined else 'down'}: {peer.reason}"
