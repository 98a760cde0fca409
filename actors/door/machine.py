"""The TLS door's machine: which connections are admitted, and for how long they may take to open. Pure.

    state        meaning                                      left by
    pending      accepted, TLS and greeting not complete      Opened -> open; HANDSHAKE_MS, or too many -> dropped
    open         relayed to the gateway                       the end of either side, of the gateway, or of the door

Limits: `max_connections`, of which one host has half; MAX_PENDING pending ones, of which one host has MAX_HOST_PENDING,
and the rate of handshakes of a host. At a limit of pending connections the oldest one is dropped: a client that opens
its connection needs milliseconds, one that does not is there until its time is over. Called by process.py.

Every CHECK_MS the files of the certificate are looked at.
"""

from collections import Counter

from msgspec import Struct

from ...transport.addresses import Kind
from ...transport.machine import CancelTimer, SetTimer, Stop, StopRequested, TimerFired
from ...transport.protocol.control import PeerDown, PeerUp
from ...transport.security.handshakes import Handshakes
from ...transport.security.vouchers import Voucher
from .effects import (
    Arrived,
    Begin,
    CheckCertificate,
    Drop,
    Effect,
    Ended,
    Event,
    Join,
    Opened,
    Secured,
    Started,
    StopListening,
)

HANDSHAKE_MS = 5_000
MAX_PENDING = 1_024
MAX_HOST_PENDING = 256
HOST_PART = 2
CHECK_MS = 1_000
CHECK = "check"
"""Timer of the next look at the certificate's files."""


class Deadline(Struct, frozen=True):
    """Timer of a pending connection."""

    guest: int


class DoorMachine:
    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._gateway: int | None = None
        """The incarnation that is up."""
        self._hosts: dict[int, str] = {}
        """The host of each connection."""
        self._counts: Counter[str] = Counter()
        self._pending: dict[str, dict[int, None]] = {}
        """Pending connections by host, the oldest first."""
        self._all_pending: dict[int, None] = {}
        self._joined: dict[int, None] = {}
        """Connections that have been connected to the gateway."""
        self._handshakes = Handshakes()
        self._is_stopping = False

    @property
    def connections(self) -> int:
        return len(self._hosts)

    @property
    def pending(self) -> int:
        return len(self._all_pending)

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Started():
                return [SetTimer(CHECK, now + CHECK_MS)]
            case TimerFired(key=key) if key == CHECK:
                return [CheckCertificate(), SetTimer(CHECK, now + CHECK_MS)]
            case Arrived(guest=guest, host=host):
                return self._on_arrived(guest, host, now)
            case Secured():
                return self._on_secured(event)
            case Opened(guest=guest):
                return self._settle(guest)
            case Ended(guest=guest):
                return self._forget(guest)
            case TimerFired(key=Deadline(guest=guest)):
                return self._drop(guest)
            case PeerUp(address=address, incarnation=incarnation) if address.kind == Kind.GATEWAY:
                self._gateway = incarnation
                return []
            case PeerDown(address=address, incarnation=incarnation) if address.kind == Kind.GATEWAY:
                return self._on_gateway_down(incarnation)
            case StopRequested():
                self._is_stopping = True
                dropped = [effect for guest in list(self._hosts) for effect in self._drop(guest)]
                return [StopListening(), *dropped, Stop("asked to stop")]
        return []

    def _on_arrived(self, guest: int, host: str, now: int) -> list[Effect]:
        is_full = len(self._hosts) >= self._max_connections
        is_full |= self._counts[host] >= max(1, self._max_connections // HOST_PART)
        if self._is_stopping or self._gateway is None or is_full or not self._handshakes.take(host, now):
            return [Drop(guest)]
        own = self._pending.get(host, {})
        effects: list[Effect] = []
        if len(own) >= MAX_HOST_PENDING:
            effects = self._drop(next(iter(own)))
        elif len(self._all_pending) >= MAX_PENDING:
            effects = self._drop(next(iter(self._all_pending)))
        self._hosts[guest] = host
        self._counts[host] += 1
        self._pending.setdefault(host, {})[guest] = None
        self._all_pending[guest] = None
        return [*effects, SetTimer(Deadline(guest), now + HANDSHAKE_MS), Begin(guest)]

    def _on_secured(self, event: Secured) -> list[Effect]:
        guest = event.guest
        if self._gateway is None:
            return self._drop(guest)
        self._joined[guest] = None
        voucher = Voucher(event.number, self._hosts[guest], event.principal, event.expires_ms)
        return [Join(guest, self._gateway, voucher)]

    def _on_gateway_down(self, incarnation: int) -> list[Effect]:
        if self._gateway is None or incarnation < self._gateway:
            return []
        self._gateway = None
        # Their connections to it are lost: the clients may as well know at once.
        return [effect for guest in list(self._joined) for effect in self._drop(guest)]

    def _settle(self, guest: int) -> list[Effect]:
        """Count a connection as pending no longer."""
        if guest not in self._all_pending:
            return []
        del self._all_pending[guest]
        host = self._hosts[guest]
        own = self._pending[host]
        del own[guest]
        if not own:
            del self._pending[host]
        return [CancelTimer(Deadline(guest))]

    def _forget(self, guest: int) -> list[Effect]:
        effects = self._settle(guest)
        host = self._hosts.pop(guest)
        self._joined.pop(guest, None)
        self._counts[host] -= 1
        if not self._counts[host]:
            del self._counts[host]
        return effects

    def _drop(self, guest: int) -> list[Effect]:
        return [*self._forget(guest), Drop(guest)]
