"""The leader of a partition that follows one of another broker: it appends that one's batches as they are. Pure.

Owns the state of the source as it was last reported, and must never give an offset of its own: offsets, leader epochs,
producers and transactions are those of the source, so that a promotion has nothing to translate. To its followers it is
a leader like any other. Made by the machine in place of `leader.py` while the topic is mirrored.

    request             following                                        sealed
    MirrorAppend        at the log's end: appended, answered when all    NOT_MIRRORED
                        replicas in sync hold it
                        elsewhere: OFFSET_OUT_OF_RANGE, with the end
                        after records that the source has deleted:
                        refused; the log begins again there
    SealMirror          answered once all replicas in sync hold the      likewise, with the same fork
                        log, and no more
    Produce             TOPIC_IS_MIRRORED                                likewise
    DeleteRecords       TOPIC_IS_MIRRORED                                likewise
    RejoinPartition     while it rejoins: its bounds are named, once     NOT_MIRRORED (`own_role.py`)
                        all replicas in sync hold the log
    WriteMarkers        done, without a marker: no transaction of this   likewise
                        broker has a batch here
    others              as of any leader

Invariants: the batches are a prefix of the source's visible log, except for records that its retention deleted before
they were copied; no batch of the source is appended after the answer to SealMirror.
"""

from collections import deque

from msgspec import UnsetType

from ...transport.batch import InvalidBatch
from ...transport.machine import Received, Reply
from ...transport.protocol.data import Produce
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.mirrored import Fork, TopicMirror
from ...transport.protocol.mirrors import (
    MirrorAppend,
    MirrorAppendReply,
    RejoinPartition,
    RejoinPartitionReply,
    SealMirror,
    SealMirrorReply,
)
from ...transport.protocol.replication import Lead
from ...transport.protocol.topics import DeleteRecords
from ...transport.protocol.transactions import WriteMarkers
from ..log.epochs import NO_EPOCH
from .admission import PartitionAdmission
from .arguments import PartitionArguments
from .backlog import Backlog
from .copies import MAX_EPOCH, Copies, copies_of
from .effects import Append, Appended, AppendFailed, CutLog, DeleteBefore, Effect, Event, OpenedLog, Sync
from .flush import Flush
from .leader import Leader
from .roles import refuse


class MirroredLeader(Leader):
    follows_reports = True
    retains = False
    """The source's retention is followed: the records that this broker keeps may be needed when the source is gone."""

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
        super().__init__(arguments, lead, log, backlog, admission, flush, now)
        assert arguments.mirror is not None
        self._arguments = arguments
        self._mirror = arguments.mirror
        self._partition = arguments.partition
        self._epochs = log.epochs
        self._is_sealed = arguments.mirror.state == "sealed"
        self._pending: deque[tuple[int, Received]] = deque()
        """Requests of the mirror that are answered once all replicas in sync hold the log up to this end."""
        self._sealing: list[Received] = []
        """Requests to seal that wait until everything appended is held."""
        self._last_epoch = log.epochs.last
        """The epoch of the last batch, this turn's included."""
        self._source_high_watermark = self._heard_at_ms = self._source_epoch = -1
        self._source_start_offset = 0
        self._show_epoch()

    @property
    def has_pending_appends(self) -> bool:
        return super().has_pending_appends or bool(self._pending)

    @property
    def is_busy(self) -> bool:
        return super().is_busy or bool(self._sealing)

    def _show_epoch(self) -> None:
        """Give readers the epoch of the last batch here: the source's epochs are the ones that they can compare."""
        self.fetches.leader_epoch = self.offsets.leader_epoch = max(0, self._epochs.last)

    def on_request(self, received: Received, now: int) -> list[Effect]:
        request = received.request
        match request:
            case MirrorAppend():
                return self._on_mirror_append(received, request, now)
            case SealMirror():
                self._is_sealed = True
                self._sealing.append(received)
                return self._answer_sealing()
            case RejoinPartition():
                return self._on_rejoin(received, request)
            case Produce() | DeleteRecords():
                return refuse(received, self._is_mirrored().body)
            case WriteMarkers():
                return [Reply(received.sender, Done())]
        return super().on_request(received, now)

    @property
    def _is_rejoining(self) -> bool:
        mirror = self._arguments.mirror
        return mirror is not None and mirror.state == "rejoining"

    def _on_rejoin(self, received: Received, request: RejoinPartition) -> list[Effect]:
        """Name the records that the promoted topic does not have; after the cut, answer that they are gone.

        A source that lost its end, and wrote on in a later epoch, differs from its copy already before the fork: there
        the copy's batches have epochs up to the fork's.
        """
        known, end_offset = self._arguments.mirror, self.log_end_offset
        message = ""
        if known is None or known.state != "rejoining" or known.cuts != request.mirror.cuts:
            message = "this leader does not know this state of the topic's mirror yet"
        elif not self._is_held_by_all():
            message = "not all replicas in sync hold the whole log yet"
        if message:
            return refuse(received, ProtocolError(ErrorCode.PARTITION_OFFLINE, message).body)
        fork, cut = request.mirror.meeting_of(self._partition), request.mirror.cut_of(self._partition)
        cut_offset = 0
        if fork is not None:
            cut_offset = min(fork.offset, self._epochs.end_of(fork.leader_epoch, end_offset)[1])
        body = RejoinPartitionReply(
            cut_offset=cut_offset,
            log_start_offset=self.watermarks.log_start_offset,
            log_end_offset=end_offset,
            last_epoch=max(self.leader_epoch, self._epochs.last),
            is_done=end_offset <= cut_offset if cut is None else cut.is_done(end_offset),
        )
        return [Reply(received.sender, body)]

    def _is_held_by_all(self) -> bool:
        # A member that has not fetched yet may have more, of an earlier leader, and lead next.
        end_offset = self.log_end_offset
        return self.watermarks.high_watermark >= end_offset and self._in_sync.is_held_by_all(end_offset)

    def _is_mirrored(self) -> ProtocolError:
        mirror = self._mirror
        message = f"{self._topic} follows a topic of another broker by mirror {mirror.mirror!r}: write there"
        if mirror.state == "faulted":
            message = (
                f"{self._topic} does not accept producers: {mirror.reason}; planaria mirror promote {mirror.mirror}"
                f" {self._topic} makes it accept them"
            )
        return ProtocolError(ErrorCode.TOPIC_IS_MIRRORED, message)

    def _on_mirror_append(self, received: Received, request: MirrorAppend, now: int) -> list[Effect]:
        refusal, effects = self._append_refusal(received, request, now)
        if refusal is not None:
            return [*effects, *refuse(received, refusal.body)]
        if not received.payload:
            if self._begins_again(request, has_batches=False):
                return self._begin_again(received, request, request.source_start_offset)
            self._hear(request, now)
            self._pending.append((self.log_end_offset, received))
            return [*self._answer_held(), *self._trim()]
        try:
            copies = copies_of(received.payload, self._last_epoch, MAX_EPOCH)
        except InvalidBatch as error:
            return refuse(received, ProtocolError(ErrorCode.INVALID_BATCH, str(error)).body)
        if self._begins_again(request, has_batches=True):
            return self._begin_again(received, request, copies.base_offset)
        if self._starts_inside(copies):
            return self._begin_again(received, request, copies.base_offset)
        if copies.base_offset < self.log_end_offset:
            message = f"the first batch begins at {copies.base_offset}, below the end of the log"
            return refuse(received, ProtocolError(ErrorCode.INVALID_BATCH, message).body)
        self._hear(request, now)
        self._appends.place_copies(copies, now)
        self._pending.append((self.log_end_offset, received))
        self._last_epoch = copies.headers[-1].leader_epoch
        append = Append(copies.frames, copies.headers, self._in_sync.has_others)
        return [append, Sync()] if self._flush.is_every_turn else [append]

    def _append_refusal(
        self, received: Received, request: MirrorAppend, now: int
    ) -> tuple[ProtocolError | None, list[Effect]]:
        """Return the reason why nothing is appended, with the effects of finding out."""
        if self._is_sealed or self._is_rejoining:
            message = f"{self._topic} is being promoted, or rejoins: it accepts no copies"
            return ProtocolError(ErrorCode.NOT_MIRRORED, message), []
        is_query = request.offset < 0 and not received.payload
        if not is_query and request.offset != self.log_end_offset:
            message = f"the log ends at {self.log_end_offset}, not at {request.offset}"
            code = ErrorCode.OFFSET_OUT_OF_RANGE
            return ProtocolError(code, message, next_offset=self.log_end_offset), []
        if not received.payload:
            return None, []
        refusal, effects = self._admission.disk_refusal(self._end, now)
        if refusal is None and self._in_sync.is_below_minimum:
            refusal = self.replicas.refusal()
        return refusal, effects

    def _begins_again(self, request: MirrorAppend, *, has_batches: bool) -> bool:
        if self.log_end_offset >= request.source_start_offset:
            return False
        is_empty = self.watermarks.log_start_offset == self.log_end_offset
        # An empty log takes the first batches behind a gap. Without any it would give their offsets out again.
        return not is_empty or not has_batches or self._transactions.first_unstable_offset() is not None

    def _starts_inside(self, copies: Copies) -> bool:
        """Return True if the log is empty at an offset within the first of these batches, with which it has to begin."""
        is_empty = self.watermarks.log_start_offset == self.log_end_offset
        first = copies.headers[0]
        is_inside = first.base_offset < self.log_end_offset < first.next_offset
        return is_inside and is_empty and not self._pending

    def _begin_again(self, received: Received, request: MirrorAppend, offset: int) -> list[Effect]:
        """Begin the log at an offset, without the records that the source has deleted as well.

        Transactions that ended in the part that is missing would stay open here.
        """
        message = f"the source begins at {request.source_start_offset}, this copy at {offset} from now on"
        refusal = ProtocolError(ErrorCode.PARTITION_OFFLINE, message)
        cut = [] if self._pending else [CutLog(offset, is_reset=True)]
        return [*refuse(received, refusal.body), *cut]

    def _hear(self, request: MirrorAppend, now: int) -> None:
        if request.source_high_watermark >= 0:
            self._source_high_watermark = request.source_high_watermark
            self._heard_at_ms = now + self.wall_offset_ms
        self._source_start_offset = max(self._source_start_offset, request.source_start_offset)
        self._source_epoch = max(self._source_epoch, request.source_leader_epoch)
        # A reader that is ahead of the copy waits for it.
        marks = self.watermarks
        marks.epoch_start_offset = max(marks.epoch_start_offset, self._source_high_watermark)

    def _answer_held(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._pending and self._pending[0][0] <= self.watermarks.high_watermark:
            end_offset, received = self._pending.popleft()
            body = MirrorAppendReply(
                log_start_offset=self.watermarks.log_start_offset,
                log_end_offset=end_offset,
                last_epoch=self._last_epoch,
            )
            effects.append(Reply(received.sender, body))
        return effects

    def reassign(self, lead: Lead, now: int) -> list[Effect]:
        if isinstance(lead.mirror, TopicMirror):
            self._mirror = lead.mirror
            self._is_sealed = self._is_sealed or lead.mirror.state == "sealed"
        return super().reassign(lead, now)

    # -- the log

    def on_appended(self, event: Appended, now: int) -> list[Effect]:
        self._show_epoch()
        return [*super().on_appended(event, now), *self._trim()]

    def _on_watermarks(self) -> list[Effect]:
        effects = super()._on_watermarks()
        return [*effects, *self._answer_held(), *self._answer_sealing()]

    def handle(self, event: Event, now: int) -> list[Effect]:
        if not isinstance(event, AppendFailed):
            return super().handle(event, now)
        effects = super().handle(event, now)
        self._last_epoch = self._epochs.last
        while self._pending and self._pending[-1][0] > event.log_end_offset:
            effects.append(Reply(self._pending.pop()[1].sender, event.error))
        return effects

    def _trim(self) -> list[Effect]:
        """Follow the source's start, as far as the copy reaches."""
        offset = min(self._source_start_offset, self.watermarks.high_watermark)
        return [DeleteBefore(None, offset)] if offset > self.watermarks.log_start_offset else []

    def _answer_sealing(self) -> list[Effect]:
        if not self._sealing or not self._is_held_by_all():
            return []
        last_epoch = max(NO_EPOCH, self._last_epoch)
        fork = Fork(
            partition=self._partition,
            offset=self.log_end_offset,
            leader_epoch=last_epoch,
            # A reader at the source has the epoch of its leader, also where no batch has it.
            first_epoch=self._mirror.epoch_after(self._partition, max(last_epoch, self._source_epoch)),
            source_high_watermark=self._source_high_watermark,
            heard_at_ms=self._heard_at_ms,
        )
        waiting, self._sealing = self._sealing, []
        body = SealMirrorReply(fork=fork, leader_epoch=self.leader_epoch)
        return [Reply(received.sender, body) for received in waiting]

    # -- the end of the role

    def resign(self, leader: str | UnsetType) -> list[Effect]:
        effects = super().resign(leader)
        waiting = [*self._sealing, *(received for _, received in self._pending)]
        self._sealing, self._pending = [], deque()
        return [*effects, *(effect for each in waiting for effect in refuse(each, self.not_leader()))]
