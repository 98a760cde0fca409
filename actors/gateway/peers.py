"""The directory as the gateway hears it: who is up and where, who is down and why. Pure."""

from ...transport.addresses import topic_of
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp

MAX_DOWN = 20_000
"""Actors remembered as down; the longest known is forgotten first, and then taken for one that starts."""


class Peers:
    def __init__(self) -> None:
        self._up: dict[str, PeerUp] = {}
        self._down: dict[str, PeerDown] = {}
        self._asleep: dict[str, int] = {}
        """The last incarnation of each, as far as it is known."""

    def on_up(self, peer: PeerUp) -> None:
        self._up[peer.address] = peer
        self._down.pop(peer.address, None)
        self._asleep.pop(peer.address, None)

    def on_asleep(self, news: PeersAsleep) -> None:
        self._asleep.update((address, 0) for address in news.addresses if address not in self._up)

    def on_down(self, peer: PeerDown) -> bool:
        """Whether this is news: not of an incarnation that has a successor."""
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
        """The topic is gone: that its partitions are down says nothing of its successor's.

        One that is up stays: it may be the successor's already, and will be reported down otherwise.
        """
        for address in [address for address in self._down if topic_of(address) == topic]:
            del self._down[address]

    def up(self, address: str) -> PeerUp | None:
        return self._up.get(address)

    def takes_calls(self, address: str) -> bool:
        """Whether it is up, or sleeps and is woken by a call."""
        return address in self._up or address in self._asleep

    def next_of_sleeper(self, address: str) -> int | None:
        """The incarnation that a call will wake; None for one that does not sleep."""
        last = self._asleep.get(address)
        return None if last is None else last + 1

    def down(self, address: str) -> PeerDown | None:
        """None for an actor that is up, or that nobody has heard of yet."""
        return self._down.get(address)

    def is_starting(self, address: str) -> bool:
        """Neither up nor known to be down: its first start is not over."""
        return not self.takes_calls(address) and address not in self._down

    def why_down(self, address: str) -> str:
        peer = self._down.get(address)
        if peer is None:
            return f"{address} is starting"
        return f"{address} is {'quarantined' if peer.quarantined else 'down'}: {peer.reason}"
