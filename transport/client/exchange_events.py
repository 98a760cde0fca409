"""What the exchange and its network say to each other: events in, effects out. Structs only, no behaviour.

event            from                              effect              performed by
Submitted        whoever asks                      Send                the socket
Withdrawn        an owner that is closed           Connect, Disconnect the socket
Wanted           whoever needs to know a topic     Deliver             the owner's machine, or the thread that waits
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
    """Somebody asks."""

    owner: Owner
    ask: Ask


class Withdrawn(Struct, frozen=True):
    """An owner is gone: its asks need no outcome."""

    owner: Owner


class Wanted(Struct, frozen=True):
    """Somebody wants to know about a topic; the directory will."""

    topic: str


class Arrived(Struct, frozen=True, gc=False):
    """A message came in."""

    route: bytes
    header: bytes
    payload: Payload = ()


class Disconnected(Struct, frozen=True):
    """The socket lost a connection, or (`is_refused`) found nobody to connect to and will try again by itself."""

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
    """What the endpoint's host is called in numbers, or why that cannot be told."""

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
    """Hand the owner its Answered or Failed."""

    owner: Owner
    event: Event


class CancelTimers(Struct, frozen=True):
    """Cancel all timers of an owner that is gone."""

    owner: Owner


class CheckLocality(Struct, frozen=True):
    """Find out whether the file `instance` in this directory holds this id; answer with LocalityKnown."""

    run_directory: str
    instance_id: str


class CheckSilence(Struct, frozen=True):
    """Find out for how long no byte has come by a connection; answer with SilenceMeasured if that can be told."""

    endpoint: str


class Resolve(Struct, frozen=True):
    """Look up the host of an endpoint; answer with Resolved, however long that takes."""

    endpoint: str
