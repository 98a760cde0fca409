"""The operator's API group: `status` shows the supervision tree, `kill` tests it, `revive` ends a quarantine.

    status(after_version) -> actors        kill(address, signal) -> pid, incarnation        revive(address) -> state

Answered by the supervisor; the gateway forwards them.
"""

from typing import Literal

from msgspec import Raw, Struct, structs

from ..addresses import Address
from .groups import GroupPause, GroupStateName
from .message import Reply, Request
from .replication import Role

ActorState = Literal[
    "starting", "recovering", "ready", "stopping", "stopped", "asleep", "backing_off", "quarantined"
]
SignalName = Literal["SIGKILL", "SIGTERM", "SIGSTOP", "SIGCONT", "SIGABRT", "SIGSEGV"]


class InFlight(Struct, frozen=True):
    """A record that a hosted handler is processing."""

    topic: str
    partition: int
    offset: int
    attempt: int
    """Number of this attempt; 1 for the first."""
    since_ms: int
    """Ms since the epoch; may be 50 ms early."""


class Retrying(Struct, kw_only=True, frozen=True):
    """A failed record that waits for its next attempt."""

    topic: str
    partition: int
    offset: int
    key: str | None
    """As text, with other bytes escaped, cut at MAX_KEY_CHARS; None if it has no key or the key is unknown here."""
    attempts: int
    """Number of failed attempts."""
    reason: str | None
    """Reason of the last failure, in one line; None if a coordinator was restarted since."""
    first_failed_ms: int | None
    """Ms since the epoch; None as above."""
    next_try_ms: int
    """Ms since the epoch; a time in the past is due."""
    parked: bool = False
    """It is out of attempts and cannot be dead-lettered: retried until that changes."""


class RetryReport(Struct, kw_only=True, frozen=True):
    count: int = 0
    records: list[Retrying] = []
    """Up to MAX_RETRYING_SHOWN, those with the earliest retry first."""

    def by_clock(self, ahead_ms: int) -> "RetryReport":
        """Return the same report by a clock that is ahead by this offset."""
        if not ahead_ms:
            return self
        return structs.replace(self, records=[_by_clock(each, ahead_ms) for each in self.records])


NO_RETRIES = RetryReport()


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
"""A record that has been failing for this long is an alarm, unless the subscription has another limit."""


def shown_key(key: bytes | None) -> str | None:
    if key is None:
        return None
    return key[: 4 * MAX_KEY_CHARS].decode(errors="backslashreplace")[:MAX_KEY_CHARS]


def shown_reason(reason: str) -> str:
    return " ".join(reason.split())[:MAX_REASON_CHARS]


def retry_alarm(tp: str, alarm_ms: int, attempts: int, reason: str) -> str:
    text = f"retrying: {tp} has been failing for more than {alarm_ms / 1000:g} s, {attempts} times: {reason}"
    return " ".join(text.split())[:MAX_ALARM_CHARS]


class Durations(Struct, frozen=True, kw_only=True):
    """Durations of something that an actor does, since its start."""

    bounds_us: tuple[int, ...] = ()
    """Upper bounds of the buckets."""
    counts: tuple[int, ...] = ()
    """Number of durations in each bucket; the last, one more than there are bounds, has no upper bound."""
    total_us: int = 0


class LogReport(Struct, frozen=True, kw_only=True):
    """The log of a partition, or of its replica on this node, as of the last heartbeat."""

    role: Role
    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    size_bytes: int
    replicas: int = 1
    """Known to a leader, as the fields that follow."""
    in_sync: int = 1
    is_below_minimum: bool = False
    """True if fewer replicas are in sync than the topic requires."""
    replica_lags: dict[str, int] = {}
    """By node, the records that its replica does not hold durably yet."""


class GroupPosition(Struct, frozen=True, array_like=True):
    """How far a group has read a partition."""

    topic: str
    partition: int
    offset: int
    """The first offset that is not read."""
    done: int = 0
    """Number of records after it that are done; of a share group."""


class GroupReport(Struct, frozen=True, kw_only=True):
    """A coordinator's group, as of the last heartbeat."""

    type: Literal["consumer", "share"]
    state: GroupStateName
    members: int
    generation: int
    """Number of its assignments; 0 of a share group."""
    positions: tuple[GroupPosition, ...] = ()


class ActorReport(Struct, frozen=True, kw_only=True):
    """An actor's own account of itself, as of its last heartbeat. The supervisor passes it on unread."""

    alarms: tuple[str, ...] = ()
    """Alarms for the operator while it runs, such as records that it cannot dispose of."""
    in_flight: tuple[InFlight, ...] = ()
    """Records of a hosted subscriber."""
    retrying: RetryReport = NO_RETRIES
    """Failed records of a hosted subscriber or of a share group."""
    paused: GroupPause | None = None
    """The pause of a coordinator's group by an operator."""
    counters: dict[str, int] = {}
    """Since its start: messages_in, bytes_in, messages_out, bytes_out, and those of its kind."""
    gauges: dict[str, int] = {}
    """Present lengths of its queues."""
    requests: dict[str, dict[str, int]] = {}
    """Answers since its start, by op and outcome: done, forwarded (an actor's answer that the gateway does not read),
    or the code of the error."""
    syncs: Durations = Durations()
    latencies: dict[str, Durations] = {}
    """By op, the time from the arrival of a request to its answer."""
    lateness: Durations = Durations()
    """Time from the due time of a scheduler's messages to their delivery."""
    log: LogReport | None = None
    group: GroupReport | None = None


NO_REPORT = Raw(b"\x80")
"""The report of an actor that has not sent one: all fields absent."""


class ActorStatus(Struct, kw_only=True):
    address: Address
    pid: int | None
    incarnation: int
    restarts: int
    state: ActorState
    uptime_ms: int
    memory_bytes: int
    """Resident memory that is not shared with other processes; 0 where the system does not provide it."""
    endpoint: str | None = None
    reason: str | None = None
    """The reason why it is not ready, or of its last death."""
    traceback: str | None = None
    since_death_ms: int | None = None
    """Time since its last death; None if it has not died since it was last asleep."""
    downtime_ms: int | None = None
    """Time from its last death until it was ready again; None while that lasts."""
    report_age_ms: int | None = None
    """Time since its last heartbeat."""
    report: ActorReport = ActorReport()


class Status(Request, tag="status", frozen=True):
    after_version: int | None = None
    """The version of an earlier answer: only actors that have changed since then."""


class StatusReply(Reply):
    supervisor_pid: int
    instance_id: str
    data_directory: str
    endpoint: str
    uptime_ms: int
    actors: list[ActorStatus]
    version: int = 0
    """Rises with each change of an actor's state or process, and with each that comes or goes."""
    is_whole: bool = True
    """All actors: no version was given, or the supervisor does not know it."""
    removed: tuple[Address, ...] = ()
    """Actors that have been removed since that version."""


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
    """The state before the request. The actor was started if it is `quarantined`, `backing_off` or `asleep`;
    otherwise the request changed nothing."""
