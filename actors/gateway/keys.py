"""The keys of the gateway's calls and timers. Pure."""

from msgspec import Struct

from ...transport.addresses import Address
from ...transport.protocol.control import EnsureGroup, EnsureInternalActors


class ClientCall(Struct, frozen=True):
    """Key of a call made for a client's request. It takes its turn at the actor (`lanes.py`)."""

    ticket: int


NO_TICKET = 0
"""The ticket of a call whose answer no client waits for."""


class Forwarded(ClientCall, frozen=True):
    """The request itself, whose answer is the client's."""


class PublishCall(ClientCall, frozen=True):
    """Batches of a publish, for one partition."""

    call: int


class ScheduleCall(ClientCall, frozen=True):
    """Delayed records of a publish, for one scheduler."""

    scheduler: int


class TransactionsCall(Struct, frozen=True):
    """The transactions of one coordinator, for a list of all."""

    ticket: int
    number: int


class ActorStart(Struct, frozen=True):
    """The controller is to start a group's coordinator, or to create an internal topic with its actors."""

    request: EnsureGroup | EnsureInternalActors


class TableWatch(Struct, frozen=True):
    """The long poll for the table of topics."""


class NodesWatch(Struct, frozen=True):
    """The long poll for the nodes of the cluster."""


class TableQuestion(Struct, frozen=True):
    """The table of topics, for requests that name an entry it lacks."""


class AuditKey(Struct, frozen=True):
    """Key of the calls and timers of the audit (`audit.py`)."""


class AuditStart(AuditKey, frozen=True):
    """The controller is to create the topic of the audit."""


class AuditCall(AuditKey, frozen=True):
    """Records of the audit."""


class ActsWatch(AuditKey, frozen=True):
    """The long poll for acts over the supervisor's own socket."""


class RefusalsTimer(AuditKey, frozen=True):
    """End of the window in which refusals are counted."""


class AuditRetry(AuditKey, frozen=True):
    """The next attempt to write records of the audit, or to create their topic."""

    is_start: bool = False


class WaitTimer(Struct, frozen=True):
    """End of the time for which a request waits for an actor to come up."""

    ticket: int


class PollTimer(Struct, frozen=True):
    """End of a parked metadata poll."""

    ticket: int


class QuotaTimer(Struct, frozen=True):
    """End of the delay that a quota requires."""

    ticket: int


class LaneTimer(Struct, frozen=True):
    """The next call at an actor counts as slow."""

    address: Address


class KeptCallTimer(Struct, frozen=True):
    """End of the time for which a call waits for the controller."""

    number: int


class StopTimer(Struct, frozen=True):
    """End of the time for writes in flight when the gateway stops."""


CallKey = (
    Forwarded
    | PublishCall
    | ScheduleCall
    | TransactionsCall
    | ActorStart
    | TableWatch
    | NodesWatch
    | TableQuestion
)
TimerKey = WaitTimer | PollTimer | QuotaTimer | LaneTimer | KeptCallTimer | StopTimer
