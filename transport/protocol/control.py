"""The dialog between a supervisor and its actors, on the control socket: never behind records.

    A: ready(address, incarnation, endpoint)     S: peer_up*, peer_down* (the directory, if the child spec asks for it)
    A: heartbeat(phase, turns)                   every heartbeat interval, from the actor's own loop
    A: failed(reason, traceback)                 its last word before it exits on an error
    A: falling_asleep(reason)                    its last word before it exits 0: it sleeps until it is called
    S: peer_up(address, incarnation, endpoint)   S: peer_down(address, incarnation, reason, quarantined, asleep)
    S: peers_asleep(addresses)                   part of the directory at a start
    S: stop(deadline_ms)                         A: finishes, exits 0
    A: wake(address)                             a cast of anybody who has a call for a sleeping actor
    A: start_child(spec), stop_child(address)    S: done | error        calls, by those whose business it is

Every message of an actor names its incarnation; a stale one is counted and dropped.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from .message import Request
from .operations import NO_RETRIES, InFlight, RetryReport

RestartKind = Literal["permanent", "transient", "temporary"]
Phase = Literal["starting", "recovering", "ready", "stopping"]


EVERYBODY = ("",)
"""The directory of those who may talk to anybody."""


class ChildSpec(Struct, frozen=True, kw_only=True):
    """How to start and keep one child, in OTP's words."""

    address: str
    start: str
    """Dotted path of the actor's entry, `package.module:function`; resolved in the child alone."""
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    restart: RestartKind = "permanent"
    shutdown_ms: int = 5_000
    """How long it may take to stop before it is killed."""
    directory: tuple[str, ...] = ()
    """It is told of the Up and Down of those whose addresses begin with one of these."""
    start_timeout_ms: int = 30_000
    """How long it may stay silent while starting; recovery counts as silence unless it makes progress."""


class Ready(Request, tag="ready", frozen=True):
    address: str
    incarnation: int
    endpoint: str | None
    is_death_accounted: bool = False
    """The actor knows what ended its predecessor and bounds it itself: that death does not count against it."""


class Heartbeat(Request, tag="heartbeat", frozen=True):
    address: str
    incarnation: int
    phase: Phase
    turns: int
    """Counts turns of the loop, or steps of recovery: a number that stands still is a hang."""
    alarms: tuple[str, ...] = ()
    in_flight: tuple[InFlight, ...] = ()
    retrying: RetryReport = NO_RETRIES


class ActorFailed(Request, tag="failed", frozen=True):
    address: str
    incarnation: int
    reason: str
    traceback: str
    needs_operator: bool = False
    """Another start would fail in the same way."""


class FallingAsleep(Request, tag="falling_asleep", frozen=True):
    """The actor exits in good order and is not started again before somebody calls it, or its time has come."""

    address: str
    incarnation: int
    reason: str
    wake_after_ms: int | None = None


class PeerUp(Request, tag="peer_up", frozen=True):
    """An actor is ready at `endpoint`; also an event for machines."""

    address: str
    incarnation: int
    endpoint: str | None


class PeerDown(Request, tag="peer_down", frozen=True):
    """An incarnation is gone; whatever was in flight to it has failed. Also an event for machines."""

    address: str
    incarnation: int
    reason: str
    quarantined: bool = False
    asleep: bool = False
    """It has ended to sleep. What it has not answered it has not done: such calls are kept, and go to the next one."""


class PeersAsleep(Request, tag="peers_asleep", frozen=True):
    """Actors that sleep, told to a newcomer at once. Also an event for machines."""

    addresses: list[str]


class Wake(Request, tag="wake", frozen=True):
    """Start an actor that sleeps; nothing is done about any other."""

    address: str


class Stop(Request, tag="stop", frozen=True):
    deadline_ms: int


class StartChild(Request, tag="start_child", frozen=True):
    spec: ChildSpec
    must_fit: bool = False
    """A new child for which the machine has no room is refused with LIMIT_REACHED. Otherwise it is quarantined."""
    is_asleep: bool = False
    """The child is added asleep: it is started by the first `wake`. One that is there already stays as it is."""
    wake_after_ms: int | None = None
    """Of a child that is added asleep: when it is started though nobody has called."""


class StopChild(Request, tag="stop_child", frozen=True):
    """Stop a child and forget it; done once it is gone."""

    address: str


class EnsureInternalActors(Request, tag="ensure_internal_actors", frozen=True):
    """The gateway asks the controller that there be an internal topic with its actors; done once their start is
    ordered."""

    topic: str


class EnsureGroup(Request, tag="ensure_group", frozen=True):
    """The gateway asks the controller that a group's coordinator be there; done once its start is ordered."""

    group: str
    create: bool = True
    """Whether a group nobody has used yet is created; refused with UNKNOWN_GROUP otherwise."""
