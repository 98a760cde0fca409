"""The interface of every machine: events in, effects out, nothing else.

A machine decides. It owns the state of its actor and no socket, file, clock, thread or randomness; the time is passed to
it. The loop (`loop.py`) performs the effects of a turn in this order, and a machine may rely on it:

    1. an actor's own effects (appends, reads, saves) as they are returned;
    2. at the end of the turn, its writes are made durable, and the machine receives an event that confirms them;
    3. only then replies, calls and casts leave the process.

So a Reply returned on such an event can never overtake the sync that it confirms.

LoopEvent and LoopEffect are the closed unions of everything that the loop delivers and performs itself. An actor
declares its own beside them, in its `effects.py`:

    OwnEvent: TypeAlias = Appended | AppendFailed          what its process dispatches
    OwnEffect: TypeAlias = Append | Sync                   what its process performs
    Event: TypeAlias = LoopEvent | OwnEvent                the machine matches it and ends with assert_never
    Effect: TypeAlias = LoopEffect | OwnEffect

An actor without own events or effects uses Never. The keys of its calls and timers are frozen structs of its own, each
of a class of its own, so that no two parts of an actor can take the same key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from .addresses import Address
from .compression import Buffer
from .protocol.control import PeerDown, PeersAsleep, PeerUp
from .protocol.errors import ErrorBody
from .protocol.message import Reply as ReplyBody
from .protocol.message import Request, RequestId
from .protocol.session import Cancel
from .request_context import UNKNOWN, RequestContext

Payload: TypeAlias = Sequence[Buffer]
Event: TypeAlias = Any
"""For machines that do not declare a union of their own yet."""
Effect: TypeAlias = Any
"""For machines that do not declare a union of their own yet."""

EventT_contra = TypeVar("EventT_contra", contravariant=True)
EffectT_co = TypeVar("EffectT_co", covariant=True)


class Machine(Protocol[EventT_contra, EffectT_co]):
    """A state machine. `now` is in milliseconds since the epoch and never steps, whatever the wall clock does."""

    def handle(self, event: EventT_contra, now: int) -> Iterable[EffectT_co]: ...


class Sender(Struct, frozen=True):
    """The destination of a reply: the envelope of the request, the sender's id, the sender's encoding."""

    route: tuple[bytes, ...]
    id: RequestId
    is_json: bool = False
    kind: type[Request] | None = None
    """Type of the request, by which its answer is counted; None if it could not be read."""
    arrived_ns: int = 0
    """Time at which the request was taken up, by the clock of the loop's meters."""

    @property
    def awaits_reply(self) -> bool:
        """Return False for a cast: it has neither an envelope, as the call of another actor has, nor an id."""
        return len(self.route) > 1 or self.id is not None


class Received(Struct, frozen=True):
    """A request of a peer. `raw` is the header as received, for actors that forward it."""

    sender: Sender
    request: Request
    payload: Payload = ()
    raw: bytes = b""
    context: RequestContext = UNKNOWN

    def cancels(self, sender: Sender) -> bool:
        """Return True if this request, a Cancel, withdraws the request of this sender."""
        assert isinstance(self.request, Cancel)
        number = self.request.request_id
        return self.sender.route == sender.route and (number is None or number == sender.id)


class Answered(Struct, frozen=True):
    """The reply to a Call: of its `reply_type`, or the raw header."""

    key: Any
    reply: Any
    payload: Payload = ()


class Failed(Struct, frozen=True):
    """The failure of a Call: the peer refused, died, was never up or timed out."""

    key: Any
    error: ErrorBody


class Connected(Struct, frozen=True):
    """A connection of the server socket has sent its first message, which follows. Disconnected will follow as well.

    For actors with `follows_hosts`.
    """

    connection: bytes
    host: str
    """The peer's IP address; for an `ipc` socket `localhost` with user, group and process."""


class Disconnected(Struct, frozen=True):
    """A connection of the server socket is lost: its requester waits for no reply.

    For actors with `follows_connections`. `connection` is the first frame of `Sender.route`.
    """

    connection: bytes


class TimerFired(Struct, frozen=True):
    key: Any


class WallClockStepped(Struct, frozen=True):
    """The offsets of other clocks from `now`. Before the first of these events they are 0.

    For actors with `follows_wall_clock`: when the actor becomes ready, and with each step.
    """

    offset_ms: int
    """Offset of the time of day."""
    slept_ms: int = 0
    """Offset of the clock that continues while the machine sleeps."""
    ahead_ms: int = 0
    """Time by which a test has moved `now` itself, which no peer could notice."""


class StopRequested(Struct, frozen=True):
    """Finish the work in progress before `deadline` and return Stop."""

    deadline: int
    keeps_place: bool = False
    """Another incarnation follows at once."""


class Reply(Struct, frozen=True):
    """Answer a Received. `body` is a reply struct, an ErrorBody, or a raw header from a forwarded call."""

    to: Sender
    body: ReplyBody | ErrorBody | bytes
    payload: Payload = ()


class Receipt(Struct):
    """Kept by the exchange for the owner of a call: the number of attempts that may have reached the receiver."""

    sends: int = 0
    """Attempts that were passed to the socket and not returned by it."""
    is_kept: bool = False

    @property
    def is_unsent(self) -> bool:
        """Return True if it is certain that no attempt has left."""
        return self.is_kept and self.sends == 0


class Call(Struct, frozen=True, gc=False):
    """Send a request; exactly one Answered or Failed with `key` follows within `timeout_ms`.

    The request goes to the receiver that is up now. If there is none, or it dies, the call fails at once; with
    `is_retried` it is attempted again until the time is over: only for idempotent requests. An actor that sleeps is
    woken, and the call waits for it, as does a call that an actor had not taken when it fell asleep.
    """

    key: Any
    address: Address
    request: Request | bytes
    reply_type: type[ReplyBody] | None = None
    """Type of the reply; None for the raw header."""
    payload: Payload = ()
    timeout_ms: int = 5_000
    is_retried: bool = False
    """True to retry after a retriable refusal or a lost connection."""
    is_endless: bool = False
    """True to retry after every retriable failure, its own timeout included, and to wait for a receiver that is down:
    it fails only when it is refused for good. `timeout_ms` is the time of one attempt."""
    retry_timeout_ms: int | None = None
    """Time after which no further attempt begins: the call fails as soon as none is in flight."""
    has_reply: bool = True
    """False for a message that ends, without an outcome, when it is sent."""
    receipt: Receipt | None = None
    token: Any = None
    """Token by which CancelCall names it, unique among the actor's calls; None if nothing withdraws it."""
    endpoint: str | None = None
    """Endpoint that a client on the broker's machine may use directly, without the gateway."""
    node: str | None = None
    """The node of a cluster whose gateway a client may use, if it is connected to it."""
    context: RequestContext | None = None
    """The context of the request on whose behalf it is made; None for a request of the actor's own."""


class CancelCall(Struct, frozen=True):
    """Withdraw a call: the peer receives `Cancel`, and no outcome follows. Ignored if the call has had its
    outcome."""

    token: Any


class Cast(Struct, frozen=True):
    """Send a message to another actor without expecting a reply; lost when it is down."""

    address: Address
    request: Request | bytes
    payload: Payload = ()
    context: RequestContext | None = None


class SetTimer(Struct, frozen=True):
    """Deliver TimerFired(key) at `at` (ms since the epoch, by the clock of `now`). Replaces the timer of the same
    key."""

    key: Any
    at: int


class CancelTimer(Struct, frozen=True):
    key: Any


class Stop(Struct, frozen=True):
    """End the actor in good order: close, then exit 0."""

    reason: str = ""


class Sleep(Struct, frozen=True):
    """End the actor as Stop does, until it receives a call.

    The machine must have answered everything it has executed, and must do nothing after this: unanswered calls are
    sent again to its next incarnation.
    """

    reason: str
    wake_after_ms: int | None = None
    """Time after which it is started even without a call."""


LoopEvent: TypeAlias = (
    Received
    | Answered
    | Failed
    | TimerFired
    | PeerUp
    | PeerDown
    | PeersAsleep
    | Connected
    | Disconnected
    | WallClockStepped
    | StopRequested
)
LoopEffect: TypeAlias = (
    Reply | Call | CancelCall | Cast | SetTimer | CancelTimer | Stop | Sleep | PeerUp | PeerDown
)
"""PeerUp and PeerDown as effects: a peer on another machine, which the supervisor does not know."""


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
    "LoopEffect",
    "LoopEvent",
    "Machine",
    "Payload",
    "PeerDown",
    "PeerUp",
    "PeersAsleep",
    "Receipt",
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
