"""The state of actors, as the supervisor's directory reports it to the controller. Pure."""

from ...transport.addresses import Address
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp

NEVER_UP = "it is starting"


class Peers:
    def __init__(self) -> None:
        self._incarnations: dict[Address, int] = {}
        self._reasons: dict[Address, str] = {}
        self.asleep: set[Address] = set()

    def up(self, peer: PeerUp) -> None:
        self._incarnations[peer.address] = peer.incarnation
        self._reasons.pop(peer.address, None)
        self.asleep.discard(peer.address)

    def sleep(self, news: PeersAsleep) -> None:
        self.asleep.update(news.addresses)

    def down(self, peer: PeerDown) -> None:
        if self._incarnations.get(peer.address, peer.incarnation) > peer.incarnation:
            return
        self._incarnations.pop(peer.address, None)
        if peer.asleep:
            self.asleep.add(peer.address)
        else:
            self.asleep.discard(peer.address)
        self._reasons[peer.address] = f"quarantined: {peer.reason}" if peer.quarantined else peer.reason

    def forget(self, address: Address) -> None:
        """Forget an actor that was stopped for good."""
        self._incarnations.pop(address, None)
        self._reasons.pop(address, None)
        self.asleep.discard(address)

    def is_up(self, address: Address) -> bool:
        return address in self._incarnations

    def takes_calls(self, address: Address) -> bool:
        """Return True if the actor is up, or sleeps and is woken by a call."""
        return address in self._incarnations or address in self.asleep

    def all_up(self) -> list[Address]:
        return list(self._incarnations)

    def is_unheard_of(self, address: Address) -> bool:
        """Return True if the actor is neither up nor known to be down: it is starting, or not reported yet."""
        return not self.takes_calls(address) and address not in self._reasons

    def why_down(self, address: Address) -> str:
        return self._reasons.get(address, NEVER_UP)
