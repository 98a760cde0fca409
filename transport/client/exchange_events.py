"""Messages between the exchange and its network: events in, effects out. Structs only, no behaviour.

event            from                              effect              performed by
Submitted        an owner                          Send                the socket
Withdrawn        an owner that is closed           Connect, Disconnect the socket
Wanted           a user of a topic                 Deliver             the owner's machine, or the thread that waits
Arrived          the socket                        CheckLocality       a look at the broker's run directory
Disconnected     the socket's monitor              CheckSilence        a look at the connection's statistics
Undeliverable    a Send that failed
LocalityKnown    CheckLocality
SilenceMeasured  CheckSilence                      Resolve             the system's resolver, in a thread of its own
Resolved         Resolve
"""

from msgspec import Struct

from ..protocol.message import Request
from .asking import Ask, Event, Owner, Payload


class Submitted(Struct, frozen=True, gc=False):
    """Submit a request."""

    owner: Owner
    ask: Ask


class Withdrawn(Struct, frozen=True):
    """Withdraw all requests of an owner that is gone: they need no outcome."""

    owner: Owner


class Wanted(Struct, frozen=True):
    """Keep the metadata of a topic in the directory."""

    topic: str


class Arrived(Struct, frozen=True, gc=False):
    """A message was received."""

    route: bytes
    header: bytes
    payload: Payload = ()


class Disconnected(Struct, frozen=True):
    """The socket lost a connection, or (`is_refused`) failed to connect and will retry automatically."""

    endpoint: str
    is_refused: bool = False


class Undeliverable(Struct, frozen=True):
    """The socket has no such route, or no room for it (`is_full`)."""

    route: bytes
    attempt: int
    is_full: bool = False


class LocalityKnown(Struct, frozen=True):
    instance_id: str
    is_local: bool


class Resolved(Struct, frozen=True):
    """The numeric addresses of the endpoint's host, or the reason why the lookup failed."""

    endpoints: tuple[str, ...] = ()
    fault: str = ""


class SilenceMeasured(Struct, frozen=True):
    endpoint: str
    silence_ms: int


class Connect(Struct, frozen=True):
    route: bytes
    endpoint: str


class Disconnect(Struct, frozen=True):
    route: bytes
    endpoint: str


class Send(Struct, frozen=True, gc=False):
    route: bytes
    attempt: int
    request: Request
    payload: Payload = ()


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
