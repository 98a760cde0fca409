"""The operator's dialog: `status` shows the supervision tree, `kill` proves it, `revive` ends a quarantine.

    status() -> actors        kill(address, signal) -> pid, incarnation        revive(address) -> state

Answered by the supervisor; the gateway passes them on.
"""

from typing import Literal

from msgspec import Struct, structs

from .message import Reply, Request

ActorState = Literal[
    "starting", "recovering", "ready", "stopping", "stopped", "asleep", "backing_off", "quarantined"
]
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


class Retrying(Struct, kw_only=True, frozen=True):
    """A record that has failed and waits for its next attempt."""

    topic: str
    partition: int
    offset: int
    key: str | None
    """As text, what is no UTF-8 escaped, cut at MAX_KEY_CHARS; None where there is none, or nobody here knows it."""
    attempts: int
    """How many have failed."""
    reason: str | None
    """Why the last one did, in one line; None when a coordinator was restarted since."""
    first_failed_ms: int | None
    """Ms since the epoch; None as above."""
    next_try_ms: int
    """Ms since the epoch; what lies in the past is due."""
    parked: bool = False
    """It is out of attempts and has no way to the dead letters: tried until that changes."""


class RetryReport(Struct, kw_only=True, frozen=True):
    count: int = 0
    records: list[Retrying] = []
    """Up to MAX_RETRYING_SHOWN, those that are tried next first."""

    def by_clock(self, ahead_ms: int) -> "RetryReport":
        """The same by a clock that is so much ahead."""
        if not ahead_ms:
            return self
        return structs.replace(self, records=[_by_clock(each, ahead_ms) for each in self.records])


def _by_clock(each: Retrying, ahead_ms: int) -> Retrying:
    first_ms, next_ms = each.first_failed_ms, each.next_try_ms
    return structs.replace(
        each,
        first_failed_ms=None if first_ms is None else first_ms + ahead_ms,
        next_try_ms=next_ms and next_ms + ahead_ms,
    )


MAX_RETRYING_SHOWN = 100
MAX_KEY_CHARS = 100
MAX_REASON_CHARS = 200
MAX_ALARM_CHARS = 300
RETRY_ALARM_MS = 600_000
"""A record that has been failing for so long is an alarm, unless the subscription says otherwise."""
NO_RETRIES = RetryReport()


def shown_key(key: bytes | None) -> str | None:
    if key is None:
        return None
    return key[: 4 * MAX_KEY_CHARS].decode(errors="backslashreplace")[:MAX_KEY_CHARS]


def shown_reason(reason: str) -> str:
    return " ".join(reason.split())[:MAX_REASON_CHARS]


def retry_alarm(tp: str, alarm_ms: int, attempts: int, reason: str) -> str:
    text = f"retrying: {tp} has been failing for more than {alarm_ms / 1000:g} s, {attempts} times: {reason}"
    return " ".join(text.split())[:MAX_ALARM_CHARS]


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
    retrying: RetryReport = NO_RETRIES
    """Of a hosted subscriber or the coordinator of a share group, as of its last heartbeat."""


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
    """Before the request. The actor was started if it is `quarantined`, `backing_off` or `asleep`; otherwise nothing was
    done."""
