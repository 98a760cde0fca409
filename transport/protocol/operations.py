"""The operator's dialog: `status` shows the supervision tree, `kill` proves it, `revive` ends a quarantine.

    status() -> actors        kill(address, signal) -> pid, incarnation        revive(address) -> state

Answered by the supervisor; the gateway passes them on.
"""

from typing import Literal

from msgspec import Struct

from .message import Reply, Request

ActorState = Literal["starting", "recovering", "ready", "stopping", "stopped", "backing_off", "quarantined"]
SignalName = Literal["SIGKILL", "SIGTERM", "SIGSTOP", "SIGCONT", "SIGABRT", "SIGSEGV"]


class InFlight(Struct, frozen=True):
    """A record that a hosted handler has at hand."""

    topic: str
    partition: int
    offset: int
    attempt: int
    """Which one this is; 1 for the first."""
    since_ms: int
    """Ms since the epoch; may be 50 ms early."""


class ActorStatus(Struct, kw_only=True):
    address: str
    pid: int | None
    incarnation: int
    restarts: int
    state: ActorState
    uptime_ms: int
    memory_bytes: int
    """Resident memory that is the process's own (not shared with others); 0 where the system does not tell."""
    endpoint: str | None = None
    reason: str | None = None
    """Why it is not ready, or why it died last."""
    traceback: str | None = None
    alarms: list[str] = []
    """What it tells its operator while it runs, such as records that it cannot get rid of."""
    in_flight: list[InFlight] = []
    """Of a hosted subscriber, as of its last heartbeat."""


class Status(Request, tag="status", frozen=True):
    pass


class StatusReply(Reply):
    supervisor_pid: int
    instance_id: str
    data_directory: str
    endpoint: str
    uptime_ms: int
    actors: list[ActorStatus]


class Kill(Request, tag="kill", frozen=True):
    address: str
    signal: SignalName = "SIGKILL"


class KillReply(Reply):
    pid: int
    incarnation: int


class Revive(Request, tag="revive", frozen=True):
    address: str


class ReviveReply(Reply):
    state: ActorState
    """Before the request. The actor was started if it is `quarantined` or `backing_off`; else nothing was done."""
