"""Messages between an exchange and its surroundings: events in, effects out. Structs only, no behaviour.

event            from                              effect              performed by
Submitted        an owner                          Connect, Disconnect the performer, on the socket
Withdrawn        an owner that is closed           Send                the performer, on the socket
Arrived          the socket                        Deliver             the shell: the owner's machine handles the event
Disconnected     the socket's monitor              CancelTimers        the shell
Undeliverable    a Send that failed                CheckLocality       the shell: looks at the broker's run directory
LocalityKnown    CheckLocality                     CheckSilence        the shell: reads the connection's statistics
SilenceMeasured  CheckSilence                      Resolve             the shell: the system's resolver, in a thread
Resolved         Resolve                           ReadGreeting        the shell: a connection of its own, in a thread
GreetingRead     ReadGreeting
HandshakeFailed  the socket's monitor
Wanted           a user of a topic
PeerUp, PeerDown, PeersAsleep  the supervisor
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from ..machine import Call, Event, Payload
from ..protocol.message import Request
from ..request_context import RequestContext
from .connections import Owner

HandshakeFault: TypeAlias = Literal["refused", "mechanism", "closed"]
"""refused: the broker does not admit the key. mechanism: only one side encrypts. closed: the broker closed the connection
without a reason, as it does if it has another key than the client expects."""


class Submitted(Struct, frozen=True, gc=False):
    """Submit a call. Its outcome is delivered to `owner`."""

    owner: Owner
    call: Call


class Withdrawn(Struct, frozen=True):
    """Withdraw all calls of an owner that is gone: they need no outcome."""

    owner: Owner


class Wanted(Struct, frozen=True):
    """Keep the metadata of a topic in the directory."""

    topic: str


class Arrived(Struct, frozen=True, gc=False):
    """A message was received."""

    route: bytes
    envelope: tuple[bytes, ...]
    header: bytes
    payload: Payload = ()


class Disconnected(Struct, frozen=True):
    """The socket lost a connection, or (`is_refused`) failed to connect and will retry automatically."""

    endpoint: str
    is_refused: bool = False


class HandshakeFailed(Struct, frozen=True):
    """The socket and a broker did not agree on a connection, which ends."""

    endpoint: str
    fault: HandshakeFault


class Undeliverable(Struct, frozen=True):
    """The socket has no such route, or no room for it (`is_full`)."""

    route: bytes
    attempt: int
    is_full: bool = False


class LocalityKnown(Struct, frozen=True):
    instance_id: str
    is_local: bool


class Resolved(Struct, frozen=True):
    """The numeric addresses of the endpoint's host, or the reason why there is none."""

    endpoints: tuple[str, ...] = ()
    fault: str = ""
    endpoint: str = ""
    """The endpoint that was looked up."""
    is_untrusted: bool = False
    """True if one side does not accept the certificate of the other: another attempt changes nothing."""


class GreetingRead(Struct, frozen=True):
    """The mechanism that a broker's greeting names; empty if no greeting came."""

    endpoint: str
    mechanism: str


class SilenceMeasured(Struct, frozen=True):
    endpoint: str
    silence_ms: int


class Connect(Struct, frozen=True):
    route: bytes
    endpoint: str


class Disconnect(Struct, frozen=True):
    endpoint: str


class Send(Struct, frozen=True, gc=False):
    """Send a request. `attempt` identifies the reply; it is 0 for a message without one.

    A raw request travels behind an envelope with the attempt, any other carries it as its id.
    """

    route: bytes
    attempt: int
    request: Request | bytes
    payload: Payload = ()
    has_envelope: bool = False
    is_dropped_when_full: bool = False
    context: RequestContext | None = None
    """Travels in a frame of its own in front of the header."""


class Deliver(Struct, frozen=True, gc=False):
    """Deliver Answered or Failed to the owner."""

    owner: Owner
    event: Event


class CancelTimers(Struct, frozen=True):
    """Cancel all timers of an owner that is gone."""

    owner: Owner


class CheckLocality(Struct, frozen=True):
    """Check that the file `instance` in this directory holds this id. Results in LocalityKnown."""

    run_directory: str
    instance_id: str


class CheckSilence(Struct, frozen=True):
    """Measure the time since the last byte on a connection. Results in SilenceMeasured where that is available."""

    endpoint: str


class Resolve(Struct, frozen=True):
    """Look up the host of an endpoint. Results in Resolved, however long the lookup takes."""

    endpoint: str


class ReadGreeting(Struct, frozen=True):
    """Read the greeting of a broker that closes connections during the handshake. Results in GreetingRead."""

    endpoint: str
