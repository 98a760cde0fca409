"""Events and effects of the supervision machine, beyond the loop's own.

Events come from process.py and deaths.py; effects are performed by process.py. Pure.
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct

from ..transport.addresses import Address
from ..transport.machine import (
    CancelTimer,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from ..transport.protocol.control import ActorFailed, ChildSpec, FallingAsleep, Heartbeat, Ready, Watch
from ..transport.protocol.message import Request
from ..transport.protocol.operations import SignalName, StatusReply

LogLevel = Literal["debug", "info", "warning", "error"]


class Begin(Struct, frozen=True):
    """Event: start the tree."""


class ChildStarted(Struct, frozen=True):
    """Event: the launched process exists."""

    address: Address
    incarnation: int
    pid: int


class ChildDied(Struct, frozen=True):
    """Event: the process is confirmed dead (or was never created). Only this may lead to a restart."""

    address: Address
    incarnation: int
    reason: str
    is_normal: bool
    """True if it ended in good order: with 0, or to sleep."""


class ChildDeaf(Struct, frozen=True):
    """Event: the child's inbox is full, so it has missed a message and is no longer reliable."""

    address: Address
    incarnation: int


class StopAsked(Struct, frozen=True):
    """Event: a signal asks for a stop, which may have to be prepared."""


class KillAll(Struct, frozen=True):
    """Event: the operator demands an immediate end; all processes are killed without a stop request."""


class Launch(Struct, frozen=True):
    """Effect: start a process for this incarnation. ChildStarted or ChildDied must follow."""

    spec: ChildSpec
    incarnation: int
    last_end: str | None = None
    """Exit reason of the previous incarnation."""


class Signal(Struct, frozen=True):
    """Effect: send a signal to exactly this incarnation; a no-op when it is gone."""

    address: Address
    incarnation: int
    signal: SignalName


class Tell(Struct, frozen=True):
    """Effect: send a message to exactly this incarnation; lost when it is gone, ChildDeaf when it cannot be delivered."""

    address: Address
    incarnation: int
    request: Request


class ReportStatus(Struct, frozen=True):
    """Effect: fill in each actor's memory and send the reply."""

    to: Sender
    body: StatusReply


class Log(Struct, frozen=True):
    level: LogLevel
    event: str
    fields: dict[str, Any]


class RestartTimer(Struct, frozen=True):
    """A child that backs off is restarted."""

    address: Address


class WakeTimer(Struct, frozen=True):
    """A sleeping child is launched without a wake-up."""

    address: Address


class KillTimer(Struct, frozen=True):
    """A child that is stopping has had its time."""

    address: Address


class KillWaitTimer(Struct, frozen=True):
    """A kill has waited long enough for a process."""


class StuckTimer(Struct, frozen=True):
    """SIGKILL has not ended a child in time."""

    address: Address


class StopTimer(Struct, frozen=True):
    """The preparation of a stop has had its time."""


class StopBegins(Struct, frozen=True):
    """Effect, once: the tree is being stopped."""


class CheckTimer(Struct, frozen=True):
    """All children are checked for progress."""


class TreeUp(Struct, frozen=True):
    """Effect, once: every fixed child is ready, and the children known by then are ready or quarantined."""

    endpoint: str


class TreeFailed(Struct, frozen=True):
    """Effect, instead of TreeUp: a fixed child cannot be started. The tree is being stopped; Stop follows."""

    reason: str


OfIncarnation: TypeAlias = (
    ChildStarted | ChildDied | ChildDeaf | Heartbeat | Ready | ActorFailed | FallingAsleep | Watch
)
"""Events that concern one incarnation of a child."""
Event: TypeAlias = OfIncarnation | Begin | StopAsked | KillAll | Received | TimerFired | StopRequested
Effect: TypeAlias = (
    Launch
    | Signal
    | Tell
    | ReportStatus
    | Log
    | TreeUp
    | TreeFailed
    | StopBegins
    | Reply
    | SetTimer
    | CancelTimer
    | Stop
)
TimerKey: TypeAlias = (
    RestartTimer | WakeTimer | KillTimer | KillWaitTimer | StuckTimer | CheckTimer | StopTimer
)
