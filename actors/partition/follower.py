"""The follower's part of a partition: it fetches its leader's batches and appends them as they are. Pure.

Owns the one fetch in flight, and follows the leader's high watermark and log start. The log, recovery, producers and
transactions are those of a leader, so that a follower leads as soon as it has an epoch. Called by the machine.

    state       left by
    fetching    batches -> Append, Sync, appending        nothing new -> fetching again
                diverging -> CutLog, cutting              OFFSET_OUT_OF_RANGE -> CutLog to the leader's start, cutting
                refused, lost, damaged on the way -> waiting
    appending   Written, a busy leader -> fetching: the next fetch leaves before the sync, and meets its next batches
                Appended -> fetching: the next fetch reports the sync
                AppendFailed (a full disk) -> waiting
    cutting     LogCut -> fetching, or appending the batches that caused it      CutFailed -> waiting
                while appending or cutting, FetchAgain and a new address of the leader fetch nothing
    waiting     FetchAgain -> fetching
    fetching straight from the leader's process, without an answer -> fetching by the links (`leader_access.py`)
    damaged     a Follow by which it is no member of the in-sync set, and not eligible -> CutLog to its start, cutting

    Appended while fetching    ReplicaDurable: the sync has returned

A leader counts as busy when a reply has more than one batch, or a large one. Otherwise the leader has nothing to send
before this replica's sync lets its producer go on, so one message does for both: each costs four processes a turn.

ReplicaDurable is not answered, and may be lost. It takes the way of the fetch of its turn: with their connection both
are lost, and the next fetch has the offset. If it is lost alone, the leader looks after a while whether a replica is
behind, and answers its fetch, so that it fetches again (`replicas.py`).

A cut never removes a record that was known to be committed: if the leader's log lacks one, an operator has to decide,
and the partition ends with `CommittedRecordsMissing`. An unclean election after that record was this decision, and so
was a fail-back that has set it aside, which the leader names.
"""

from msgspec import Struct, UnsetType

from ...transport.batch import InvalidBatch
from ...transport.machine import Answered, Call, CancelCall, Cast, Failed, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, OperatorNeeded
from ...transport.protocol.mirrored import Cut
from ...transport.protocol.replication import (
    Diverging,
    Follow,
    ReplicaDurable,
    ReplicaFetch,
    ReplicaFetchReply,
    Role,
)
from ..log.epochs import NO_EPOCH
from .arguments import PartitionArguments
from .copies import MAX_EPOCH, Copies, copies_of
from .effects import (
    Append,
    Appended,
    AppendFailed,
    CutFailed,
    CutLog,
    DeleteBefore,
    Effect,
    Event,
    LogCut,
    OpenedLog,
    Sync,
    Trimmed,
    Written,
)
from .flush import Flush
from .leader_access import LeaderAccess, ReachCall
from .roles import Undecided
from .timers import FetchAgain, ReachAgain, TimerKey

MAX_WAIT_MS = 30_000
REPLY_MARGIN_MS = 5_000
FIRST_PAUSE_MS = 20
LONGEST_PAUSE_MS = 1_000
BUSY_BYTES = 16 * 1024
"""Size of a batch from which on the leader counts as busy."""


class CommittedRecordsMissing(OperatorNeeded):
    """The leader's log lacks records that were committed."""


class ReplicaFetchCall(Struct, frozen=True):
    """The key of a fetch."""

    leader_epoch: int
    number: int
    is_direct: bool = False


class Follower(Undecided):
    name: Role = "follower"

    def __init__(
        self,
        arguments: PartitionArguments,
        follow: Follow,
        log: OpenedLog,
        flush: Flush,
        first_token: int,
        *,
        is_damaged: bool = False,
    ) -> None:
        """`first_token` is above all tokens of earlier followers in this process. A log that `is_damaged` begins again
        once it is not needed any more."""
        super().__init__(log)
        self._arguments = arguments
        self._follow = follow
        self._log = log
        self._flush = flush
        self.leader_epoch = follow.leader_epoch
        self.leader = follow.leader
        self.next_token = first_token
        self._access = LeaderAccess(follow, has_endpoint=bool(arguments.reached_at))
        self._in_flight: ReplicaFetchCall | None = None
        self._failures = 0
        self._leader_start_offset = 0
        self._is_busy = False
        """True if the leader's last reply was that of a busy one."""
        self._is_damaged = is_damaged
        self._held: Copies | None = None
        """Batches to append once the log begins with them."""
        self._is_changing = False
        """True from an Append or a CutLog to its outcome. A fetch meanwhile would ask for the same batches again."""

    def start(self, now: int) -> list[Effect]:
        return [*self._go_on(), *self._access.ask(self._token())]

    def _go_on(self) -> list[Effect]:
        """Fetch, unless the log is damaged. Then it leaves the in-sync set for want of fetches, and begins again."""
        if self._is_changing:
            return []  # its outcome is followed by a fetch
        if not self._is_damaged:
            return [self._fetch()]
        return (
            [] if self._follow.is_member else self._cut_log(self.watermarks.log_start_offset, is_reset=True)
        )

    def redirect(self, follow: Follow) -> list[Effect]:
        """Reach the same leader at another address."""
        before, self._follow = self._follow, follow
        self._access.redirect(follow)
        if self._is_damaged:
            return self._go_on()
        if follow.address == before.address:
            return []
        return [*self._cancel(), *self._go_on()]

    def resign(self, leader: str | UnsetType) -> list[Effect]:
        return [*self._cancel(), *self._access.end()]

    def stop(self) -> list[Effect]:
        return self._cancel()

    @property
    def _highest_epoch(self) -> int:
        """Return the highest leader epoch of batches here; those of a mirror have the epochs of its source."""
        return MAX_EPOCH if self._arguments.is_mirrored else self.leader_epoch

    # -- fetching

    def _token(self) -> int:
        self.next_token += 1
        return self.next_token

    def _fetch(self, sync_ms: int | None = None) -> Call:
        address, context = self._access.way
        self._in_flight = ReplicaFetchCall(self.leader_epoch, self._token(), self._access.is_direct)
        request = ReplicaFetch(
            topic=self._follow.topic,
            topic_id=self._follow.topic_id,
            partition=self._follow.partition,
            replica=self._arguments.node,
            data_id=self._arguments.data_id,
            leader_epoch=self.leader_epoch,
            fetch_offset=self.watermarks.written_offset,
            last_epoch=self._log.epochs.last,
            durable_offset=self.watermarks.durable_offset,
            sync_ms=sync_ms,
            max_wait_ms=MAX_WAIT_MS,
        )
        return Call(
            self._in_flight,
            address,
            request,
            ReplicaFetchReply,
            timeout_ms=MAX_WAIT_MS + REPLY_MARGIN_MS,
            token=self.next_token,
            context=context,
        )

    def _cancel(self) -> list[Effect]:
        found, self._in_flight = self._in_flight, None
        return [] if found is None else [CancelCall(found.number)]

    def _pause(self, now: int) -> list[Effect]:
        pause_ms = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(self._failures, 10))
        self._failures += 1
        return [SetTimer(FetchAgain(), now + pause_ms)]

    def on_timer(self, key: TimerKey, now: int) -> list[Effect]:
        if isinstance(key, ReachAgain):
            return self._access.ask(self._token())
        return self._go_on() if isinstance(key, FetchAgain) and self._in_flight is None else []

    # -- events

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Written():
                self._is_changing = False
                self.watermarks.written_offset = event.log_end_offset
                return [*self._trim(), self._fetch()]
            case Answered(key=ReachCall()) | Failed(key=ReachCall()):
                return self._access.on_outcome(event, self._token(), now)
            case Answered() | Failed():
                return self._on_outcome(event, now)
            case AppendFailed():
                self._is_changing = False
                return self._pause(now)
            case LogCut():
                self._is_changing = False
                return self._on_cut(event.log, now)
            case CutFailed():
                self._held, self._is_changing = None, False
                return self._pause(now)
            case Trimmed():
                self.watermarks.log_start_offset = event.log_start_offset
                self._log.producers.transactions.trim(event.log_start_offset)
        return []

    def on_appended(self, event: Appended, now: int) -> list[Effect]:
        super().on_appended(event, now)
        self._is_changing = False
        if self._in_flight is None:
            return [*self._trim(), self._fetch(event.sync_ms)]
        durable = ReplicaDurable(
            topic=self._follow.topic,
            topic_id=self._follow.topic_id,
            partition=self._follow.partition,
            replica=self._arguments.node,
            data_id=self._arguments.data_id,
            leader_epoch=self.leader_epoch,
            durable_offset=event.log_end_offset,
            sync_ms=event.sync_ms or 0,
        )
        address, context = self._access.way
        return [Cast(address, durable, context=context)]

    def _on_outcome(self, event: Answered | Failed, now: int) -> list[Effect]:
        if self._in_flight is None or event.key != self._in_flight:
            return []
        is_direct, self._in_flight = self._in_flight.is_direct, None
        if isinstance(event, Failed):
            lost = self._access.on_failed(event.error, now) if is_direct else None
            return self._on_refused(event.error, now) if lost is None else [*lost, self._fetch()]
        reply = event.reply
        assert isinstance(reply, ReplicaFetchReply)
        if reply.leader_epoch != self.leader_epoch:
            return self._pause(now)
        if reply.diverging is not None:
            # The leader's high watermark says nothing about the records here that it lacks.
            self._failures = 0
            return self._cut(reply.diverging, reply.log_start_offset)
        self.watermarks.high_watermark = max(self.watermarks.high_watermark, reply.high_watermark)
        try:
            copies = copies_of(event.payload, self._log.epochs.last, self._highest_epoch)
        except InvalidBatch:
            return self._pause(now)
        self._failures = 0
        self._leader_start_offset = reply.log_start_offset
        if not copies.headers:
            return [*self._trim(), self._fetch()]
        if copies.base_offset >= self.watermarks.written_offset:
            return self._append(copies, now)
        # The leader's start lies inside a batch, and this log begins with that batch.
        assert self.watermarks.log_start_offset == self.watermarks.written_offset, (
            "the leader sent a batch again"
        )
        self._held = copies
        return self._cut_log(copies.base_offset, is_reset=True)

    def _on_refused(self, error: ErrorBody, now: int) -> list[Effect]:
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE and isinstance(error.next_offset, int):
            return self._cut_log(error.next_offset, is_reset=True)
        return self._pause(now)

    # -- appending

    def _append(self, copies: Copies, now: int) -> list[Effect]:
        self._is_changing = True
        self._is_busy = len(copies.frames) > 1 or len(copies.frames[0]) >= BUSY_BYTES
        copies.note(self._log.producers, now)
        append = Append(copies.frames, copies.headers, is_shared=self._is_busy)
        return [append, Sync()] if self._flush.is_every_turn else [append]

    def _trim(self) -> list[Effect]:
        """Follow the leader's start, as far as this log reaches."""
        offset = min(self._leader_start_offset, self.watermarks.written_offset)
        return [DeleteBefore(None, offset)] if offset > self.watermarks.log_start_offset else []

    # -- cutting

    def _cut(self, diverging: Diverging, leader_start_offset: int) -> list[Effect]:
        """Cut to the last batch that both logs may share: no later than the epoch ends in either of them."""
        epoch, end_offset = diverging.epoch, diverging.end_offset
        own_end_offset = self.watermarks.written_offset
        _, own_epoch_end = self._log.epochs.end_of(epoch, own_end_offset)
        offset = min(end_offset, own_epoch_end)
        committed_offset = min(self.watermarks.high_watermark, own_end_offset)
        cut = None if offset >= committed_offset else self._cut_of_failback(offset, diverging.given_up)
        if offset < committed_offset and (cut is not None or self._is_overruled()):
            self.watermarks.high_watermark = offset
        elif offset < committed_offset:
            raise CommittedRecordsMissing(
                f"the leader of epoch {self.leader_epoch}, {self.leader}, lacks committed records from offset {offset}"
                f" to {committed_offset - 1}, which are here: {self._way_out}"
            )
        is_whole = cut is not None and cut.is_whole
        if is_whole or offset < self.watermarks.log_start_offset or epoch == NO_EPOCH:
            return self._cut_log(max(leader_start_offset, offset), is_reset=True)
        return self._cut_log(offset)

    def _cut_log(self, offset: int, *, is_reset: bool = False) -> list[Effect]:
        self._is_changing = True
        return [CutLog(offset, is_reset=is_reset)]

    def _cut_of_failback(self, offset: int, named: tuple[Cut, ...]) -> Cut | None:
        """Return the fail-back that gave up the records from an offset on, if one did. They were set aside before.

        The leader has named its cuts; one of an earlier version has not, and this node's controller knows them, too.
        """
        mirror, last_epoch = self._arguments.mirror, self._log.epochs.last
        known = () if mirror is None else mirror.cuts_after(self._arguments.partition, last_epoch)
        return next((cut for cut in (*named, *known) if cut.gives_up(offset, last_epoch)), None)

    @property
    def _way_out(self) -> str:
        mirror = self._arguments.mirror
        if mirror is None or not mirror.given_up:
            return "see which replica has them, and elect that one"
        return (
            "if this replica missed more fail-backs of the topic than are kept, stop its node, delete the folder of the"
            " partition, and start the node; else see which replica has them, and elect that one"
        )

    def _is_overruled(self) -> bool:
        """Return True if an unclean election came after the last record here: an operator gave up such records.

        The epoch of a record that was copied from another broker cannot tell: any unclean election counts. The leader
        gets it again from there, or was promoted without it.
        """
        unclean, last_epoch = self._follow.unclean_epochs, self._log.epochs.last
        if not self._arguments.has_own_records(last_epoch):
            return bool(unclean)
        return max(unclean, default=NO_EPOCH) > last_epoch

    def _on_cut(self, log: OpenedLog, now: int) -> list[Effect]:
        high_watermark = self.watermarks.high_watermark
        super().__init__(log)
        self.leader_epoch, self.leader = self._follow.leader_epoch, self._follow.leader
        self._is_damaged = False
        self.watermarks.high_watermark = max(high_watermark, self.watermarks.high_watermark)
        self._log = log
        held, self._held = self._held, None
        return [self._fetch()] if held is None else self._append(held, now)
