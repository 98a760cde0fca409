"""The leader's part of a partition: it places batches, acknowledges them, answers readers and decides on deletion. Pure.

Owns the watermarks, the appends that wait for them, the fetches, and the groups' backlog. `machine.py` has the parts
that do not depend on the role. Called by the machine.

    request or event      decides
    Produce               validate, stamp, place each batch: Append (and Sync); the acknowledgement waits
    WriteMarkers          Append the markers that are missing; answered when they are visible
    Appended              high watermark up; acknowledgements and fetches that waited for it are answered
    AppendFailed          the log is as it was before the turn; its produces are answered STORAGE_FULL
    DeleteRecords         DeleteBefore, never beyond the high watermark
    Trimmed               the log's start up; a DeleteRecords is answered
    Answered, Failed      `transaction_reports.py`: a coordinator's answer about transactions that stay open

Durable before visible: under flush = batch an offset falls below the high watermark only by the Appended that follows
the sync, so neither its acknowledgement nor a fetch can run ahead of the disk.
"""

from ...transport.addresses import is_internal
from ...transport.future import latest_ms
from ...transport.machine import Answered, Failed, Received, Reply
from ...transport.protocol.data import Produce, ProduceReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.topics import DeleteRecords, DeleteRecordsReply, TopicConfig
from ...transport.protocol.transactions import WriteMarkers
from ..journal.transaction_reports import ReportCall, TransactionReports
from .admission import PartitionAdmission
from .appends import Appends, PendingProduce, Placement
from .arguments import OpenedLog, PartitionArguments
from .backlog import Backlog, LogEnd
from .effects import (
    Append,
    Appended,
    AppendFailed,
    BacklogMeasured,
    DeleteBefore,
    Effect,
    GroupsSaved,
    Sync,
    Trimmed,
)
from .fetches import Fetches
from .flush import Flush
from .offset_queries import OffsetLookups
from .replication import LEADER, Watermarks
from .views import Views


class Leader:
    def __init__(
        self,
        arguments: PartitionArguments,
        log: OpenedLog,
        backlog: Backlog,
        admission: PartitionAdmission,
        flush: Flush,
    ) -> None:
        topic_id, leader_epoch = arguments.topic_id, log.leader_epoch
        self._topic = arguments.topic
        self._config = arguments.config
        self._backlog = backlog
        self._admission = admission
        self._flush = flush
        self._transactions = log.producers.transactions
        self.watermarks = Watermarks(log.log_start_offset, log.log_end_offset)
        self._appends = Appends(log.producers, log.log_end_offset, leader_epoch)
        views = Views(self.watermarks, self._transactions)
        self.fetches = Fetches(topic_id, leader_epoch, self.watermarks, views)
        self.offsets = OffsetLookups(topic_id, leader_epoch, self.watermarks, views)
        self._reports = TransactionReports({arguments.topic: [arguments.partition]})
        self.wall_offset_ms = 0
        """Offset of the time of day from the clock of `now`."""

    @property
    def log_end_offset(self) -> int:
        """Return the end of the log once this turn's appends are written."""
        return self._appends.log_end_offset

    @property
    def has_pending_appends(self) -> bool:
        """True while a producer waits for the disk."""
        return len(self._appends) > 0

    @property
    def is_busy(self) -> bool:
        """True while a request waits, or an open transaction has to be watched."""
        return self.has_pending_appends or self.fetches.is_busy or self._reports.is_watching

    @property
    def _end(self) -> LogEnd:
        return LogEnd(self._appends.log_end_offset, self._appends.bytes_placed)

    def start(self, now: int) -> list[Effect]:
        return [
            *self._backlog.configure(self._config, self._end, now),
            *self._look_for_open_transactions(now),
        ]

    def configure(self, config: TopicConfig, now: int) -> list[Effect]:
        self._config = config
        return self._backlog.configure(config, self._end, now)

    # -- appends

    def on_produce(self, received: Received, request: Produce, now: int) -> list[Effect]:
        if not received.payload:
            refusal: ProtocolError | None = ProtocolError(
                ErrorCode.INVALID_REQUEST, "produce: no batch frames"
            )
            effects: list[Effect] = []
        else:
            refusal, effects = self._admission.produce_refusal(self._end, now)
        if refusal is not None:
            return effects if request.acks == 0 else [*effects, Reply(received.sender, refusal.body)]
        # The later of the two clocks: no producer is refused when the machine's clock is set back.
        latest = latest_ms(now + max(0, self.wall_offset_ms), self._config.max_timestamp_ahead_ms)
        placement = self._appends.place(received.payload, self._config, now, latest)
        effects += _append(placement, self._flush.is_every_turn)
        if request.acks == 0:
            return effects
        pending = PendingProduce(
            received.sender, request.acks, placement.results, placement.complete_at_offset
        )
        return effects + self._acknowledge_when_held(pending)

    def on_write_markers(self, received: Received, request: WriteMarkers, now: int) -> list[Effect]:
        placement = self._appends.place_markers(request.markers, now, now + self.wall_offset_ms)
        pending = PendingProduce(received.sender, "all", None, placement.complete_at_offset)
        # Coordinators forget a transaction once its markers are written, so they are synced under any flush policy.
        return _append(placement, is_synced=True) + self._acknowledge_when_held(pending)

    def _acknowledge_when_held(self, pending: PendingProduce) -> list[Effect]:
        if pending.complete_at_offset <= self.watermarks.held(pending.acks):
            return [self._acknowledge(pending)]
        self._appends.park(pending)
        return []

    def _acknowledge(self, pending: PendingProduce) -> Effect:
        if pending.results is None:
            return Reply(pending.sender, Done())
        body = ProduceReply(batches=pending.results, high_watermark=self.watermarks.high_watermark)
        return Reply(pending.sender, body)

    def on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._appends.written(event.log_end_offset)
        self.watermarks.advance(LEADER, event.log_end_offset)
        effects = [self._acknowledge(pending) for pending in self._appends.release(self.watermarks)]
        effects += self.fetches.on_visible(self._appends.bytes_written)
        return effects + self._look_for_open_transactions(now)

    def on_append_failed(self, event: AppendFailed) -> list[Effect]:
        lost = self._appends.failed(event.log_end_offset)
        return [Reply(pending.sender, event.error) for pending in lost]

    # -- open transactions

    def _look_for_open_transactions(self, now: int) -> list[Effect]:
        if self._transactions.first_unstable_offset() is None and not self._reports.is_watching:
            return []
        return [*self._reports.look(self._transactions.open(), now)]

    def on_report_timer(self, now: int) -> list[Effect]:
        return [*self._reports.on_timer(now)]

    def on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        assert isinstance(event.key, ReportCall)
        return [*self._reports.on_outcome(event.key.transaction, event, now)]

    # -- the groups' progress

    def on_report_progress(self, received: Received, request: ReportProgress, now: int) -> list[Effect]:
        return self._backlog.on_report(received, request, self._end, now)

    def on_backlog_measured(self, event: BacklogMeasured) -> list[Effect]:
        return self._backlog.on_measured(event.behind_bytes, self._appends.bytes_written, self._end)

    def on_groups_saved(self, event: GroupsSaved, now: int) -> list[Effect]:
        return self._backlog.on_saved(event, self._end, now)

    def on_group_lapse(self, now: int) -> list[Effect]:
        """Handle the lapse of a group that has had no members and no reports for long enough."""
        return self._backlog.on_lapse(self._end, now)

    # -- the log's start

    def on_delete_records(self, received: Received, request: DeleteRecords) -> list[Effect]:
        high_watermark = self.watermarks.high_watermark
        before_offset = high_watermark if request.before_offset == -1 else request.before_offset
        if is_internal(self._topic):
            error = ProtocolError(ErrorCode.FORBIDDEN, f"topic {self._topic!r} is internal")
        elif not 0 <= before_offset <= high_watermark:
            message = (
                f"records before {before_offset} cannot be deleted, visible ones end at {high_watermark}"
            )
            error = ProtocolError(ErrorCode.OFFSET_OUT_OF_RANGE, message)
        else:
            return [DeleteBefore(received, before_offset)]
        return [Reply(received.sender, error.body)]

    def on_trimmed(self, event: Trimmed, now: int) -> list[Effect]:
        self.watermarks.log_start_offset = event.log_start_offset
        self._transactions.trim(event.log_start_offset)
        effects = self._backlog.on_log_start(event.log_start_offset, self._end, now)
        if event.received is not None:
            reply = DeleteRecordsReply(log_start_offset=event.log_start_offset)
            effects.append(Reply(event.received.sender, reply))
        return effects


def _append(placement: Placement, is_synced: bool) -> list[Effect]:
    if not placement.frames:
        return []
    append = Append(placement.frames, placement.headers)
    return [append, Sync()] if is_synced else [append]
