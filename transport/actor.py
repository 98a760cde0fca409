"""The process around a machine, without its sockets: what an actor is born with, and what its loop calls.

Owns the effects that are the actor's own and what the end of a turn makes durable. Must never decide anything, and must
never send or receive: `Turns` calls it, in the loop of a real process and in simulations alike.
"""

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from .codec import RequestDecoder
from .endpoints import endpoint_for
from .machine import Effect, Machine
from .origin import Origin
from .protocol.message import Request
from .protocol.operations import NO_RETRIES, InFlight, RetryReport

if TYPE_CHECKING:
    from .turns import Turns


KindT = TypeVar("KindT", bound=type[msgspec.Struct])


def built_early(kind: KindT) -> KindT:
    """Let msgspec look at a type when its module is loaded: once, before the fork, and not in each actor."""
    msgspec.msgpack.Decoder(kind)
    return kind


class ActorContext(msgspec.Struct, kw_only=True):
    """What a child is born with."""

    address: str
    incarnation: int
    arguments: dict[str, Any]
    run_directory: str
    data_directory: str
    control_endpoint: str
    instance_id: str
    heartbeat_interval_ms: int = 500
    clock: Origin | None = None
    """Of the broker's steady clock, the same for all its actors; None makes one of the actor's own."""
    parent_sentinel: int | None = None
    """A file descriptor that becomes readable when the supervisor is gone."""
    last_end: str | None = None
    """How the incarnation before ended; None for the first, and after a restart of the supervisor."""


class Actor:
    """The process around a machine: subclass it, set `machine`, perform the effects that are your own."""

    requests: ClassVar[tuple[type[Request], ...]] = ()
    """What the server socket accepts; the loop refuses the rest."""
    follows_connections: ClassVar[bool] = False
    """Whether the machine is told of connections that are gone (`Disconnected`)."""
    follows_hosts: ClassVar[bool] = False
    """Whether the machine is told as well where each new connection comes from (`Connected`)."""
    ready_by_itself: ClassVar[bool] = False
    """Whether the actor calls `Loop.ready` itself, instead of being ready when `start` returns."""
    follows_wall_clock: ClassVar[bool] = False
    """Whether the machine is told by `WallClockStepped` what the wall clock is ahead of `now`."""
    is_death_accounted: bool = False
    """Set by an actor that found out what ended its predecessor, and bounds it itself."""

    alarms: tuple[str, ...] = ()
    """What an operator should know of, one line each: shown by `status` from the next heartbeat on."""

    machine: Machine
    decoder: ClassVar[RequestDecoder | None] = None
    """Of `requests`; built when the class is, which is before the fork."""

    def __init_subclass__(cls) -> None:
        cls.decoder = RequestDecoder(cls.requests) if cls.requests else None

    def __init__(self, context: ActorContext) -> None:
        self.context = context
        self.loop: Turns

    def endpoint(self) -> str | None:
        """What to bind; None for an actor that nobody asks."""
        return endpoint_for(self.context.run_directory, self.context.address, self.context.incarnation)

    def start(self) -> None:
        """Open, recover; call `self.loop.progress()` now and then when it takes long."""

    def perform(self, effect: Effect) -> None:
        raise AssertionError(f"{type(self).__name__} was given an effect that it does not know: {effect!r}")

    def end_turn(self) -> None:
        """Make durable what the turn gathered and dispatch what the machine must hear of it."""

    def alarms_now(self) -> tuple[str, ...]:
        """`alarms`, and what is found out by looking; called for each heartbeat."""
        return self.alarms

    def in_flight(self) -> tuple[InFlight, ...]:
        """The records at hand, shown by `status` from the next heartbeat on."""
        return ()

    def retrying(self) -> RetryReport:
        """The records that failed and wait for their next attempt, shown by `status` from the next heartbeat on."""
        return NO_RETRIES

    def close(self) -> None:
        """Last act of an orderly end."""
