"""The API group of a supervisor and its actors, on the control socket: never queued behind records.

    A: ready(address, incarnation, endpoint)     S: peer_up*, peer_down* (the directory, if the child spec asks for it)
    A: heartbeat(phase, turns, is_answered)      every heartbeat interval, from the actor's own loop
    S: heard()                                   the answer to one that asks for it
    A: failed(reason, traceback)                 its last message before it exits on an error
    A: falling_asleep(reason)                    its last message before it exits 0: it sleeps until it is called
    S: peer_up(address, incarnation, endpoint)   S: peer_down(address, incarnation, reason, quarantined, asleep)
    S: peers_asleep(addresses)                   part of the directory at a start
    S: stop(deadline_ms)                         A: finishes, exits 0
    A: wake(address)                             a cast of an actor that has a call for a sleeping one
    A: watch(peer)                               before its first call to an actor outside its directory
    S: peer_up | peer_down | peers_asleep        the peer's state, and then its changes
    A: start_child(spec), stop_child(address)    S: done | error        calls, by actors that manage children
    A: replace_child(spec)                       S: done | error        a call, by those that update a child's code
    A: locate(locations)                         S: done | error        a call, by the controller of a cluster's node
    A: await_stop(known)                         S: state               parked until another state of the stop, likewise
    A: conclude_stop(refusal)                    S: done                likewise
    A: actor_reports()                           S: actors              a call, by the actor that serves metrics

Every message of an actor names its incarnation; a stale one is counted and dropped.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..addresses import Address
from .message import InternalRequest, Reply, Request
from .operations import NO_REPORT, ActorState, Kill, Revive

RestartKind = Literal["permanent", "transient", "temporary"]
Phase = Literal["starting", "recovering", "ready", "stopping"]


EVERYBODY = ("*",)
"""The directory of actors that may call any other."""


def is_among(kinds: tuple[str, ...], address: Address) -> bool:
    """Return True if a directory of these kinds contains the actor."""
    return kinds == EVERYBODY or address.kind in kinds


class Surroundings(Struct, frozen=True, kw_only=True):
    """The environment of a child that does not share the supervisor's."""

    python: str = ""
    """Path of the Python that runs it; empty: that of the supervisor."""
    environment: dict[str, str] = {}
    environment_files: tuple[str, ...] = ()
    """Files of NAME=value lines, read at each start; `environment` overrides them."""
    output: str = ""
    """File for its standard output and standard error, in the data directory; empty: those of the supervisor."""


class ChildSpec(Struct, frozen=True, kw_only=True):
    """The specification of a child: its start, shutdown and restart limits, in OTP's terms."""

    address: Address
    start: str
    """Dotted path of the actor's entry point, `package.module:function`; resolved only in the child."""
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    restart: RestartKind = "permanent"
    shutdown_ms: int = 5_000
    """Time to stop before the child is killed."""
    directory: tuple[str, ...] = ()
    """Kinds of the peers whose PeerUp and PeerDown it receives."""
    start_timeout_ms: int = 30_000
    """Time for which a starting child may be silent. Recovery counts as silence unless it reports progress."""
    surroundings: Surroundings | None = None


class Ready(Request, tag="ready", frozen=True):
    address: Address
    incarnation: int
    endpoint: str | None
    is_death_accounted: bool = False
    """The actor knows the cause of its predecessor's death and limits it itself: that death does not count against
    it."""


class Heartbeat(Request, tag="heartbeat", frozen=True):
    address: Address
    incarnation: int
    phase: Phase
    turns: int
    """Counts turns of the loop, or steps of recovery. A number that does not change is a hang."""
    report: msgspec.Raw = NO_REPORT
    """An ActorReport in MessagePack, which the supervisor does not read."""
    is_answered: bool = False
    """Answer with `Heard`: this actor ends when its supervisor hangs (`supervisor_watch.py`)."""


class Heard(Request, tag="heard", frozen=True):
    """The supervisor has received a heartbeat that asked for this."""


class ActorFailed(Request, tag="failed", frozen=True):
    address: Address
    incarnation: int
    reason: str
    traceback: str
    needs_operator: bool = False
    """Another start would fail in the same way."""


ASLEEP_EXIT = 3
"""Exit status of an actor that has sent FallingAsleep: its death waits for that message, which may arrive later."""


class FallingAsleep(Request, tag="falling_asleep", frozen=True):
    """The actor exits with ASLEEP_EXIT and is restarted by a call, or at its time."""

    address: Address
    incarnation: int
    reason: str
    wake_after_ms: int | None = None


class PeerUp(Request, tag="peer_up", frozen=True):
    """An actor is ready at `endpoint`. Also an event for machines."""

    address: Address
    incarnation: int
    endpoint: str | None
    node: str = ""
    """The node on which it runs; empty for this one. `endpoint` is then the one of this node's link."""
    target: Address | None = None
    """The process that answers for the address, if it is another one's."""


class PeerDown(Request, tag="peer_down", frozen=True):
    """An incarnation has ended, and its calls in flight have failed. Also an event for machines."""

    address: Address
    incarnation: int
    reason: str
    quarantined: bool = False
    asleep: bool = False
    """It has ended to sleep. Unanswered calls were not executed: they are kept, and go to the next incarnation."""


class PeersAsleep(Request, tag="peers_asleep", frozen=True):
    """Actors that sleep, sent to a new actor at once. Also an event for machines."""

    addresses: list[Address]


class Wake(Request, tag="wake", frozen=True):
    """Start an actor that sleeps; any other is unaffected."""

    address: Address


class Watch(Request, tag="watch", frozen=True):
    """Report another actor's state now, and each change until this incarnation ends; for actors outside its
    directory. An address without an actor is reported as down."""

    address: Address
    incarnation: int
    peer: Address


class Stop(Request, tag="stop", frozen=True):
    deadline_ms: int
    keeps_place: bool = False
    """Another incarnation follows at once: a member of a group does not leave it."""


class StartChild(Request, tag="start_child", frozen=True):
    spec: ChildSpec
    must_fit: bool = False
    """Refuse a new child with LIMIT_REACHED if the machine has no room for it. Otherwise it is quarantined."""
    is_asleep: bool = False
    """Add the child asleep: the first `wake` starts it. An existing child is unchanged."""
    wake_after_ms: int | None = None
    """Time after which a child added asleep is started even without a call."""


class ReplaceChild(Request, tag="replace_child", frozen=True):
    """Stop a child in order, and start it again with this spec; a child that does not exist is started, and one that has
    this spec goes on. Answered once the present process has ended."""

    spec: ChildSpec


class StopChild(Request, tag="stop_child", frozen=True):
    """Stop a child and forget it; answered once it has ended."""

    address: Address


class Location(Struct, frozen=True):
    """The process that answers for an address: a child of this supervisor or of another node's."""

    address: Address
    target: Address | None = None
    """The child; None if no process answers."""
    node: str = ""
    """Its node, which is reached through the child `via`; empty for this one."""
    via: Address | None = None
    version: int = 0
    """Another one means another process, also on the same node."""


class Locate(Request, tag="locate", frozen=True):
    """Report these addresses as up or down, by the processes that answer for them. Replaces earlier locations."""

    locations: tuple[Location, ...]


StopState = Literal["none", "asked", "forced"]
"""The state of a stop of the whole tree that a signal has asked for, and that has to be prepared."""


class AwaitStop(Request, tag="await_stop", frozen=True):
    """Park until the state of the stop differs from the known one. Only the newest call is kept."""

    known: StopState


class AwaitStopReply(Reply):
    state: StopState


class ConcludeStop(Request, tag="conclude_stop", frozen=True):
    """The stop is prepared, or refused, unless it is forced."""

    refusal: str = ""


class OperatorAct(Struct, frozen=True):
    """An administrative act over the supervisor's own socket."""

    number: int
    """Counted from 1 in each start of the broker."""
    id: str
    """Unique."""
    at_ms: int
    """By the clock of machines."""
    request: Kill | Revive
    error: str = ""
    """Code of the error; empty if it was done."""


class AwaitActs(Request, tag="await_acts", frozen=True):
    """Return the acts with higher numbers; park until there is one. The others are durable, and forgotten. Only the
    newest call is kept."""

    after: int


class AwaitActsReply(Reply):
    acts: list[OperatorAct]


class ActorReports(InternalRequest, tag="actor_reports", frozen=True):
    """Describe all children with their last reports, unread: much cheaper than `status`, which measures memory."""


class ReportedActor(Struct, frozen=True, kw_only=True):
    address: Address
    pid: int | None
    incarnation: int
    restarts: int
    hangs: int
    """Kills because it made no progress."""
    state: ActorState
    uptime_ms: int
    report: msgspec.Raw = NO_REPORT
    """An ActorReport in MessagePack, of the last heartbeat."""


class ActorReportsReply(Reply):
    supervisor_pid: int
    uptime_ms: int
    actors: list[ReportedActor]


class EnsureInternalActors(InternalRequest, tag="ensure_internal_actors", frozen=True):
    """Sent by the gateway to the controller: create an internal topic with its actors. Answered once their start
    is ordered."""

    topic: str


class EnsureGroup(InternalRequest, tag="ensure_group", frozen=True):
    """Sent by the gateway to the controller: start a group's coordinator. Answered once its start is ordered."""

    group: str
    create: bool = True
    """Create a group that has never been used; otherwise it is refused with UNKNOWN_GROUP."""
    dead_letter: str = ""
    """A topic without which a new group is refused, as its coordinator would refuse the configuration."""
