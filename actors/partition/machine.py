"""The partition's machine: handles every request to one partition, without any input or output.

Owns the partition's offsets, its waiting requests and its timers. It must never read a clock, a file or a socket: it
returns effects (`effects.py`), and `process.py` performs them. Called by the loop through `handle`.

    event                 decides
    Produce               validate, stamp, place each batch: Append (and Sync); the acknowledgement waits
    Appended              high watermark up; acknowledgements and fetches that waited for it are answered
    AppendFailed          the log is as it was before the turn; its produces are answered STORAGE_FULL
    WriteMarkers          Append the markers that are missing; answered when they are visible
    Fetch, ReadDone       `fetches.py`
    ListOffsets           `offset_queries.py`
    DeleteRecords         DeleteBefore, never beyond the high watermark
    ReportProgress        `backlog.py`: a Produce is refused while a group is too far behind
    DiskMeasured          `disk.py`: a Produce is refused while the disk's reserve is in use
    ConfigurePartition    Reconfigure, and Sync if appends left to a timer may no longer wait
    TimerFired            parked: expired fetches; sync: flush = interval; retention; compaction: CompactSlice;
                          checkpoint; idle: Sleep, if there is no work (`idleness.py`)
    Compacted             the next slice soon if there is more to do, else later
    Answered, Failed      `transaction_reports.py`: a coordinator's answer about transactions that stay open
    StopRequested         waiting fetches fail; Stop once no request waits for the disk

Durable before visible: under flush = batch an offset falls below the high watermark only by the Appended that follows the
sync, so neither its acknowledgement nor a fetch can run ahead of the disk.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ...transport.addresses import is_internal
from ...transport.future import latest_ms
from ...transport.machine import (
    Answered,
    CancelTimer,
    Disconnected,
    Effect,
    Event,
    Failed,
    Received,
    Reply,
    SetTimer,
    Sleep,
    Stop,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.control import PeerDown, PeerUp
from ...transport.protocol.data import Fetch, ListOffsets, Produce, ProduceReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.quotas import QuotasInForce
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import (
    ConfigurePartition,
    DeleteRecords,
    DeleteRecordsReply,
    DescribePartition,
    DescribePartitionReply,
    HighestEra,
    HighestEraReply,
    PartitionDescription,
    TopicConfig,
)
from ...transport.protocol.transactions import WriteMarkers
from ..journal.transaction_reports import REPORT, Reports
from ..log.producers import ProducerStates
from .ages import compaction_check_ms, longest_sleep_ms, retention_check_ms
from .appends import Admission, Appends, PendingProduce
from .backlog import LAPSE_TIMER, SAVE_TIMER, Admitted, Backlog
from .damage import KnownDamage
from .disk import DISK_TIMER, DiskReserve
from .effects import (
    Append,
    Appended,
    AppendFailed,
    ApplyRetention,
    BacklogMeasured,
    Checkpoint,
    Compacted,
    CompactSlice,
    Compared,
    DeleteBefore,
    DiskMeasured,
    LogOpened,
    LookedUp,
    Loss,
    MarkAsleep,
    ReadDone,
    ReadUnfinished,
    Reconfigure,
    RequestFailed,
    Sync,
    Trimmed,
)
from .fetches import PARKED_TIMER, SEARCH_TIMER, Fetches
from .flush import FlushPolicy
from .idleness import IDLE, Idleness
from .offset_queries import OffsetQueries
from .parked import ParkedFetches
from .readers import Readers
from .replication import LEADER, Watermarks

SYNC_TIMER = "sync"
RETENTION_TIMER = "retention"
CHECKPOINT_TIMER = "checkpoint"
COMPACTION_TIMER = "compaction"

CHECKPOINT_INTERVAL_MS = 5_000
COMPACTION_SLICE_BYTES = 128 * 1024
"""About a millisecond's work: the longest delay of a request."""
COMPACTION_PAUSE_MS = 2
"""Pause between two slices, so that compaction takes at most a third of a busy partition's time."""

_NAMING_A_PARTITION = (Produce, Fetch, ListOffsets, DeleteRecords, ReportProgress, WriteMarkers)


class PartitionMachine:
    """One partition, led by this process. Its log is open and ends at `log_end_offset`."""

    def __init__(
        self,
        *,
        topic: str,
        partition: int,
        incarnation: int,
        config: TopicConfig,
        leader_epoch: int,
        log_start_offset: int,
        log_end_offset: int,
        size_bytes: int,
        producers: ProducerStates,
        topic_id: str = "",
        readers: Readers | None = None,
        disk_reserve_bytes: int = 0,
        losses: Sequence[Loss] = (),
        idle_ms: int = 0,
    ) -> None:
        self._topic, self._partition, self._topic_id = topic, partition, topic_id
        self._incarnation, self._leader_epoch = incarnation, leader_epoch
        known = readers or Readers()
        self._backlog = Backlog(topic_id, leader_epoch, known, log_start_offset, log_end_offset)
        self._quotas, self._idleness = QuotasInForce(), Idleness(idle_ms)
        self._disk = DiskReserve(disk_reserve_bytes)
        self._damage = KnownDamage(losses)
        self._adopt(config)
        self._size_bytes = size_bytes
        self._watermarks = Watermarks(log_start_offset, log_end_offset)
        self._producers = producers
        self._appends = Appends(producers, log_end_offset, leader_epoch)
        self._transactions = producers.transactions
        self._fetches = Fetches(topic_id, leader_epoch, self._watermarks, self._transactions, ParkedFetches())
        self._offsets = OffsetQueries(topic_id, leader_epoch, self._watermarks, self._fetches)
        self._reports = Reports({topic: [partition]})
        self._wall_offset_ms = 0
        self._is_sync_due = self._is_checkpoint_due = self._is_stopping = False
        self._events: dict[type, Callable[[Any, int], list[Effect]]] = {
            Received: self._on_received,
            Appended: self._on_appended,
            AppendFailed: self._on_append_failed,
            ReadDone: self._on_read_done,
            ReadUnfinished: self._on_read_unfinished,
            LookedUp: lambda found, _: self._offsets.on_looked_up(found),
            Compared: self._on_compared,
            Trimmed: self._on_trimmed,
            BacklogMeasured: self._on_backlog_measured,
            DiskMeasured: self._on_disk_measured,
            Compacted: self._on_compacted,
            RequestFailed: self._on_request_failed,
            **dict.fromkeys((Answered, Failed), self._on_outcome),
            TimerFired: self._on_timer,
            WallClockStepped: self._on_wall_clock_stepped,
            LogOpened: self._on_started,
            StopRequested: self._on_stop,
            **dict.fromkeys((PeerUp, PeerDown), self._on_peer),
            Disconnected: self._on_disconnected,
        }
        self._requests: dict[type, Callable[[Received, Any, int], list[Effect]]] = {
            Produce: self._on_produce,
            Fetch: self._on_fetch,
            ListOffsets: lambda asked, request, _: self._offsets.on_list_offsets(asked, request),
            DeleteRecords: self._on_delete_records,
            DescribePartition: self._on_describe,
            HighestEra: self._on_highest_era,
            ConfigurePartition: self._on_configure,
            ReportProgress: self._on_report_progress,
            QuotasInForce: self._on_quotas,
            WriteMarkers: self._on_write_markers,
            Cancel: lambda asked, _, __: self._fetches.on_cancel(asked),
        }

    def handle(self, event: Event, now: int) -> list[Effect]:
        return self._events[type(event)](event, now)

    def _on_wall_clock_stepped(self, stepped: WallClockStepped, _: int) -> list[Effect]:
        self._wall_offset_ms = stepped.offset_ms
        return []

    def _adopt(self, config: TopicConfig) -> None:
        self._config = config
        self._flush = FlushPolicy.parse(config.flush)

    def _on_started(self, _: LogOpened, now: int) -> list[Effect]:
        return [
            SetTimer(RETENTION_TIMER, now + retention_check_ms(self._config)),
            SetTimer(CHECKPOINT_TIMER, now + CHECKPOINT_INTERVAL_MS),
            *self._look_for_compaction(now),
            *self._disk.look(),
            *self._damage.alarm(),
            *self._backlog.configure(self._config, self._admitted, now),
            *self._look_for_open_transactions(now),
            *self._idleness.start(now),
        ]

    def _on_peer(self, _: PeerUp | PeerDown, __: int) -> list[Effect]:
        return []  # the partition repeats its calls itself

    def _on_disconnected(self, gone: Disconnected, _: int) -> list[Effect]:
        return self._fetches.on_disconnected(gone.connection)

    def _look_for_open_transactions(self, now: int) -> list[Effect]:
        if self._transactions.first_unstable_offset() is None and not self._reports.is_watching:
            return []
        return self._reports.look(self._transactions.open(), now)

    def _on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        return self._reports.on_outcome(event, now)

    # -- requests

    def _on_received(self, asked: Received, now: int) -> list[Effect]:
        request = asked.request
        self._idleness.on_request(now)
        if self._is_stopping and not isinstance(request, Cancel):
            return self._refuse(asked, ErrorCode.SHUTTING_DOWN, "the partition is stopping")
        if isinstance(request, _NAMING_A_PARTITION) and (
            request.partition != self._partition or request.topic != self._topic
        ):
            here = f"{self._topic}/{self._partition}"
            there = f"{request.topic}/{request.partition}"
            return self._refuse(asked, ErrorCode.UNKNOWN_PARTITION, f"this is {here}, not {there}")
        if isinstance(request, Produce | Fetch) and request.topic_id not in (None, self._topic_id):
            message = f"{self._topic} was created again: its id is {self._topic_id}"
            return self._refuse(asked, ErrorCode.UNKNOWN_TOPIC_ID, message, topic_id=self._topic_id)
        if (
            isinstance(request, Produce | Fetch)
            and request.client_id
            and self._quotas.limits(request.client_id)
        ):
            message = (
                f"client {request.client_id[:256]!r} is under a quota, which the gateway keeps: ask there"
            )
            return self._refuse(asked, ErrorCode.ACTOR_UNAVAILABLE, message)
        return self._requests[type(request)](asked, request, now)

    def _refuse(self, asked: Received, code: ErrorCode, message: str, **hints: Any) -> list[Effect]:
        if isinstance(asked.request, Produce) and asked.request.acks == 0:
            return []
        return [Reply(asked.sender, ProtocolError(code, message, **hints).body)]

    # -- produce

    def _on_produce(self, asked: Received, request: Produce, now: int) -> list[Effect]:
        if not asked.payload:
            return self._refuse(asked, ErrorCode.INVALID_REQUEST, "produce: no batch frames")
        refusal, effects = self._disk.on_produce(self._appends.bytes_admitted, now)
        if refusal is None:
            refusal, alarm = self._backlog.refusal(self._admitted)
            effects += alarm
        if refusal is not None:
            return effects if request.acks == 0 else [*effects, Reply(asked.sender, refusal.body)]
        # The later of the two clocks: no producer is refused when the machine's clock is set back.
        latest = latest_ms(now + max(0, self._wall_offset_ms), self._config.max_timestamp_ahead_ms)
        admission = self._appends.admit(asked.payload, self._config, now, latest)
        effects += self._append(admission, self._flush.is_every_turn)
        if request.acks == 0:
            return effects
        pending = PendingProduce(asked.sender, request.acks, admission.results, admission.complete_at_offset)
        return effects + self._acknowledge_when_held(pending)

    def _on_write_markers(self, asked: Received, request: WriteMarkers, now: int) -> list[Effect]:
        admission = self._appends.admit_markers(request.markers, now, now + self._wall_offset_ms)
        pending = PendingProduce(asked.sender, "all", None, admission.complete_at_offset)
        # Coordinators forget a transaction once its markers are written, so they are synced under any flush policy.
        return self._append(admission, is_synced=True) + self._acknowledge_when_held(pending)

    def _append(self, admission: Admission, is_synced: bool) -> list[Effect]:
        if not admission.frames:
            return []
        append = Append(admission.frames, admission.headers)
        return [append, Sync()] if is_synced else [append]

    def _acknowledge_when_held(self, pending: PendingProduce) -> list[Effect]:
        if pending.complete_at_offset <= self._watermarks.held(pending.acks):
            return [self._acknowledge(pending)]
        self._appends.park(pending)
        return []

    def _acknowledge(self, pending: PendingProduce) -> Effect:
        if pending.results is None:
            return Reply(pending.sender, Done())
        body = ProduceReply(batches=pending.results, high_watermark=self._watermarks.high_watermark)
        return Reply(pending.sender, body)

    def _on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._appends.written(event.log_end_offset)
        self._size_bytes = event.size_bytes
        self._watermarks.advance(LEADER, event.log_end_offset)
        self._is_checkpoint_due = True
        self._idleness.is_compacted = False
        effects = [self._acknowledge(pending) for pending in self._appends.release(self._watermarks)]
        effects += self._fetches.on_visible(self._appends.bytes_written)
        effects += self._look_for_open_transactions(now)
        if self._flush.interval_ms is not None and not self._is_sync_due:
            self._is_sync_due = True
            effects.append(SetTimer(SYNC_TIMER, now + self._flush.interval_ms))
        return effects + self._stop_if_done()

    def _on_append_failed(self, event: AppendFailed, _: int) -> list[Effect]:
        lost = self._appends.failed(event.log_end_offset)
        refusals: list[Effect] = [Reply(pending.sender, event.error) for pending in lost]
        return refusals + self._stop_if_done()

    # -- reads

    def _on_fetch(self, asked: Received, _: Fetch, now: int) -> list[Effect]:
        return self._fetches.on_fetch(asked, now, self._appends.bytes_written)

    def _on_compared(self, event: Compared, now: int) -> list[Effect]:
        return self._fetches.on_compared(event, now, self._appends.bytes_written)

    def _on_read_done(self, done: ReadDone, now: int) -> list[Effect]:
        return self._fetches.on_read_done(done, now, self._appends.bytes_written)

    def _on_read_unfinished(self, event: ReadUnfinished, now: int) -> list[Effect]:
        return self._fetches.on_read_unfinished(event.read, now)

    def _on_request_failed(self, failed: RequestFailed, _: int) -> list[Effect]:
        reply = Reply(failed.asked.sender, failed.error)
        return [reply] if failed.loss is None else [reply, *self._damage.on_loss(failed.loss)]

    # -- the groups' progress

    @property
    def _admitted(self) -> Admitted:
        return Admitted(self._appends.log_end_offset, self._appends.bytes_admitted)

    def _on_report_progress(self, asked: Received, request: ReportProgress, now: int) -> list[Effect]:
        return self._backlog.on_report(asked, request, self._admitted, now)

    def _on_backlog_measured(self, event: BacklogMeasured, _: int) -> list[Effect]:
        return self._backlog.on_measured(event.behind_bytes, self._appends.bytes_written, self._admitted)

    def _on_disk_measured(self, event: DiskMeasured, now: int) -> list[Effect]:
        return self._disk.on_measured(event.free_bytes, now)

    def _on_quotas(self, _: Received, request: QuotasInForce, __: int) -> list[Effect]:
        self._quotas = request
        return []

    # -- administration

    def _on_delete_records(self, asked: Received, request: DeleteRecords, _: int) -> list[Effect]:
        if is_internal(self._topic):
            return self._refuse(asked, ErrorCode.FORBIDDEN, f"topic {self._topic!r} is internal")
        high_watermark = self._watermarks.high_watermark
        before_offset = high_watermark if request.before_offset == -1 else request.before_offset
        if not 0 <= before_offset <= high_watermark:
            message = (
                f"records before {before_offset} cannot be deleted, visible ones end at {high_watermark}"
            )
            return self._refuse(asked, ErrorCode.OFFSET_OUT_OF_RANGE, message)
        return [DeleteBefore(asked, before_offset)]

    def _on_trimmed(self, event: Trimmed, now: int) -> list[Effect]:
        self._watermarks.log_start_offset = event.log_start_offset
        self._transactions.trim(event.log_start_offset)
        self._size_bytes = event.size_bytes
        effects = self._backlog.on_log_start(event.log_start_offset, self._admitted, now)
        effects += self._damage.on_trimmed(event.log_start_offset)
        if event.asked is None:
            return effects
        return [
            *effects,
            Reply(event.asked.sender, DeleteRecordsReply(log_start_offset=event.log_start_offset)),
        ]

    def _on_describe(self, asked: Received, _: DescribePartition, __: int) -> list[Effect]:
        description = PartitionDescription(
            partition=self._partition,
            online=True,
            incarnation=self._incarnation,
            leader_epoch=self._leader_epoch,
            log_start_offset=self._watermarks.log_start_offset,
            high_watermark=self._watermarks.high_watermark,
            log_end_offset=self._appends.log_end_offset,
            size_bytes=self._size_bytes,
        )
        return [Reply(asked.sender, DescribePartitionReply(description=description))]

    def _on_highest_era(self, asked: Received, _: HighestEra, __: int) -> list[Effect]:
        return [Reply(asked.sender, HighestEraReply(era=self._producers.highest_era()))]

    def _on_configure(self, asked: Received, request: ConfigurePartition, now: int) -> list[Effect]:
        self._adopt(request.config)
        effects: list[Effect] = [
            Reconfigure(request.config),
            SetTimer(RETENTION_TIMER, now + retention_check_ms(self._config)),
            *self._look_for_compaction(now),
            *self._backlog.configure(self._config, self._admitted, now),
            Reply(asked.sender, Done()),
        ]
        # From here on readers may rely on the new policy, also for records written under the old one.
        if self._flush.is_every_turn:
            self._is_sync_due = False
            effects.append(Sync())
        return effects

    # -- time

    def _on_timer(self, fired: TimerFired, now: int) -> list[Effect]:
        if fired.key == PARKED_TIMER:
            return self._fetches.on_timer(now)
        if fired.key == SEARCH_TIMER:
            return self._fetches.on_search_timer(now)
        if fired.key == SYNC_TIMER:
            was_due, self._is_sync_due = self._is_sync_due, False
            return [Sync()] if was_due else []
        if fired.key == RETENTION_TIMER:
            return [self._retain(), SetTimer(RETENTION_TIMER, now + retention_check_ms(self._config))]
        if fired.key == IDLE:
            return self._on_idle(now)
        if fired.key == COMPACTION_TIMER:
            return [CompactSlice(COMPACTION_SLICE_BYTES)]
        if fired.key == LAPSE_TIMER:
            return self._backlog.on_lapse(self._admitted, now)
        if fired.key == DISK_TIMER:
            return self._disk.look()
        if fired.key == SAVE_TIMER:
            return self._backlog.on_save_timer()
        if fired.key == REPORT:
            return self._reports.on_timer(now)
        assert fired.key == CHECKPOINT_TIMER, f"unknown timer {fired.key}"
        again = SetTimer(CHECKPOINT_TIMER, now + CHECKPOINT_INTERVAL_MS)
        was_due, self._is_checkpoint_due = self._is_checkpoint_due, False
        return [Checkpoint(), again] if was_due else [again]

    def _retain(self) -> Effect:
        return ApplyRetention(self._backlog.consumed_offset if self._config.retain_until_consumed else None)

    def _on_idle(self, now: int) -> list[Effect]:
        is_working = (
            self._is_stopping
            or self._is_sync_due
            or bool(len(self._appends) or self._fetches.is_busy or self._damage.is_known)
            or self._reports.is_watching
            or not self._backlog.is_saved
            or ("compact" in self._config.cleanup and not self._idleness.is_compacted)
        )
        effects, is_time = self._idleness.on_timer(is_working, now)
        if not is_time:
            return effects
        sleep_ms = longest_sleep_ms(self._config, self._size_bytes)
        wake_at = None if sleep_ms is None else now + sleep_ms
        return [self._retain(), MarkAsleep(wake_at), Sleep("no traffic", sleep_ms)]

    def _look_for_compaction(self, now: int) -> list[Effect]:
        if "compact" not in self._config.cleanup:
            return [CancelTimer(COMPACTION_TIMER)]
        return [SetTimer(COMPACTION_TIMER, now + compaction_check_ms(self._config))]

    def _on_compacted(self, event: Compacted, now: int) -> list[Effect]:
        self._size_bytes = event.size_bytes
        self._idleness.is_compacted = not event.is_more
        if event.is_more:
            return [SetTimer(COMPACTION_TIMER, now + COMPACTION_PAUSE_MS)]
        return self._look_for_compaction(now)

    def _on_stop(self, _: StopRequested, __: int) -> list[Effect]:
        self._is_stopping = True
        away = self._fetches.send_away(ProtocolError(ErrorCode.SHUTTING_DOWN, "the partition is stopping"))
        return away + self._stop_if_done()

    def _stop_if_done(self) -> list[Effect]:
        return [Stop("asked to")] if self._is_stopping and not len(self._appends) else []
