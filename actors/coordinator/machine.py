"""The coordinator's machine: it replays the group, serves it, and stops.

Owns the flush, which sends the gathered decisions as one append. The work is done by its parts: the phases and the
replay, serving.py (requests and sessions), topics_watch.py, the recorder, progress.py (reports to partitions),
idleness.py (sleep), and for a share group share/serving.py. Sessions are suspended during the replay and restart after
it; at a stop parked heartbeats are refused. Run by process.py, and in tests by a simulator.
"""

from collections.abc import Callable

from ...transport.addresses import TopicPartition, coordinator_address, topic_partition_of
from ...transport.machine import (
    Answered,
    Disconnected,
    Effect,
    Event,
    Failed,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    Sleep,
    Stop,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.errors import ProtocolError
from ...transport.protocol.groups import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    ResetOffsets,
)
from ...transport.protocol.message import Done, Request
from ...transport.protocol.operations import RetryReport
from ...transport.protocol.session import Cancel
from ...transport.protocol.shares import Acquire, ShareMemberGone
from ..journal.effects import BecomeReady, SaveSnapshot
from ..journal.mark import LogMark
from ..journal.phases import Disposition, Phases
from ..journal.recorder import Durable, Recorder, Waiting
from ..journal.replay import Replay
from ..journal.topics_watch import TopicsWatch
from ..journal.transaction_reports import REPORT, Reports
from .decisions import Decisions
from .effects import Alarm, MarkAsleep
from .expiry import EXPIRY, FOR_EVER, OffsetsExpiry
from .idleness import IDLE, Idleness
from .ledger import GroupLedger
from .progress import ProgressReports
from .records import Change, ShareKey, encode
from .resets import RESET
from .serving import REQUESTS as CONSUMER_REQUESTS
from .serving import Answer, GroupRequests
from .share.reading import Acquired
from .share.records import ShareProgress, by_this_clock
from .share.serving import REQUESTS as SHARE_REQUESTS
from .share.serving import ShareServing
from .share.tails import SHARE
from .snapshot import Snapshot, encode_snapshot
from .state import GroupState

MEMBERS_REQUESTS = (GroupHeartbeat, CommitOffsets, FetchOffsets, ResetOffsets)
"""Requests that do not apply to a share group."""
REQUESTS: tuple[type[Request], ...] = (*CONSUMER_REQUESTS, *SHARE_REQUESTS, Cancel, ShareMemberGone)

SNAPSHOT_RECORDS = 1_000
"""Records read or applied after which the snapshot is renewed."""
FENCES, FENCES_CHECK_MS = "fences", 3600 * 1000

__all__ = ["REQUESTS", "CoordinatorMachine"]


class CoordinatorMachine:
    def __init__(
        self,
        group: str,
        offsets_topic: str,
        offsets_partition: int,
        *,
        starter: str,
        snapshot: Snapshot | None = None,
        idle_ms: int = 0,
        offsets_retention_ms: int = FOR_EVER,
    ) -> None:
        self._group = group
        self._ledger = GroupLedger(group, snapshot.state if snapshot else None)
        self._replay = Replay(
            coordinator_address(group),
            offsets_topic,
            offsets_partition,
            starter,
            self._ledger,
            snapshot.mark if snapshot else None,
            snapshot.taken_at_ms if snapshot else None,
        )
        self._phases = Phases(
            self._replay,
            while_replaying="the group is being replayed",
            while_stopping="the coordinator is stopping",
        )
        self._watch = TopicsWatch()
        self._wall_offset_ms = 0
        """Wall clock minus `now`."""
        self._serving: GroupRequests
        self._state: GroupState
        self._decisions: Decisions
        self._recorder: Recorder[Change, Answer]
        self._progress: ProgressReports
        self._reports = Reports(groups=[group])
        self._share: ShareServing
        self._idleness = Idleness(idle_ms)
        self._offsets_retention_ms = offsets_retention_ms
        self._expiry: OffsetsExpiry
        self._alarms: tuple[str, ...] = ()
        self._mark: LogMark
        self._since_snapshot = 0

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects, left = self._phases.handle(event, now)
        match left:
            case Disposition.NOTHING:
                return effects
            case Disposition.BEGIN:
                return effects + self._begin_serving(now)
            case Disposition.CLOSE:
                effects += [*self._serving.close(), *self._share.close()]
            case Disposition.EVENT:
                effects += self._while_serving(event, now)
        effects += self._advance_share(now)
        effects += self._flush(now)
        effects += self._look_for_open_transactions(now)
        self._progress.on_sharing(self._share.topics_in_use)
        effects += self._progress.flush(now, at_once=self._phases.is_stopping)
        if self._phases.is_stopping and self._recorder.is_idle:
            effects += [*self._snapshot(now, least=1), Stop("stopped")]
        elif isinstance(event, TimerFired) and event.key == IDLE:
            effects += self._fall_asleep(now)
        return effects

    def retrying(self) -> RetryReport:
        """Report a share group's records that failed and wait for their next delivery."""
        return self._share.retrying()

    def _fall_asleep(self, now: int) -> list[Effect]:
        """Sleep if the timer finds the group idle; all its requests are answered by now."""
        effects, is_time = self._idleness.on_timer(self._is_working(now), now)
        if not is_time:
            return effects
        wake_after_ms = self._expiry.due_in_ms(now)
        wake_at = None if wake_after_ms is None else now + wake_after_ms
        sleep = Sleep("no members, no work", wake_after_ms)
        return [*effects, *self._snapshot(now, least=1), MarkAsleep(wake_at), sleep]

    def _is_working(self, now: int) -> bool:
        decided = self._decisions.state
        return (
            bool(decided.members or self._state.members or decided.pending.open or self._alarms)
            or not self._recorder.is_idle
            or not self._progress.is_told
            or not self._share.is_quiet
            or self._serving.is_deleted(now)
            or self._serving.has_waiting_resets
        )

    def _look_for_open_transactions(self, now: int) -> list[Effect]:
        pending = self._decisions.state.pending
        return self._reports.look(pending.open, now) if pending.open or self._reports.is_watching else []

    def _begin_serving(self, now: int) -> list[Effect]:
        replay = self._replay
        assert replay.mark is not None, "the start record has been read"
        self._state = self._ledger.state
        self._mark = replay.mark
        decided = GroupState(self._group)
        for change in self._state.changes():
            decided.apply(change)
        self._decisions = Decisions(decided)
        self._expiry = OffsetsExpiry(self._offsets_retention_ms, self._decisions)
        self._recorder = Recorder(
            replay.appender, replay.identity, next_sequence=1, encode=lambda change: (encode(change),)
        )
        self._serving = GroupRequests(self._state, self._decisions, self._recorder)
        self._progress = ProgressReports(self._state)
        self._share = ShareServing(
            self._group,
            self._state.share_settings,
            {tp: by_this_clock(each, now) for tp, each in self._state.shares.items()},
            self._decisions.why_no_share_group,
            self._decisions.is_younger,
        )
        self._since_snapshot = replay.records_read
        least = 1 if replay.is_snapshot_refused else SNAPSHOT_RECORDS
        effects = [
            BecomeReady(),
            *self._serving.start(now),
            *self._watch.start(),
            *self._snapshot(now, least),
        ]
        effects += [*self._idleness.start(now), *self._expiry.start(now)]
        return effects + self._drop_spent_fences(now) + self._flush(now)

    def _drop_spent_fences(self, now: int) -> list[Effect]:
        self._decisions.drop_spent_fences(now)
        return [SetTimer(FENCES, now + FENCES_CHECK_MS)]

    def _while_serving(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Received):
            self._idleness.on_request(now)
            return self._on_request(event, now)
        if isinstance(event, WallClockStepped):
            self._wall_offset_ms = event.offset_ms
            return []
        if isinstance(event, Disconnected):
            # The connection is a gateway's or a client's; answers already sent may have arrived.
            return self._forget(lambda sender: sender.route[0] == event.connection, also_told=False)
        if _is_share_group_s(event):
            return self._share.handle(event, now)
        if isinstance(event, TimerFired):
            match event.key:
                case ("session", str(member_id)):
                    return self._serving.on_session_timer(member_id, now)
                case ("parked", str(member_id)):
                    return self._serving.on_parked_timer(member_id)
                case _ if event.key == RESET:
                    return self._serving.retry_resets(now)
                case _ if event.key == REPORT:
                    return self._reports.on_timer(now)
                case _ if event.key == FENCES:
                    return self._drop_spent_fences(now)
                case _ if event.key == EXPIRY:
                    return self._expiry.on_timer(now)
        is_of_report = isinstance(event, Answered | Failed) and isinstance(event.key, tuple)
        if is_of_report and event.key[0] == REPORT:
            return self._reports.on_outcome(event, now)
        if isinstance(event, PeerUp) and (tp := topic_partition_of(event.address)) is not None:
            self._share.on_up(tp)
        effects, topics = self._watch.handle(event, now)
        if topics is not None:
            self._decisions.set_topics(topics)
            self._progress.set_topics(topics)
            self._share.set_topics(topics)
            if self._share.is_share:
                self._decisions.note_sharing(self._share.topics_in_use())
            effects += self._serving.retry_resets(now)
        effects += self._progress.handle(event, now)
        more, durable = self._recorder.handle(event, now)
        effects += more
        if durable is not None:
            effects += self._on_durable(durable, now)
        return effects

    def _forget(self, is_gone: Callable[[Sender], bool], *, also_told: bool) -> list[Effect]:
        """Forget these requests, whose senders are gone."""
        self._share.cancel(is_gone, also_told=also_told)
        return self._serving.forget(is_gone)

    def _on_request(self, event: Received, now: int) -> list[Effect]:
        if isinstance(event.request, Cancel):
            return self._forget(event.cancels, also_told=True)
        if isinstance(event.request, ShareMemberGone):
            return self._share.leave(event.request.member_id, now, is_charged=True)
        if self._share.is_share and isinstance(event.request, LeaveGroup):
            return self._on_share_leave(event, event.request, now)
        if isinstance(event.request, SHARE_REQUESTS):
            return self._on_share_request(event, now)
        if self._share.is_share and isinstance(event.request, DescribeGroup):
            return [Reply(event.sender, self._share.describe(self._wall_offset_ms))]
        if self._share.is_share and isinstance(event.request, DeleteGroup):
            return self._delete_share_group(event, now)
        if self._share.is_share and isinstance(event.request, MEMBERS_REQUESTS):
            return [Reply(event.sender, self._share.refuse())]
        return self._serving.on_request(event, now)

    def _on_share_request(self, event: Received, now: int) -> list[Effect]:
        try:
            self._serving.check_served(event.request, now)
            self._recorder.check_room(0)
            effects, body = self._share.on_request(event, now)
            if isinstance(event.request, Acquire):
                self._decisions.note_sharing(event.request.topics)
        except ProtocolError as error:
            return [Reply(event.sender, error.body)]
        if body is not None:
            self._recorder.wait(Waiting(event.sender, body), is_gathered=True)
        return effects

    def _on_share_leave(self, event: Received, request: LeaveGroup, now: int) -> list[Effect]:
        try:
            self._serving.check_served(request, now)
            self._recorder.check_room(0)
        except ProtocolError as error:
            return [Reply(event.sender, error.body)]
        effects = self._share.leave(request.member_id, now, is_charged=False)
        if not self._share.is_dirty:
            return [*effects, Reply(event.sender, Done())]
        self._recorder.wait(Waiting(event.sender, Done()), is_gathered=True)
        return effects

    def _delete_share_group(self, event: Received, now: int) -> list[Effect]:
        try:
            self._share.check_unused()
        except ProtocolError as error:
            return [Reply(event.sender, error.body)]
        self._share.forget()
        return self._serving.on_request(event, now)

    def _advance_share(self, now: int) -> list[Effect]:
        """Record a share group's deliveries with the next flush; they are sent when that is durable."""
        effects, given = self._share.advance(now)
        for acquired in given:
            self._recorder.wait(acquired, is_gathered=True)
        alarms = self._share.alarms(now)
        if alarms != self._alarms:
            self._alarms = alarms
            effects.append(Alarm(alarms))
        return effects

    def _on_durable(self, durable: Durable[Change, Answer], now: int) -> list[Effect]:
        self._mark = durable.mark
        self._since_snapshot += len(durable.changes)
        effects = self._serving.on_durable(durable, now)
        self._progress.on_durable(durable.changes)
        for change in durable.changes:
            if isinstance(change.key, ShareKey):
                assert change.value is None or isinstance(change.value, ShareProgress)
                self._share.on_durable(TopicPartition(change.key.topic, change.key.partition), change.value)
        for answer in durable.waiting:
            if isinstance(answer, Acquired):
                effects += self._share.tell(answer)
        return [*effects, *self._snapshot(now)]

    def _flush(self, now: int) -> list[Effect]:
        """Append the gathered decisions unless an append is in flight; later decisions wait for the next."""
        if not self._recorder.is_idle:
            return []
        self._decisions.settle()
        self._decisions.record_share(*self._share.take(now))
        effects = self._expiry.settle(self._decisions.gathered, now)
        changes = self._decisions.take()
        return [*effects, *self._recorder.flush(changes, now)] if changes else effects

    def _snapshot(self, now: int, least: int = SNAPSHOT_RECORDS) -> list[Effect]:
        # A deleted group leaves no file behind, however late its coordinator is stopped.
        if self._since_snapshot < least or self._serving.is_deleted(now) or self._state.is_blank:
            return []
        self._since_snapshot = 0
        return [SaveSnapshot(encode_snapshot(self._state, self._mark, now))]


def _is_share_group_s(event: Event) -> bool:
    """Return True if this is an answer or a timer of the share group's own."""
    is_keyed = isinstance(event, Answered | Failed | TimerFired) and isinstance(event.key, tuple)
    return is_keyed and event.key[0] == SHARE
