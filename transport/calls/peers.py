"""The directory of an actor: the incarnations that the supervisor reports as up. Pure.

A call goes to the incarnation that is up when it is made. The first call to an incarnation makes the connection, because
most actors call few of the peers in their directory. Incarnations have endpoints of their own, so no message can reach a
successor by mistake.

    call to a peer that is up        sent
    call to a peer that sleeps       held, and the supervisor wakes the peer
    call to a peer that is down      fails; one that is endless is held
    call to an unreported peer       held, and the supervisor is asked to report it now and at each change: most actors
                                     call few of the others, and only gateway and controller have the whole directory
    peer up                          held calls are sent, in the order they were made
    peer down, asleep                calls in flight were not executed: they are held, and the peer is woken again
    peer down, but asleep before     held calls wait on during the restart, and fail if the peer is quarantined,
                                     except those that are endless
    peer down                        calls in flight fail; peers located there, or behind this link, are down as well

A peer that is located on another node is reached through this node's link: its requests are wrapped (`Relay`), and
all such peers share one connection, also with the link itself. A process that answers for another address is reached on
one connection for both. The connection ends with the last of its addresses: most actors hear of the addresses that
they call, and not of the link or the process at the other end.
"""

from ..addresses import SUPERVISOR, Address, Kind
from ..machine import Effect, Event
from ..protocol.control import EVERYBODY, PeerDown, PeersAsleep, PeerUp, Wake, Watch, is_among
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.message import Request
from .connections import Connection, Connections, InFlight
from .directory import Held, Location, Lost, Refused, Release
from .events import Connect, Send

SUPERVISOR_ROUTE = SUPERVISOR.encode()


class PeerDirectory:
    uses_envelopes = True

    def __init__(
        self, address: Address = SUPERVISOR, incarnation: int = 0, reported: tuple[str, ...] = EVERYBODY
    ) -> None:
        """`reported` are the kinds of the peers that the supervisor reports unasked to this actor."""
        self._address = address
        self._incarnation = incarnation
        self._reported = reported
        self._watched: set[Address] = set()
        self._unanswered: set[Address] = set()
        """Watched peers that the supervisor has not reported yet."""
        self._connections: Connections
        self._held: Held
        self._supervisor = Connection(SUPERVISOR_ROUTE, SUPERVISOR)
        self._peers: dict[Address, PeerUp] = {}
        self._located: dict[str, dict[Address, None]] = {}
        """Addresses for which another process answers, by the endpoint of that process, or of the link."""
        self._newest: dict[Address, int] = {}
        self._asleep: set[Address] = set()
        """Actors that sleep, or have been woken and are not up yet."""

    def attach(self, connections: Connections, held: Held) -> None:
        self._connections = connections
        self._held = held
        connections.add(self._supervisor)

    def start(self, now: int) -> list[Effect]:
        return []

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case PeerUp():
                return self._on_up(event)
            case PeerDown():
                return self._on_down(event)
            case PeersAsleep(addresses=addresses):
                return self._on_asleep(addresses)
        raise AssertionError(f"no such event: {event!r}")

    def _on_asleep(self, addresses: list[Address]) -> list[Effect]:
        asleep = [address for address in addresses if address not in self._peers]
        self._asleep.update(asleep)
        self._unanswered.difference_update(addresses)
        return [
            Send(SUPERVISOR_ROUTE, 0, Wake(address=address)) for address in asleep if address in self._held
        ]

    def _on_up(self, peer: PeerUp) -> list[Effect]:
        """Record a new incarnation. Calls to an older one whose end was not reported fail."""
        if peer.node and self._address.kind == Kind.LINK:
            return []  # two links with different views must not pass a request back and forth
        if peer.incarnation <= self._newest.get(peer.address, 0):
            return []
        self._newest[peer.address] = peer.incarnation
        self._unanswered.discard(peer.address)
        older = self._remove(peer.address)
        if peer.endpoint is not None:
            self._peers[peer.address] = peer
            if peer.target is not None:
                self._located.setdefault(peer.endpoint, {})[peer.address] = None
            self._asleep.discard(peer.address)
        effects = self._end(older, "replaced by a newer incarnation") if older is not None else []
        return [*effects, Release(peer.address)]

    def _on_down(self, down: PeerDown) -> list[Effect]:
        known = self._peers.get(down.address)
        if known is None:
            return self._on_still_down(down)
        if known.incarnation > down.incarnation:
            return []
        self._remove(down.address)
        if down.asleep:
            self._asleep.add(down.address)
            return self._end(known, "asleep", is_unexecuted=True)
        return self._end(known, f"died: {down.reason}")

    def _on_still_down(self, down: PeerDown) -> list[Effect]:
        """Handle a change of an actor that was not up: it was added asleep, or the start that should wake it has
        failed."""
        is_first = down.address in self._unanswered
        self._unanswered.discard(down.address)
        if is_first and not down.asleep:
            return [
                Refused(_unavailable(down.address, f"is not running: {down.reason}"), address=down.address)
            ]
        if down.asleep:
            if down.incarnation < self._newest.get(down.address, 0):
                return []
            return [] if down.address in self._asleep else self._on_asleep([down.address])
        if down.quarantined:
            self._asleep.discard(down.address)
            return [Refused(_unavailable(down.address, down.reason), address=down.address)]
        if down.address not in self._held:
            self._asleep.discard(down.address)
        return []

    def _remove(self, address: Address) -> PeerUp | None:
        peer = self._peers.pop(address, None)
        if peer is not None and peer.target is not None and peer.endpoint is not None:
            located = self._located[peer.endpoint]
            del located[address]
            if not located:
                del self._located[peer.endpoint]
        return peer

    def _end(self, peer: PeerUp, reason: str, *, is_unexecuted: bool = False) -> list[Effect]:
        if peer.endpoint is None:
            return []
        if peer.target is None:
            # No actor is reached through it now. The supervisor reports that next; calls are attempted again before.
            for address in list(self._located.get(peer.endpoint, ())):
                self._remove(address)
        connection = self._connections.at(peer.endpoint)
        if connection is None:
            return []
        # A located peer shares the connection of others: its own process, the link, those that are located there, too.
        lost = peer.address if peer.target and self._is_used(peer.endpoint) else None
        return [Lost(connection, _unavailable(peer.address, reason), is_unexecuted, lost)]

    def _is_used(self, endpoint: str) -> bool:
        if endpoint in self._located:
            return True
        return any(known.endpoint == endpoint for known in self._peers.values())

    def locate(self, pending: InFlight, now: int) -> tuple[Location, list[Effect]]:
        address = pending.call.address
        connection, effects = self.connection_to(address)
        if connection is not None:
            return connection, effects
        if address in self._unanswered:
            return None, []
        if address not in self._asleep:
            if is_among(self._reported, address) or address in self._watched:
                if pending.call.is_endless:
                    return None, []
                return _unavailable(address, "is not running"), []
            self._watched.add(address)
            self._unanswered.add(address)
            watch = Watch(address=self._address, incarnation=self._incarnation, peer=address)
            return None, [Send(SUPERVISOR_ROUTE, 0, watch)]
        if address in self._held:
            return None, []
        return None, [Send(SUPERVISOR_ROUTE, 0, Wake(address=address))]

    def connection_to(self, address: Address) -> tuple[Connection | None, list[Effect]]:
        if address == SUPERVISOR:
            return self._supervisor, []
        peer = self._peers.get(address)
        if peer is None or peer.endpoint is None:
            return None, []
        connection = self._connections.at(peer.endpoint)
        effects: list[Effect] = []
        if connection is None:
            connection = self._connections.new(peer.endpoint)
            effects.append(Connect(connection.route, connection.endpoint))
        if peer.node:
            assert peer.target is not None
            connection.relays[address] = (peer.node, peer.target)
        return connection, effects

    def addressed(self, attempt: int, connection: Connection, request: Request) -> Request:
        return request

    def on_lost(self, connection: Connection, now: int) -> list[Effect]:
        return []

    def on_refusal(
        self, pending: InFlight, connection: Connection, error: ErrorBody, now: int
    ) -> list[Effect]:
        return []

    def reconnects(self, connection: Connection) -> bool:
        return True

    def absence(self, pending: InFlight) -> str:
        if not pending.is_held:
            return ""
        is_unknown = pending.call.address in self._unanswered
        return "the supervisor has not reported it" if is_unknown else "it is asleep"


def _unavailable(address: Address, reason: str) -> ErrorBody:
    code = ErrorCode.ACTOR_UNAVAILABLE if address.topic is None else ErrorCode.PARTITION_OFFLINE
    return ErrorBody(code, f"{address} {reason}", True)
