"""What the supervision machine hears and what it orders, beyond the loop's own events and effects.

Events come from process.py and deaths.py; effects are performed by process.py. Pure.
"""

from typing import Any, Literal

from msgspec import Struct

from ..transport.machine import Sender
from ..transport.protocol.control import ChildSpec
from ..transport.protocol.message import Request
from ..transport.protocol.operations import SignalName, StatusReply

LogLevel = Literal["debug", "info", "warning", "error"]


class Begin(Struct, frozen=True):
    """Event: start the tree."""


class ChildStarted(Struct, frozen=True):
    """Event: the ordered process exists."""

    address: str
    incarnation: int
    pid: int


class ChildDied(Struct, frozen=True):
    """Event: the process is gone for certain (or never came to be). Nothing less may lead to a restart."""

    address: str
    incarnation: int
    reason: str
    is_normal: bool
    """It exited with 0."""


class ChildDeaf(Struct, frozen=True):
    """Event: the child's inbox is full, so it has missed a message and cannot be relied on any more."""

    address: str
    incarnation: int


class KillAll(Struct, frozen=True):
    """Event: the operator has lost patience; no order, no asking."""


class Launch(Struct, frozen=True):
    """Effect: start a process for this incarnation. ChildStarted or ChildDied must follow."""

    spec: ChildSpec
    incarnation: int
    last_end: str | None = None
    """How the incarnation before ended."""


class Signal(Struct, frozen=True):
    """Effect: send a signal to this very incarnation; void when it is gone."""

    address: str
    incarnation: int
    signal: SignalName


class Tell(Struct, frozen=True):
    """Effect: a message to this very incarnation; lost when it is gone, ChildDeaf when it cannot be delivered."""

    address: str
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


class TreeUp(Struct, frozen=True):
    """Effect, once: every fixed child is ready, and the children known by then are ready or quarantined."""

    endpoint: str


class TreeFailed(Struct, frozen=True):
    """Effect, instead of TreeUp: a fixed child cannot be started. The tree is being stopped; Stop follows."""

    reason: str
