"""The partition's machine: handles every request to one partition, without any input or output.

Owns the parts of a partition and passes each event to one of them. It must never read a clock, a file or a socket: it
returns effects (`effects.py`), and `process.py` performs them. Called by the loop through `handle`.

    role        leader.py: appends and acknowledgements, fetches.py and offset_queries.py: reads, backlog.py: groups
    any role    admission.py: refusals, flush.py: syncs, upkeep.py: retention, compaction, checkpoints,
                disk.py and damage.py: alarms, journal/idleness.py: sleep

    state       means                                                     left by
    serving     takes requests                                            StopRequested -> stopping; no traffic -> asleep
    stopping    refuses requests, waiting fetches have failed             no producer waits for the disk -> Stop
    asleep      retention has run once more; the process ends (Sleep)
"""

from typing import assert_never

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
from ...transport.protocol.data import Fetch, ListOffsets, Produce
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.quotas import QuotasInForce
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import (
    ConfigurePartition,
    DeleteRecords,
    DescribePartition,
    DescribePartitionReply,
    HighestEra,
    HighestEraReply,
    PartitionDescription,
)
from ...transport.protocol.transactions import WriteMarkers
from ..journal.idleness import Idleness, IdleTimer
from ..journal.transaction_reports import ReportTimer
from .admission import PartitionAdmission
from .arguments import OpenedLog, PartitionArguments
from .backlog import Backlog
from .damage import KnownDamage
from .disk import DiskReserve
from .effects import (
    Alarm,
    Appended,
    AppendFailed,
    BacklogMeasured,
    Compacted,
    Compared,
    DiskMeasured,
    Effect,
    Event,
    GroupsSaved,
    LogOpened,
    LookedUp,
    MarkAsleep,
    ReadDone,
    ReadUnfinished,
    RequestFailed,
    Trimmed,
)
from .flush import Flush
from .groups import ReportedGroups
from .leader import Leader
from .timers import (
    CheckpointDue,
    CompactionDue,
    FetchesExpire,
    GroupLapses,
    MeasureDiskDue,
    RetentionDue,
    SaveGroupsDue,
    SearchContinues,
    SyncDue,
    TimerKey,
)
from .upkeep import Upkeep

IDLE_CHECK_MS = 5_000
"""Time after which a partition that was idle, but at work, looks again."""


class PartitionMachine:
    """One partition, led by this process, whose log is open."""

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
        self._backlog = Backlog(
            arguments.topic_id,
            log.leader_epoch,
            groups or ReportedGroups(),
            log.log_start_offset,
            log.log_end_offset,
        )
        self._disk = DiskReserve(arguments.disk_reserve_bytes)
        self._damage = KnownDamage(log.losses)
        # The alarm of a lost file must stay visible.
        self._idleness = Idleness(0 if log.lost_files else arguments.idle_ms, IDLE_CHECK_MS)
        self._upkeep = Upkeep(config, log.size_bytes)
        self._flush = Flush(config.flush)
        self._admission = PartitionAdmission(
            arguments.topic, arguments.partition, arguments.topic_id, self._disk, self._backlog
        )
        self._leader = Leader(arguments, log, self._backlog, self._admission, self._flush)

    @property
    def parked_fetches(self) -> int:
        return self._leader.fetches.parked_count

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Received():
                return self._on_received(event, now)
            case Appended():
                return self._on_appended(event, now)
            case ReadDone():
                return self._leader.fetches.on_read_done(event, now)
            case TimerFired():
                return self._on_timer(event, now)
            case AppendFailed():
                return self._leader.on_append_failed(event) + self._stop_if_done()
            case ReadUnfinished():
                return self._leader.fetches.on_read_unfinished(event.read, now)
            case LookedUp():
                return self._leader.offsets.on_looked_up(event)
            case Compared():
                return self._leader.fetches.on_compared(event, now)
            case Trimmed():
                return self._on_trimmed(event, now)
            case RequestFailed():
                return self._on_request_failed(event)
            case Compacted():
                return self._upkeep.on_compacted(event, now)
            case BacklogMeasured():
                return self._leader.on_backlog_measured(event)
            case GroupsSaved():
                return self._leader.on_groups_saved(event, now)
            case DiskMeasured():
                return self._disk.on_measured(event.free_bytes, now)
            case Answered() | Failed():
                return self._leader.on_outcome(event, now)
            case Disconnected():
                return self._leader.fetches.on_disconnected(event.connection)
            case WallClockStepped():
                self._leader.wall_offset_ms = event.offset_ms
                return []
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
            *self._leader.start(now),
            *self._idleness.start(now),
        ]

    def _on_stop(self) -> list[Effect]:
        self._admission.is_stopping = True
        error = ProtocolError(ErrorCode.SHUTTING_DOWN, "the partition is stopping")
        return self._leader.fetches.fail_all(error) + self._stop_if_done()

    def _stop_if_done(self) -> list[Effect]:
        is_done = self._admission.is_stopping and not self._leader.has_pending_appends
        return [Stop("asked to")] if is_done else []

    def _on_idle(self, now: int) -> list[Effect]:
        is_working = (
            self._admission.is_stopping
            or self._flush.is_due
            or self._leader.is_busy
            or self._damage.is_known
            or not self._backlog.is_saved
            or self._upkeep.is_compacting
        )
        effects, is_time = self._idleness.on_timer(is_working, now)
        if not is_time:
            return [*effects]
        sleep_ms = self._upkeep.longest_sleep_ms
        wake_at = None if sleep_ms is None else now + sleep_ms
        retention = self._upkeep.retain(self._backlog.consumed_offset)
        return [retention, MarkAsleep(wake_at), Sleep("no traffic", sleep_ms)]

    # -- requests

    def _on_received(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        self._idleness.on_request(now)
        refusal = self._admission.refusal(received)
        if refusal is not None:
            is_unanswered = isinstance(request, Produce) and request.acks == 0
            return [] if is_unanswered else [Reply(received.sender, refusal.body)]
        match request:
            case Produce():
                return self._leader.on_produce(received, request, now)
            case Fetch():
                return self._leader.fetches.on_fetch(received, now)
            case ListOffsets():
                return self._leader.offsets.on_list_offsets(received, request)
            case ReportProgress():
                return self._leader.on_report_progress(received, request, now)
            case WriteMarkers():
                return self._leader.on_write_markers(received, request, now)
            case DeleteRecords():
                return self._leader.on_delete_records(received, request)
            case Cancel():
                return self._leader.fetches.on_cancel(received)
            case ConfigurePartition():
                return self._on_configure(received, request, now)
            case DescribePartition():
                return [Reply(received.sender, DescribePartitionReply(description=self._description()))]
            case HighestEra():
                return [Reply(received.sender, HighestEraReply(era=self._log.producers.highest_era()))]
            case QuotasInForce():
                self._admission.quotas = request
                return []
        raise AssertionError(f"a partition takes no {type(request).__name__}")

    def _description(self) -> PartitionDescription:
        watermarks = self._leader.watermarks
        return PartitionDescription(
            partition=self._arguments.partition,
            online=True,
            incarnation=self._incarnation,
            leader_epoch=self._log.leader_epoch,
            log_start_offset=watermarks.log_start_offset,
            high_watermark=watermarks.high_watermark,
            log_end_offset=self._leader.log_end_offset,
            size_bytes=self._upkeep.size_bytes,
        )

    def _on_configure(self, received: Received, request: ConfigurePartition, now: int) -> list[Effect]:
        config = request.config
        return [
            *self._upkeep.configure(config, now),
            *self._leader.configure(config, now),
            Reply(received.sender, Done()),
            *self._flush.configure(config.flush),
        ]

    # -- answers of the log

    def _on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._upkeep.on_appended(event.size_bytes)
        effects = self._leader.on_appended(event, now)
        effects += self._flush.on_appended(now)
        return effects + self._stop_if_done()

    def _on_trimmed(self, event: Trimmed, now: int) -> list[Effect]:
        self._upkeep.size_bytes = event.size_bytes
        return self._damage.on_trimmed(event.log_start_offset) + self._leader.on_trimmed(event, now)

    def _on_request_failed(self, failed: RequestFailed) -> list[Effect]:
        reply = Reply(failed.received.sender, failed.error)
        return [reply] if failed.loss is None else [reply, *self._damage.on_loss(failed.loss)]

    # -- time

    def _on_timer(self, fired: TimerFired, now: int) -> list[Effect]:
        key: TimerKey = fired.key
        match key:
            case FetchesExpire():
                return self._leader.fetches.on_timer(now)
            case SearchContinues():
                return self._leader.fetches.on_search_timer(now)
            case SyncDue():
                return self._flush.on_timer()
            case RetentionDue():
                return self._upkeep.on_retention_timer(self._backlog.consumed_offset, now)
            case CompactionDue():
                return self._upkeep.on_compaction_timer()
            case CheckpointDue():
                return self._upkeep.on_checkpoint_timer(now)
            case IdleTimer():
                return self._on_idle(now)
            case ReportTimer():
                return self._leader.on_report_timer(now)
            case GroupLapses():
                return self._leader.on_group_lapse(now)
            case SaveGroupsDue():
                return self._backlog.on_save_timer()
            case MeasureDiskDue():
                return self._disk.look()
        assert_never(key)
