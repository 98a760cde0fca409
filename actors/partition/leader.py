"""The leader's part of a partition: it places batches, acknowledges them, answers readers and decides on deletion. Pure.

Owns the appends that wait for the watermarks, the fetches of clients, the replicas (`replicas.py`), and the groups'
backlog. `machine.py` has the parts that do not depend on the role. Called by the machine.

    request or event      decides
    Produce               validate, stamp, place each batch: Append (and Sync); the acknowledgement waits
    WriteMarkers          Append the markers that are missing; answered when they are visible
    Written               the followers' parked fetches are answered
    Appended              durable here; requests that waited for that, or for the high watermark, are answered
    a follower's report   the high watermark may move
    AppendFailed          the log is as it was before the turn; its produces are answered STORAGE_FULL
    DeleteRecords         DeleteBefore, never beyond the high watermark
    Trimmed               the log's start up; a DeleteRecords is answered
    Answered, Failed      a coordinator's answer (`open_transactions.py`), or the controller's (`replicas.py`)

Durable before visible: under flush = batch an offset falls below the high watermark only by the Appended that follows
the sync, so neither its acknowledgement nor a client's fetch can run ahead of the disk; with followers, only once it is
durable on all that are in sync. A new leader does not know how far the high watermark of its predecessor was: until its
own has reached the start of its epoch, fetches beyond wait and offsets are not looked up, so no reader sees time go back.
"""

from collections import deque

from msgspec import UNSET, UnsetType

from ...transport.addresses import is_internal
from ...transport.future import latest_ms
from ...transport.machine import Answered, Disconnected, Failed, Received, Reply, WallClockStepped
from ...transport.protocol.data import Fetch, ListOffsets, Produce, ProduceReply
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.progress import ReportProgress
from ...transport.protocol.replication import (
    Lead,
    ReachLeader,
    ReachLeaderReply,
    ReplicaDurable,
    ReplicaFetch,
    ReplicaReported,
    Role,
)
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import DeleteRecords, DeleteRecordsReply, TopicConfig
from ...transport.protocol.transactions import WriteMarkers
from ..journal.transaction_reports import ReportTimer
from .admission import PartitionAdmission
from .appends import Appends, PendingProduce, Placement
from .arguments import PartitionArguments
from .backlog import Backlog, LogEnd
from .effects import (
    Append,
    Appended,
    AppendFailed,
    BacklogMeasured,
    Compared,
    DeleteBefore,
    Effect,
    Event,
    GroupsSaved,
    LookedUp,
    OpenedLog,
    ReadDone,
    ReadUnfinished,
    SessionChecked,
    Sync,
    Trimmed,
    Written,
)
from .fetches import Fetches
from .flush import Flush
from .offset_queries import OffsetLookups
from .open_transactions import OpenTransactions
from .replicas import CatchUpCall, ProposalCall, ReliefCall, Replicas
from .roles import Undecided, refuse
from .session_trust import SessionTrust, refusal
from .timers import (
    FetchesExpire,
    GroupLapses,
    InSyncDue,
    ReplicaFetchesExpire,
    SaveGroupsDue,
    SearchContinues,
    SessionCall,
    TimerKey,
)
from .views import Views


class Leader(Undecided):
    name: Role = "leader"
    retains = True
    follows_reports = False
    """True if a request may wait for a follower's report that does not move the high watermark."""

    def __init__(
        self,
        arguments: PartitionArguments,
        lead: Lead,
        log: OpenedLog,
        backlog: Backlog,
        admission: PartitionAdmission,
        flush: Flush,
        now: int,
    ) -> None:
        super().__init__(log)
        topic_id, leader_epoch = arguments.topic_id, log.leader_epoch
        self._topic = arguments.topic
        self._config = arguments.config
        self._reached_at = arguments.reached_at
        self._backlog = backlog
        self._admission = admission
        self._flush = flush
        self._transactions = log.producers.transactions
        self._key_versions = log.producers.key_versions
        self._key_versions.trim(log.log_start_offset)
        self._open_transactions = OpenTransactions(arguments, self._transactions)
        self.leader_epoch = leader_epoch
        self.replicas = Replicas(arguments, lead, log, self.watermarks, now)
        self._in_sync = self.replicas.in_sync
        self._trust = SessionTrust(lead.trusted_until_ms)
        self._appends = Appends(log.producers, log.log_end_offset, leader_epoch)
        self._turns: deque[tuple[int, int]] = deque()
        """The log end after each turn whose appends are not all visible yet, and all bytes written until then."""
        views = Views(self.watermarks, self._transactions)
        self.fetches = Fetches(topic_id, leader_epoch, self.watermarks, views)
        self.offsets = OffsetLookups(topic_id, leader_epoch, self.watermarks, views)
        self.wall_offset_ms = 0
        """Offset of the time of day from the clock of `now`."""
        self._answered_offset = self.watermarks.high_watermark
        """The high watermark up to which everything that waited was answered."""
        self._is_over = False
        """True once another replica is known to lead."""

    @property
    def parked_count(self) -> int:
        return self.fetches.parked_count

    @property
    def log_end_offset(self) -> int:
        return self._appends.log_end_offset

    @property
    def has_pending_appends(self) -> bool:
        return len(self._appends) > 0

    @property
    def is_busy(self) -> bool:
        return self.has_pending_appends or self.fetches.is_busy or self._open_transactions.is_watching

    @property
    def committed_offset(self) -> int | None:
        return self.watermarks.high_watermark if self._in_sync.has_others else None

    @property
    def _end(self) -> LogEnd:
        return LogEnd(self._appends.log_end_offset, self._appends.bytes_placed)

    def start(self, now: int) -> list[Effect]:
        aborts = self._open_transactions.left_by_source()
        placement = self._appends.place_markers(aborts, now, now + self.wall_offset_ms)
        return [
            *_append(placement, is_synced=True, is_shared=self._in_sync.has_others),
            *self._backlog.configure(self._config, self._end, now),
            *self._open_transactions.look(now),
            *self.replicas.start(now),
        ]

    def configure(self, config: TopicConfig, now: int) -> list[Effect]:
        self._config = config
        return self._backlog.configure(config, self._end, now)

    def reassign(self, lead: Lead, now: int) -> list[Effect]:
        """Take the state of the partition again, in the same leader epoch."""
        return self.replicas.reassign(lead, now) + self._on_watermarks()

    # -- the machine's events

    def on_request(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        if self._is_over:
            return refuse(received, self.not_leader())
        match request:
            case Produce() if request.acks != "all" and self._in_sync.has_others:
                return self._trust.check(received)
            case Produce():
                return self._on_produce(received, request, now)
            case ReplicaFetch() | ReplicaDurable():
                effects = (
                    self.replicas.on_fetch(received, request, now)
                    if isinstance(request, ReplicaFetch)
                    else self.replicas.on_durable_reported(request, now)
                )
                is_moved = self.watermarks.high_watermark != self._answered_offset
                return effects + self._on_watermarks() if is_moved or self.follows_reports else effects
            case Fetch():
                return self.fetches.on_fetch(received, now)
            case ReplicaReported():
                effects = self.replicas.on_liveness(request, now) + self._on_watermarks()
                return [*effects, Reply(received.sender, Done())] if received.sender.awaits_reply else effects
            case ReachLeader():
                refusal = self.replicas.fetches.epoch_refusal(request.leader_epoch)
                body = ReachLeaderReply(endpoint=self._reached_at) if refusal is None else refusal.body
                return [Reply(received.sender, body)]
            case ListOffsets():
                return self.offsets.on_list_offsets(received, request, self._in_sync.is_confirmed)
            case ReportProgress():
                return self._backlog.on_report(received, request, self._end, now)
            case WriteMarkers():
                return self._on_write_markers(received, request, now)
            case DeleteRecords():
                return self._on_delete_records(received, request)
            case Cancel():
                withdrawn = self.replicas.fetches.view.parked.cancel(received)
                effects = self.replicas.on_withdrawn(withdrawn, now)
                return effects + self._on_watermarks() + self.fetches.on_cancel(received)
        raise AssertionError(f"a leader takes no {type(request).__name__}")

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case ReadDone():
                if isinstance(event.read.received.request, ReplicaFetch):
                    return self.replicas.on_read_done(event)
                return self.fetches.on_read_done(event, now)
            case Written():
                self.watermarks.written_offset = event.log_end_offset
                return self.replicas.on_written(event, now)
            case SessionChecked():
                return self._on_session_checked(event, now)
            case AppendFailed():
                lost = self._appends.failed(event.log_end_offset)
                return [Reply(pending.sender, event.error) for pending in lost]
            case ReadUnfinished():
                return self.fetches.on_read_unfinished(event.read, now)
            case LookedUp():
                return self.offsets.on_looked_up(event)
            case Compared():
                return self.fetches.on_compared(event, now)
            case Trimmed():
                return self._on_trimmed(event, now)
            case BacklogMeasured():
                return self._backlog.on_measured(event.behind_bytes, self._appends.bytes_written, self._end)
            case GroupsSaved():
                return self._backlog.on_saved(event, self._end, now)
            case Answered() | Failed():
                return self._on_outcome(event, now)
            case Disconnected():
                withdrawn = self.replicas.fetches.on_disconnected(event.connection)
                effects = self.replicas.on_withdrawn(withdrawn, now)
                return effects + self._on_watermarks() + self.fetches.on_disconnected(event.connection)
            case WallClockStepped():
                self.wall_offset_ms = event.offset_ms
        return []

    def on_timer(self, key: TimerKey, now: int) -> list[Effect]:
        match key:
            case FetchesExpire():
                return self.fetches.on_timer(now)
            case SearchContinues():
                return self.fetches.on_search_timer(now)
            case ReportTimer():
                return self._open_transactions.on_timer(now)
            case GroupLapses():
                return self._backlog.on_lapse(self._end, now)
            case SaveGroupsDue():
                return self._backlog.on_save_timer()
            case ReplicaFetchesExpire():
                return self.replicas.fetches.on_timer(now)
            case InSyncDue():
                return self.replicas.on_tick(now) + self._on_watermarks()
        return []

    # -- the end of the role

    def stop(self) -> list[Effect]:
        """Refuse the fetches that wait. Producers wait for this disk; with other replicas their wait may not end."""
        error = ProtocolError(ErrorCode.SHUTTING_DOWN, "the partition is stopping")
        effects = self.fetches.fail_all(error) + self.replicas.fail_all(error)
        return effects + self._fail_appends() if self._in_sync.has_others else effects

    def resign(self, leader: str | UnsetType) -> list[Effect]:
        self._is_over, self.leader = True, leader
        error = ProtocolError.from_body(self.not_leader())
        return self.fetches.fail_all(error) + self.replicas.fail_all(error) + self._fail_appends()

    def _fail_appends(self) -> list[Effect]:
        error = self.not_leader()
        waiting = [effect for received in self._trust.take_all() for effect in refuse(received, error)]
        return waiting + [Reply(pending.sender, error) for pending in self._appends.take_all()]

    # -- appends

    def _on_session_checked(self, event: SessionChecked, now: int) -> list[Effect]:
        """Carry out a produce that asks for this disk alone, if the node's session certainly lives."""
        received = event.received
        is_allowed, effects = self._trust.on_checked(event, now)
        if is_allowed:
            assert isinstance(received.request, Produce)
            return effects + self._on_produce(received, received.request, now)
        return effects if self._trust.is_waiting(received) else effects + refuse(received, refusal().body)

    def _on_produce(self, received: Received, request: Produce, now: int) -> list[Effect]:
        fault = _fault_of(received, request)
        if fault is not None:
            refusal: ProtocolError | None = ProtocolError(ErrorCode.INVALID_REQUEST, f"produce: {fault}")
            effects: list[Effect] = []
        else:
            refusal, effects = self._admission.produce_refusal(self._end, now)
            if refusal is None and self._in_sync.is_below_minimum and request.acks == "all":
                refusal = self.replicas.refusal()
        if refusal is not None:
            return effects if request.acks == 0 else [*effects, Reply(received.sender, refusal.body)]
        # The later of the two clocks: no producer is refused when the machine's clock is set back.
        latest = latest_ms(now + max(0, self.wall_offset_ms), self._config.max_timestamp_ahead_ms)
        placement = self._appends.place(received.payload, self._config, now, latest, request.expected)
        effects += _append(placement, self._flush.is_every_turn, self._in_sync.has_others)
        if request.acks == 0:
            return effects
        pending = PendingProduce(
            received.sender, request.acks, placement.results, placement.complete_at_offset
        )
        return effects + self._acknowledge_when_held(pending)

    def _on_write_markers(self, received: Received, request: WriteMarkers, now: int) -> list[Effect]:
        if self._in_sync.is_below_minimum:
            return [Reply(received.sender, self.replicas.refusal().body)]
        placement = self._appends.place_markers(request.markers, now, now + self.wall_offset_ms)
        pending = PendingProduce(received.sender, "all", None, placement.complete_at_offset)
        # Coordinators forget a transaction once its markers are written, so they are synced under any flush policy.
        is_shared = self._in_sync.has_others
        return _append(placement, is_synced=True, is_shared=is_shared) + self._acknowledge_when_held(pending)

    def _acknowledge_when_held(self, pending: PendingProduce) -> list[Effect]:
        if pending.complete_at_offset <= self.watermarks.held(pending.acks):
            return [_acknowledgement(pending, self.watermarks.high_watermark)]
        self._appends.park(pending)
        return []

    def on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._appends.written(event.log_end_offset)
        marks, end_offset = self.watermarks, event.log_end_offset
        marks.durable_offset = marks.written_offset = end_offset
        effects = self.replicas.on_durable(end_offset, event.sync_ms, now)
        self._turns.append((end_offset, self._appends.bytes_written))
        effects += self._on_watermarks()
        effects += self._open_transactions.look(now)
        return effects

    def _on_watermarks(self) -> list[Effect]:
        """Answer everything that has waited for a watermark that may have moved."""
        high_watermark = self._answered_offset = self.watermarks.high_watermark
        released = self._appends.release(self.watermarks)
        effects: list[Effect] = []
        for pending in released:
            effects.append(_acknowledgement(pending, high_watermark))  # noqa: PERF401 - a comprehension is a call
        visible_bytes = None
        while self._turns and self._turns[0][0] <= high_watermark:
            _, visible_bytes = self._turns.popleft()
        if visible_bytes is not None:
            effects += self.fetches.on_visible(visible_bytes)
        if self._in_sync.is_fenced and not self._is_over:
            effects += self.resign(UNSET)
        return effects

    def _on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        if isinstance(event.key, ReliefCall):
            return []
        if isinstance(event.key, SessionCall):
            return self._trust.on_outcome(event.reply if isinstance(event, Answered) else None)
        if isinstance(event.key, CatchUpCall):
            return self.replicas.on_admitted(event.key)
        if isinstance(event.key, ProposalCall):
            return self.replicas.on_outcome(event, now) + self._on_watermarks()
        return self._open_transactions.on_outcome(event, now)

    # -- the log's start

    def _on_delete_records(self, received: Received, request: DeleteRecords) -> list[Effect]:
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

    def _on_trimmed(self, event: Trimmed, now: int) -> list[Effect]:
        self.watermarks.log_start_offset = event.log_start_offset
        self._transactions.trim(event.log_start_offset)
        self._key_versions.trim(event.log_start_offset)
        effects = self._backlog.on_log_start(event.log_start_offset, self._end, now)
        if event.received is not None:
            reply = DeleteRecordsReply(log_start_offset=event.log_start_offset)
            effects.append(Reply(event.received.sender, reply))
        return effects


def _fault_of(received: Received, request: Produce) -> str | None:
    if not received.payload:
        return "no batch frames"
    if request.expected is not None and len(request.expected) != len(received.payload):
        return f"{len(request.expected)} expectations for {len(received.payload)} batches"
    return None


def _append(placement: Placement, is_synced: bool, is_shared: bool) -> list[Effect]:
    if not placement.frames:
        return []
    append = Append(placement.frames, placement.headers, is_shared)
    return [append, Sync()] if is_synced else [append]


def _acknowledgement(pending: PendingProduce, high_watermark: int) -> Effect:
    if pending.results is None:
        return Reply(pending.sender, Done())
    return Reply(pending.sender, ProduceReply(batches=pending.results, high_watermark=high_watermark))
