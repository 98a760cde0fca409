"""The role of a partition's replica: the interface that the machine needs of each, and the state before there is one.

    role        becomes, by the node's controller
    undecided   leader (`leader.py`) by lead, follower (`follower.py`) by follow; the log opens in this role
    leader      follower, or leader again in a later epoch
    follower    leader, or follower of another leader in a later epoch

A role lives for one leader epoch. Whatever changes it, the old role resigns first: requests that wait are refused with
NOT_LEADER, and the turn's appends are written before the next role sees the log. Called by the machine. Pure.
"""

from msgspec import UNSET, UnsetType

from ...transport.machine import Received, Reply
from ...transport.protocol.data import Produce
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.replication import LogEndReply, ReplicaDurable, ReplicaReported, Role, RoleReply
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import PartitionDescription, TopicConfig
from ..log.epochs import NO_EPOCH
from .arguments import PartitionArguments
from .effects import Appended, Effect, Event, OpenedLog
from .replication import Watermarks
from .timers import TimerKey


class Undecided:
    """A replica without a role, and the parts that every role has."""

    name: Role = "undecided"
    retains = False
    """True if the topic's retention is applied here."""

    def __init__(self, log: OpenedLog) -> None:
        high_watermark = max(log.log_start_offset, min(log.high_watermark, log.log_end_offset))
        self.watermarks = Watermarks(log.log_start_offset, log.log_end_offset, high_watermark)
        self.leader_epoch = NO_EPOCH
        self.leader: str | UnsetType = UNSET
        """The node that leads, where known."""

    @property
    def parked_count(self) -> int:
        """Return the number of fetches of clients that wait."""
        return 0

    @property
    def log_end_offset(self) -> int:
        """Return the end of the log once this turn's appends are written."""
        return self.watermarks.written_offset

    @property
    def has_pending_appends(self) -> bool:
        """True while a producer waits for the disk."""
        return False

    @property
    def is_busy(self) -> bool:
        """True while a request waits, or an open transaction has to be watched."""
        return False

    @property
    def committed_offset(self) -> int | None:
        """Return the high watermark as a bound on deletion; None if it is always the end of the log."""
        return self.watermarks.high_watermark

    def start(self, now: int) -> list[Effect]:
        return []

    def configure(self, config: TopicConfig, now: int) -> list[Effect]:
        return []

    def on_request(self, received: Received, now: int) -> list[Effect]:
        return refuse(received, self.not_leader())

    def not_leader(self) -> ErrorBody:
        where = "" if self.leader is UNSET else f": {self.leader} does"
        message = f"this replica does not lead{where}"
        return ProtocolError(ErrorCode.NOT_LEADER, message, leader=self.leader).body

    def on_appended(self, event: Appended, now: int) -> list[Effect]:
        self.watermarks.durable_offset = self.watermarks.written_offset = event.log_end_offset
        return []

    def handle(self, event: Event, now: int) -> list[Effect]:
        """Handle any other event. One that answers an earlier role is ignored."""
        return []

    def on_timer(self, key: TimerKey, now: int) -> list[Effect]:
        """Handle a timer of the role. One of an earlier role is ignored."""
        return []

    def stop(self) -> list[Effect]:
        """Refuse the requests that wait: the partition is stopping."""
        return []

    def resign(self, leader: str | UnsetType) -> list[Effect]:
        """End the role: `leader` leads from now on, where that is known."""
        return []


def refuse(received: Received, error: ErrorBody) -> list[Effect]:
    """Answer a request that expects an answer."""
    request = received.request
    is_one_way = isinstance(request, Cancel | ReplicaDurable)
    is_one_way = is_one_way or (isinstance(request, ReplicaReported) and not received.sender.awaits_reply)
    if is_one_way or (isinstance(request, Produce) and request.acks == 0):
        return []
    return [Reply(received.sender, error)]


def description(
    arguments: PartitionArguments, role: Undecided, incarnation: int, size_bytes: int
) -> PartitionDescription:
    watermarks = role.watermarks
    return PartitionDescription(
        partition=arguments.partition,
        online=True,
        incarnation=incarnation,
        leader_epoch=role.leader_epoch,
        log_start_offset=watermarks.log_start_offset,
        high_watermark=watermarks.high_watermark,
        log_end_offset=role.log_end_offset,
        size_bytes=size_bytes,
    )


def role_reply(
    role: Undecided, order: tuple[int, int], log: OpenedLog, arguments: PartitionArguments
) -> RoleReply:
    """Return the answer to a `lead` or `follow`; `order` is the leader epoch and revision of the newest.

    The epochs of a mirror's batches are its source's, and say nothing about leaders here.
    """
    leader_epoch, revision = order
    last = NO_EPOCH if arguments.is_mirrored else log.epochs.last
    highest = max(log.highest_leader_epoch, last, arguments.first_epoch - 1)
    return RoleReply(
        role=role.name, leader_epoch=leader_epoch, revision=revision, highest_leader_epoch=highest
    )


def log_end(role: Undecided, log: OpenedLog) -> LogEndReply:
    """Return how far the log reaches, for an unclean election."""
    return LogEndReply(last_epoch=log.epochs.last, log_end_offset=role.watermarks.written_offset)
