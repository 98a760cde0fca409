"""The partition's machine: handles every request to one partition, without any input or output.

Owns the parts of a partition and passes each event to one of them. It must never read a clock, a file or a socket: it
returns effects (`effects.py`), and `process.py` performs them. Called by the loop through `handle`.

    role        roles.py: undecided, leader.py: appends and acknowledgements, with fetches.py and offset_queries.py:
                reads, replicas.py: followers, backlog.py: groups; follower.py: copies of a leader's batches;
                mirrored.py: a leader that copies the batches of another broker
    any role    admission.py: refusals, flush.py: syncs, upkeep.py: retention, compaction, checkpoints,
                disk.py and damage.py: alarms, journal/idleness.py: sleep

    state       means                                                     left by
    serving     takes requests                                            StopRequested -> stopping; no traffic -> asleep
    stopping    refuses requests, waiting fetches have failed             no producer waits for the disk -> Stop
    asleep      retention has run once more; the process ends (Sleep)

The only replica of a partition leads from its start. Any other has no role until its node's controller sends `lead` or
`follow`, and may get another at any time. These describe a state: one that is older than the newest, by leader epoch
and revision, changes nothing, and the reply says which role the replica has.
"""

from typing import assert_never

from msgspec import UNSET, UnsetType, structs

from ...transport.machine import (
    Answered,
    Connected,
    Disconnected,
    Failed,
    Received,
    Reply,
    Sleep,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from ...transport.protocol.data import Fetch, Produce
from ...transport.protocol.mirrors import MirrorAppend, PromotePartition, RejoinPartition, SealMirror
from ...transport.protocol.quotas import QuotasInForce
from ...transport.protocol.replication import Follow, Lead, ReplicaDurable, ReplicaFetch, ReportLogEnd
from ...transport.protocol.topics import (
    ConfigurePartition,
    DescribePartition,
    DescribePartitionReply,
    HighestEra,
    HighestEraReply,
)
from ..journal.idleness import Idleness, IdleTimer
from ..log.epochs import NO_EPOCH
from .admission import PartitionAdmission
from .arguments import PartitionArguments
from .backlog import Backlog
from .damage import DamageCall, KnownDamage, unclean_alarm
from .disk import DiskReserve
from .effects import (
    Alarm,
    Appended,
    AppendFailed,
    BacklogMeasured,
    Compacted,
    Compared,
    CutFailed,
    DiskMeasured,
    Effect,
    Event,
    GroupsSaved,
    LogCut,
    LogOpened,
    LookedUp,
    MarkAsleep,
    OpenedLog,
    ReadDone,
    ReadUnfinished,
    RequestFailed,
    RoleTaken,
    SessionChecked,
    TakeRole,
    Trimmed,
    Written,
)
from .flush import Flush
from .follower import Follower
from .groups import ReportedGroups
from .leader import Leader
from .mirrored import MirroredLeader
from .own_role import (
    CHANGES_OF_ROLE,
    answer_of,
    due_cut,
    leads_as_demanded,
    mirror_refusal,
    must_lead_again,
    own_lead,
    take_mirror,
)
from .roles import Undecided, description, log_end, refuse, role_reply
from .timers import (
    CheckpointDue,
    CompactionDue,
    MeasureDiskDue,
    RetentionDue,
    SyncDue,
    TimerKey,
)
from .upkeep import Upkeep

_OF_A_ROLE = frozenset({Produce, Fetch, ReplicaFetch, ReplicaDurable})
"""The most frequent requests that the role answers; it gets all others that the machine does not know as well."""
IDLE_CHECK_MS = 5_000
"""Time after which a partition that was idle, but at work, looks again."""


class PartitionMachine:
    """One replica of a partition, whose log is open."""

    def __init__(
        self,
        arguments: PartitionArguments,
        log: OpenedLog,
        incarnation: int,
        groups: ReportedGroups | None = None,
    ) -> None:
        config = arguments.config
        self._arguments = arguments
        self._log = log
        self._incarnation = incarnation
        self._groups = groups or ReportedGroups()
        self._backlog = self._new_backlog()
        self._disk = DiskReserve(arguments.disk_reserve_bytes)
        self._damage = KnownDamage(log.losses)
        # The alarm of a lost file must stay visible.
        is_asleep_at_times = arguments.leadership == "own" and not log.lost_files
        self._idleness = Idleness(arguments.idle_ms if is_asleep_at_times else 0, IDLE_CHECK_MS)
        self._upkeep = Upkeep(config, log.size_bytes)
        self._flush = Flush(config.flush)
        self._admission = PartitionAdmission(
            arguments.topic, arguments.partition, arguments.topic_id, self._disk, self._backlog
        )
        self._wall_clock = WallClockStepped(0)
        self._order = (NO_EPOCH, 0)
        """Leader epoch and revision of the newest `lead` or `follow`."""
        self._asked: Received | None = None
        """The `lead` or `follow` that is being carried out."""
        self._next_token = 0
        self._role: Undecided = Undecided(log)
        if arguments.leadership == "own":
            self._role = self._leader_by(own_lead(self._arguments, self._log))

    @property
    def role(self) -> Undecided:
        return self._role

    def _new_backlog(self) -> Backlog:
        log = self._log
        bounds = (log.log_start_offset, log.log_end_offset)
        return Backlog(self._arguments.topic_id, log.leader_epoch, self._groups, *bounds)

    def _leader_by(self, lead: Lead, now: int = 0) -> Leader:
        self._backlog = self._admission.backlog = self._new_backlog()
        kind = MirroredLeader if self._arguments.is_mirrored else Leader
        return kind(self._arguments, lead, self._log, self._backlog, self._admission, self._flush, now)

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Received():
                return self._on_received(event, now)
            case Appended():
                return self._on_appended(event, now)
            # The usual events are first: each class before is a call.
            case ReadDone() | Written():
                return self._role.handle(event, now)
            case Answered(key=DamageCall()) | Failed(key=DamageCall()):
                return self._damage.on_reported()
            case Answered() | Failed() | Disconnected() | CutFailed() | SessionChecked():
                return self._role.handle(event, now)
            case TimerFired():
                return self._on_timer(event, now)
            case AppendFailed():
                return self._role.handle(event, now) + self._stop_if_done()
            case Trimmed():
                return self._on_trimmed(event, now)
            case RequestFailed():
                return self._on_request_failed(event)
            case Compacted():
                return self._upkeep.on_compacted(event, now)
            case DiskMeasured():
                return self._disk.on_measured(event.free_bytes, now)
            case RoleTaken():
                return self._on_role_taken(event.log, now)
            case LogCut(log=log):
                self._log = log
                self._upkeep.size_bytes = log.size_bytes
                self._damage = KnownDamage(log.losses)
                is_led = isinstance(self._role, Leader)
                effects = self._lead_again(None) if is_led else self._role.handle(event, now)
                return [*self._damage.alarm(), *effects]
            case ReadUnfinished() | LookedUp() | Compared() | BacklogMeasured() | GroupsSaved():
                return self._role.handle(event, now)
            case WallClockStepped():
                self._wall_clock = event
                return self._role.handle(event, now)
            case LogOpened():
                return self._on_opened(now)
            case StopRequested():
                return self._on_stop()
            case PeerUp() | PeerDown() | PeersAsleep() | Connected():
                return []  # the partition repeats its calls itself
        assert_never(event)

    # -- life

    def _on_opened(self, now: int) -> list[Effect]:
        return [
            Alarm("files", tuple(self._log.lost_files)),
            *self._upkeep.start(now),
            *self._disk.look(),
            *self._damage.alarm(),
            *self._role.start(now),
            *self._idleness.start(now),
        ]

    def _on_stop(self) -> list[Effect]:
        self._admission.is_stopping = True
        return self._role.stop() + self._stop_if_done()

    def _stop_if_done(self) -> list[Effect]:
        is_done = self._admission.is_stopping and not self._role.has_pending_appends
        return [Stop("asked to")] if is_done else []

    def _on_idle(self, now: int) -> list[Effect]:
        is_working = (
            self._admission.is_stopping
            or self._flush.is_due
            or self._role.is_busy
            or self._damage.is_known
            or not self._backlog.is_saved
            or self._upkeep.is_compacting
        )
        effects, is_time = self._idleness.on_timer(is_working, now)
        if not is_time:
            return [*effects]
        sleep_ms = self._upkeep.longest_sleep_ms
        wake_at = None if sleep_ms is None else now + sleep_ms
        retention = self._retain()
        return [*retention, MarkAsleep(wake_at), Sleep("no traffic", sleep_ms)]

    # -- requests

    def _on_received(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        self._idleness.on_request(now)
        refusal = self._admission.refusal(received)
        if refusal is not None:
            return refuse(received, refusal.body)
        if type(request) in _OF_A_ROLE:
            return self._role.on_request(received, now)
        match request:
            case Lead():
                return self._on_lead(received, request, now)
            case Follow():
                return self._on_follow(received, request)
            case ConfigurePartition():
                return self._on_configure(received, request, now)
            case MirrorAppend() | SealMirror() | PromotePartition() | RejoinPartition():
                refusal = mirror_refusal(self._arguments, self._role, request)
                if refusal is not None:
                    return refuse(received, refusal.body)
                if take_mirror(self._arguments, self._role, request):
                    return self._follow_mirror(received)
            case DescribePartition():
                found = description(self._arguments, self._role, self._incarnation, self._upkeep.size_bytes)
                return [Reply(received.sender, DescribePartitionReply(description=found))]
            case ReportLogEnd():
                return [Reply(received.sender, log_end(self._role, self._log))]
            case HighestEra():
                return [Reply(received.sender, HighestEraReply(era=self._log.producers.highest_era()))]
            case QuotasInForce():
                self._admission.quotas = request
                return []
        return self._role.on_request(received, now)

    # -- the role

    def _on_lead(self, received: Received, request: Lead, now: int) -> list[Effect]:
        if not self._is_news(request):
            return [self._role_reply(received)]
        is_same = isinstance(self._role, Leader) and self._role.leader_epoch == request.leader_epoch
        if isinstance(self._role, Leader) and is_same and leads_as_demanded(self._role, self._arguments):
            return [*self._role.reassign(request, now), self._role_reply(received)]
        # In the same epoch it cannot begin or end to be a mirror's: it asks for another one.
        is_taken = not is_same and request.leader_epoch >= self._arguments.first_epoch
        return self._change_role(received, request, UNSET, request.leader_epoch if is_taken else None)

    def _on_follow(self, received: Received, request: Follow) -> list[Effect]:
        if not self._is_news(request):
            return [self._role_reply(received)]
        if isinstance(self._role, Follower) and self._role.leader_epoch == request.leader_epoch:
            return [*self._role.redirect(request), self._role_reply(received)]
        return self._change_role(received, request, request.leader, None)

    def _is_news(self, request: Lead | Follow) -> bool:
        """Take a newer state of the partition. Return False for one that is older, or not given."""
        order = (request.leader_epoch, request.revision)
        if self._arguments.leadership != "given" or order < self._order:
            return False
        self._order = order
        if request.mirror is not UNSET:
            self._arguments.mirror = request.mirror
        return True

    def _change_role(
        self, received: Received, request: Lead | Follow, leader: str | UnsetType, leader_epoch: int | None
    ) -> list[Effect]:
        role = self._role
        self._log = structs.replace(self._log, high_watermark=role.watermarks.high_watermark)
        if isinstance(role, Follower):
            self._next_token = role.next_token
        effects = [*role.resign(leader), *due_cut(role, self._arguments)]
        self._role, self._asked = Undecided(self._log), received
        return [*effects, TakeRole(leader_epoch, request.unclean_epochs)]

    def _on_role_taken(self, log: OpenedLog, now: int) -> list[Effect]:
        known = max(log.high_watermark, min(self._log.high_watermark, log.log_end_offset))
        self._log = structs.replace(log, high_watermark=known)
        received, self._asked = self._asked, None
        if received is None or isinstance(received.request, CHANGES_OF_ROLE):
            self._role = self._leader_by(own_lead(self._arguments, log), now)
            effects = [*self._role.handle(self._wall_clock, now), *self._role.start(now)]
            return [*effects, *([] if received is None else [answer_of(received, self._role)])]
        request = received.request
        if isinstance(request, Follow):
            self._role = Follower(
                self._arguments,
                request,
                self._log,
                self._flush,
                self._next_token,
                is_damaged=self._damage.is_known,
            )
        elif isinstance(request, Lead) and log.leader_epoch == request.leader_epoch:
            self._role = self._leader_by(request, now)
        else:
            self._role = Undecided(self._log)
        effects = [*self._role.handle(self._wall_clock, now), *self._role.start(now)]
        if self._damage.is_known:
            effects += self._damage.report(self._arguments, self._role)
        alarm = unclean_alarm(request, self._log, self._arguments)
        return [*effects, *alarm, self._role_reply(received)]

    def _role_reply(self, received: Received) -> Reply:
        return Reply(received.sender, role_reply(self._role, self._order, self._log, self._arguments))

    # -- other requests

    def _on_configure(self, received: Received, request: ConfigurePartition, now: int) -> list[Effect]:
        config = request.config
        # A follower that leads later does so by the newest configuration.
        self._arguments.config = config
        self._arguments.mirror = request.mirror
        effects = [
            *self._upkeep.configure(config, now),
            *self._role.configure(config, now),
            *self._flush.configure(config.flush),
        ]
        return [*effects, *self._follow_mirror(received)]

    def _follow_mirror(self, received: Received) -> list[Effect]:
        if must_lead_again(self._role, self._arguments):
            return self._lead_again(received)
        return [answer_of(received, self._role)]

    def _lead_again(self, received: Received | None) -> list[Effect]:
        """Lead again, in an epoch above all that are in the log, as the topic's mirror demands."""
        if self._arguments.leadership == "given":
            return [Stop("the log begins again")]  # the next process gets another epoch
        effects = [*self._role.resign(UNSET), *due_cut(self._role, self._arguments)]
        self._role, self._asked = Undecided(self._log), received
        return [*effects, TakeRole(0, is_own=True)]

    # -- answers of the log

    def _on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._upkeep.on_appended(event.size_bytes)
        effects = [*self._role.on_appended(event, now), *self._flush.on_appended(now)]
        return effects + self._stop_if_done()

    def _on_trimmed(self, event: Trimmed, now: int) -> list[Effect]:
        self._upkeep.size_bytes = event.size_bytes
        return self._damage.on_trimmed(event.log_start_offset) + self._role.handle(event, now)

    def _on_request_failed(self, failed: RequestFailed) -> list[Effect]:
        reply = Reply(failed.received.sender, failed.error)
        if failed.loss is None:
            return [reply]
        return [reply, *self._damage.on_loss(failed.loss), *self._damage.report(self._arguments, self._role)]

    # -- time

    def _on_timer(self, fired: TimerFired, now: int) -> list[Effect]:
        key: TimerKey = fired.key
        match key:
            case SyncDue():
                return self._flush.on_timer()
            case RetentionDue():
                return self._on_retention_timer(now)
            case CompactionDue():
                return self._upkeep.on_compaction_timer(self._role.committed_offset)
            case CheckpointDue():
                return self._upkeep.on_checkpoint_timer(self._role.committed_offset, now)
            case IdleTimer():
                return self._on_idle(now)
            case MeasureDiskDue():
                return self._disk.look()
        return self._role.on_timer(key, now)

    def _on_retention_timer(self, now: int) -> list[Effect]:
        return [*self._retain(), self._upkeep.next_retention(now)]

    def _retain(self) -> list[Effect]:
        """Delete the segments beyond retention; a follower, and a mirror, does when its leader or source has."""
        retain = self._upkeep.retain(self._backlog.consumed_offset, self._role.committed_offset)
        return [retain] if self._role.retains else []
