"""The process around a machine, without its sockets: the actor's context, and the methods that its loop calls.

Owns the actor's own effects and its durability at the end of a turn. Must never decide, send or receive: `Turns`
calls it, in the loop of a real process and in simulations alike.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from .addresses import Address
from .codec import RequestDecoder
from .endpoints import endpoint_for
from .machine import LoopEffect, LoopEvent, Machine
from .origin import Origin
from .protocol.control import EVERYBODY
from .protocol.groups import GroupPause
from .protocol.message import Request
from .protocol.operations import NO_RETRIES, Durations, GroupReport, InFlight, LogReport, RetryReport
from .security.keys import ClientKeys, KeyPair, ServerKeys
from .security.vouchers import Vouchers

if TYPE_CHECKING:
    from .turns import Turns


KindT = TypeVar("KindT", bound=type[msgspec.Struct])
OwnEventT = TypeVar("OwnEventT")
OwnEffectT = TypeVar("OwnEffectT")


def built_early(kind: KindT) -> KindT:
    """Have msgspec inspect a type when its module is loaded: once, before the fork, and not in each actor."""
    msgspec.msgpack.Decoder(kind)
    return kind


class ActorContext(msgspec.Struct, kw_only=True):
    """The values with which a child starts."""

    address: Address
    incarnation: int
    arguments: dict[str, Any]
    run_directory: str
    data_directory: str
    control_endpoint: str
    instance_id: str
    secret: bytes = b""
    """Known to the actors of this broker alone; it marks the contexts of their requests (`request_context.py`)."""
    is_secured: bool = False
    """True if clients need a principal: then only the gateway serves them."""
    directory: tuple[str, ...] = EVERYBODY
    """Kinds of the peers that the supervisor reports unasked; others are watched when they are called."""
    heartbeat_interval_ms: int = 500
    hang_timeout_ms: int = 5_000
    """Time without an answer after which the supervisor hangs, for actors that need it."""
    clock: Origin | None = None
    """Origin of the broker's steady clock, the same for all its actors. None makes one for this actor."""
    parent_sentinel: int | None = None
    """A file descriptor that becomes readable when the supervisor has ended."""
    last_end: str | None = None
    """Exit of the previous incarnation. None for the first, and after a restart of the supervisor."""


class PeerDoor(msgspec.Struct, frozen=True):
    """A further endpoint of an actor, for other nodes."""

    endpoint: str
    keys: KeyPair | None
    """Keys that both sides of a connection must have, to this endpoint and to those of other nodes; None: none."""

    @property
    def client_keys(self) -> ClientKeys | None:
        return None if self.keys is None else ClientKeys(self.keys, self.keys.public_key)


class Actor(Generic[OwnEventT, OwnEffectT]):
    """The process around a machine: subclass it, set `machine`, and perform the actor's own effects."""

    requests: ClassVar[tuple[type[Request], ...]] = ()
    """Requests that the server socket accepts; the loop refuses others."""
    follows_connections: ClassVar[bool] = False
    """True if the machine receives `Disconnected` for lost connections."""
    follows_hosts: ClassVar[bool] = False
    """True if the machine also receives `Connected` with the host of each new connection."""
    ready_by_itself: ClassVar[bool] = False
    """True if the actor calls `Loop.ready` itself, instead of being ready when `start` returns."""
    follows_wall_clock: ClassVar[bool] = False
    """True if the machine receives `WallClockStepped` with the offset of the wall clock from `now`."""
    is_prompt: ClassVar[bool] = False
    """True if no message of the machine waits for `end_turn`: the first ones of a turn then leave when they are made."""
    is_death_accounted: bool = False
    """Set by an actor that knows the cause of its predecessor's death and limits its repetition itself."""

    needs_supervisor: bool = False
    """True if the actor ends when its supervisor hangs, so that other nodes take over. Read when the loop is made."""

    alarms: tuple[str, ...] = ()
    """Alarms for the operator, one line each; `status` shows them from the next heartbeat on."""

    machine: Machine[LoopEvent | OwnEventT, LoopEffect | OwnEffectT]
    decoder: ClassVar[RequestDecoder | None] = None
    """Decoder of `requests`, built with the class, which is before the fork."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.decoder = RequestDecoder(cls.requests) if cls.requests else None

    def __init__(self, context: ActorContext) -> None:
        self.context = context
        self.loop: Turns[OwnEventT]

    def endpoint(self) -> str | None:
        """Return the endpoint to bind; None for an actor without a server socket."""
        return endpoint_for(self.context.run_directory, self.context.address, self.context.incarnation)

    def shown_endpoint(self) -> str | None:
        """Return the endpoint that `status` shows of an actor that serves others than its peers."""
        return None

    def server_keys(self) -> ServerKeys | None:
        """Return the keys of the server socket; None for one that is not encrypted."""
        return None

    def admits(self, public_key: str, host: str) -> bool | None:
        """Return True if a client with this key may connect to a server socket with keys; None if it should try
        again."""
        return False

    def client_keys(self) -> ClientKeys | None:
        """Return the keys of connections to the gateway; None for an actor that makes none, or needs no keys."""
        return None

    def knows(self, key: str) -> bool | None:
        """Return True if a connection with this key, to a server socket with keys, has a principal; None if that is not
        decided yet."""
        return True

    def vouchers(self) -> Vouchers | None:
        """Return the vouchers of connections that the TLS door relays; None for an actor that takes none of them."""
        return None

    def on_relays_bound(self, endpoint: str) -> None:
        """Publish the endpoint for relayed connections. Called once, before `start`, of an actor with vouchers."""

    def peer_door(self) -> PeerDoor | None:
        """Return the endpoint for other nodes; None for an actor without one. Called once, before `start`."""
        return None

    def start(self) -> None:
        """Open and recover. Call `self.loop.progress()` now and then if it takes long."""

    def perform(self, effect: OwnEffectT) -> None:
        raise AssertionError(f"{type(self).__name__} does not know the effect {effect!r}")

    def end_turn(self) -> None:
        """Make the turn's writes durable and dispatch the resulting events to the machine."""

    def follow_up(self) -> None:
        """Do the rest of the turn's work, when its messages have left the process: what none of them waits for."""

    def alarms_now(self) -> tuple[str, ...]:
        """Return `alarms` and those found by a check. Called for each heartbeat."""
        return self.alarms

    def in_flight(self) -> tuple[InFlight, ...]:
        """Return the records in progress; `status` shows them from the next heartbeat on."""
        return ()

    def retrying(self) -> RetryReport:
        """Return failed records that wait for their next attempt; `status` shows them from the next heartbeat on."""
        return NO_RETRIES

    def paused(self) -> GroupPause | None:
        """Return the pause of its group by an operator; `status` shows it from the next heartbeat on."""
        return None

    def gauges(self) -> dict[str, int]:
        """Return the lengths of the actor's own queues, for its report."""
        return {}

    def counters(self) -> dict[str, int]:
        """Return the actor's own counts since its start, for its report. One name may have a label, after a colon."""
        return {}

    def lateness(self) -> Durations:
        """Return the lateness of deliveries that the actor makes at a set time, for its report."""
        return Durations()

    def log_report(self) -> LogReport | None:
        """Return the log of the actor, for its report."""
        return None

    def group_report(self) -> GroupReport | None:
        """Return the group of the actor, for its report."""
        return None

    def close(self) -> None:
        """Close at the orderly end of the actor; the last call."""
