"""What every machine takes and gives: events in, effects out, nothing else.

A machine decides. It owns the state of its actor and no socket, file, clock, thread or randomness; the time is handed to
it. The loop (`loop.py`) performs the effects of a turn in this order, and a machine may rely on it:

    1. an actor's own effects (appends, reads, saves) as they are returned;
    2. at the end of the turn, what must be durable is made durable, and the machine hears of it by an event;
    3. only then replies, calls and casts leave the process.

So a Reply returned on hearing that something is durable can never overtake the sync it speaks of.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from .compression import Buffer
from .protocol.control import PeerDown, PeersAsleep, PeerUp
from .protocol.errors import ErrorBody
from .protocol.message import Reply as ReplyBody
from .protocol.message import Request, RequestId
from .protocol.session import Cancel

Payload: TypeAlias = Sequence[Buffer]
Event: TypeAlias = Any
"""Received, Answered, Failed, TimerFired, PeerUp, PeerDown, PeersAsleep, Connected, Disconnected, StopRequested, or an
actor's own."""
Effect: TypeAlias = Any
"""Reply, Call, CancelCall, Cast, SetTimer, CancelTimer, Stop, Sleep, or an actor's own."""


class Machine(Protocol):
    """A state machine: `now` is in milliseconds since the epoch and never steps, whatever the wall clock does."""

    def handle(self, event: Event, now: int) -> list[Effect]: ...


class Sender(Struct, frozen=True):
    """Where a reply goes: the envelope it came in, the asker's id, the asker's encoding."""

    route: tuple[bytes, ...]
    id: RequestId
    is_json: bool = False


class Received(Struct, frozen=True):
    """A peer asked something. `raw` is the header as it came, for those who pass it on."""

    sender: Sender
    request: Request
    payload: Payload = ()
    raw: bytes = b""

    def cancels(self, sender: Sender) -> bool:
        """Whether this, a Cancel, is about the request of this sender."""
        assert isinstance(self.request, Cancel)
        number = self.request.request_id
        return self.sender.route == sender.route and (number is None or number == sender.id)


class Answered(Struct, frozen=True):
    """The reply to a Call: typed as its `reply_type` asked, or the raw header."""

    key: Any
    reply: Any
    payload: Payload = ()


class Failed(Struct, frozen=True):
    """A Call came to nothing: the peer refused, died, was never there or took too long."""

    key: Any
    error: ErrorBody


class Connected(Struct, frozen=True):
    """A connection of the server socket has sent its first message, which follows. Disconnected will follow as well.

    For actors with `follows_hosts`.
    """

    connection: bytes
    host: str
    """The IP address that it comes from; for an `ipc` socket `localhost` with user, group and process."""


class Disconnected(Struct, frozen=True):
    """A connection of the server socket is gone: whoever asked by it waits for no answer.

    For actors with `follows_connections`. `connection` is the first frame of `Sender.route`.
    """

    connection: bytes


class TimerFired(Struct, frozen=True):
    key: Any


class WallClockStepped(Struct, frozen=True):
    """What other clocks are ahead of `now` from here on; before the first of these events it is nothing.

    For actors with `follows_wall_clock`: when the actor becomes ready, and with each step.
    """

    offset_ms: int
    """The time of day."""
    slept_ms: int = 0
    """The clock that goes on while the machine sleeps."""


class StopRequested(Struct, frozen=True):
    """Finish what is at hand before `deadline` and return Stop."""

    deadline: int


class Reply(Struct, frozen=True):
    """Answer a Received. `body` is a reply struct, an ErrorBody, or a raw header from a passed-on call."""

    to: Sender
    body: ReplyBody | ErrorBody | bytes
    payload: Payload = ()


class Call(Struct, frozen=True):
    """Ask another actor; exactly one Answered or Failed with `key` will follow.

    The request goes to the incarnation that is up now; when there is none, or it dies, the call fails at once. An actor
    that sleeps is woken, and the call waits for it; so does a call that an actor had not taken when it fell asleep.
    """

    key: Any
    address: str
    request: Request | bytes
    reply_type: type[ReplyBody] | None = None
    payload: Payload = ()
    timeout_ms: int = 5_000
    token: int | None = None
    """By which CancelCall names it."""


class CancelCall(Struct, frozen=True):
    """Nobody waits for this call any more: the peer is told (`Cancel`), and no outcome follows. Void once it has one."""

    token: int


class Cast(Struct, frozen=True):
    """Tell another actor, without an answer; lost when it is down."""

    address: str
    request: Request
    payload: Payload = ()


class SetTimer(Struct, frozen=True):
    """TimerFired(key) at `at` (ms since the epoch, the clock of `now`). Replaces the timer of the same key."""

    key: Any
    at: int


class CancelTimer(Struct, frozen=True):
    key: Any


class Stop(Struct, frozen=True):
    """End the actor in good order: close, then exit 0."""

    reason: str = ""


class Sleep(Struct, frozen=True):
    """End the actor as Stop does, until somebody calls it.

    The machine must have answered whatever it has done, and must do nothing after this: what it leaves unanswered is
    asked again of its next incarnation.
    """

    reason: str
    wake_after_ms: int | None = None
    """It is started by then though nobody has called."""


__all__ = [
    "Answered",
    "Call",
    "CancelCall",
    "CancelTimer",
    "Cast",
    "Connected",
    "Disconnected",
    "Effect",
    "Event",
    "Failed",
    "Machine",
    "Payload",
    "PeerDown",
    "PeerUp",
    "PeersAsleep",
    "Received",
    "Reply",
    "Sender",
    "SetTimer",
    "Sleep",
    "Stop",
    "StopRequested",
    "TimerFired",
    "WallClockStepped",
]
