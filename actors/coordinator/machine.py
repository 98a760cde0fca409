"""The coordinator of a group: the service that its journal's machine runs.

Owns the parts and the order of their work. The group is served by its kind, consumer_group.py or share/group.py; beside
them work the decisions, progress.py (reports to partitions), expiry.py, the reports of open transactions and the watch
of topics. Must never answer from state that is not durable. Called by journal/machine.py.

    request       checked here, then served by its kind; a few concern both
    other event   every part takes the ones of its own
    changes       become durable, are applied to the durable state, and answered by the kinds

Sessions are suspended during the replay and restart after it; at a stop parked heartbeats are refused.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, assert_never

from msgspec import Struct

from ...transport.addresses import coordinator_address
from ...transport.machine import (
    Answered,
    Connected,
    Disconnected,
    Failed,
    LoopEffect,
    LoopEvent,
    PeerDown,
    PeersAsleep,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    MemberGone,
    PauseGroup,
    ResumeGroup,
)
from ...transport.protocol.message import Done, Request
from ...transport.protocol.operations import GroupReport, RetryReport
from ...transport.protocol.session import Cancel
from ...transport.protocol.topics import CatalogTopic
from ..journal.machine import JournalMachine
from ..journal.recorder import Durable, Recorder
from ..journal.replay import Replay
from ..journal.service import Service
from ..journal.snapshot import LogMark, Snapshot
from ..journal.topics_watch import TopicsWatch
from ..journal.transaction_reports import ReportCall, ReportTimer, TransactionReports
from .consumer_group import REQUESTS as CONSUMER_REQUESTS
from .consumer_group import ConsumerGroup
from .decisions import Decisions
from .effects import Effect, NotePause, OwnEffect, RemoveSnapshot
from .expiry import FOREVER, ExpiryTimer, OffsetsExpiry
from .ledger import GroupLedger
from .parked import ParkedHeartbeat
from .pauses import PauseTimer, described
from .progress import ProgressReports
from .records import Change, Pause, encode
from .reports import consumer_report
from .share.acquire_replies import Acquired
from .share.group import REQUESTS as SHARE_REQUESTS
from .share.group import ShareGroup
from .snapshot import encode_snapshot
from .state import GroupState

BOTH_KINDS_REQUESTS = (DeleteGroup, DescribeGroup, PauseGroup, ResumeGroup)
REQUESTS: tuple[type[Request], ...] = (*CONSUMER_REQUESTS, *SHARE_REQUESTS, *BOTH_KINDS_REQUESTS, Cancel)

SNAPSHOT_RECORDS = 1_000
"""Records read or applied after which the snapshot is renewed."""
DELETED_MS = 5_000
"""Time for which a deleted group refuses to be created again: the time to stop its coordinator."""
FENCES_CHECK_MS = 3600 * 1000

Answer: TypeAlias = ParkedHeartbeat | Acquired
CoordinatorMachine: TypeAlias = JournalMachine[Change, Answer, OwnEffect]


class FencesTimer(Struct, frozen=True):
    """The next check for fences that have expired."""


class GroupService(Service[Change, Answer, OwnEffect]):
    def __init__(
        self,
        durable: GroupState,
        recorder: Recorder[Change, Answer],
        now: int,
        offsets_retention_ms: int,
        disconnect_grace_ms: int,
        *,
        is_replaceable: bool,
    ) -> None:
        decided = GroupState(durable.group)
        for change in durable.changes():
            decided.apply(change)
        self.durable = durable
        self.decisions = Decisions(decided)
        self._recorder = recorder
        self._share = ShareGroup(
            durable, self.decisions, recorder, disconnect_grace_ms, now, is_replaceable=is_replaceable
        )
        self._consumers = ConsumerGroup(durable, self.decisions, recorder, disconnect_grace_ms)
        self._watch = TopicsWatch()
        self._progress = ProgressReports(durable)
        self._reports = TransactionReports(groups=[durable.group])
        self._expiry = OffsetsExpiry(offsets_retention_ms, self.decisions)
        self._deleted_until = 0
        self._wall_offset_ms = 0
        self._ahead_ms = 0
        self._noted: Pause | None = None
        """The pause that `status` shows."""
        self._is_stopping = False

    def begin(self, now: int) -> list[Effect]:
        self.decisions.state.pending.bound_fences(now)
        effects = [*self._consumers.start(now), *self._watch.start(), *self._expiry.start(now)]
        effects += self.decisions.pauses.start(now)
        return [*effects, *self._drop_spent_fences(now)]

    def handle(self, event: LoopEvent, now: int) -> Sequence[Effect]:
        match event:
            case Received():
                return self._on_request(event, now)
            case Disconnected(connection=connection):
                # The connection is a gateway's or a client's; answers already sent may have arrived.
                effects = self._forget_senders(lambda sender: sender.route[0] == connection, also_sent=False)
                self._share.on_disconnected(connection, now)
                return [*effects, *self._consumers.on_disconnected(connection, now)]
            case WallClockStepped(offset_ms=offset_ms, ahead_ms=ahead_ms):
                self._wall_offset_ms = offset_ms
                is_moved, self._ahead_ms = ahead_ms != self._ahead_ms, ahead_ms
                started = self._consumers.start(now) if is_moved else []
                return [*self._share.handle(event, now), *started]
            case TimerFired(key=ReportTimer()):
                return self._reports.on_timer(now)
            case TimerFired(key=PauseTimer()):
                self._share.on_paused()
                return self.decisions.pauses.on_timer(now)
            case TimerFired(key=FencesTimer()):
                return self._drop_spent_fences(now)
            case TimerFired(key=ExpiryTimer()):
                return self._expiry.on_timer(now)
            case Answered(key=ReportCall(transaction=key)) | Failed(key=ReportCall(transaction=key)):
                return self._reports.on_outcome(key, event, now)
            case Answered() | Failed() | TimerFired() | PeerUp():
                return self._on_parts_event(event, now)
            case PeerDown() | PeersAsleep() | Connected():
                return []
            case StopRequested():
                raise AssertionError("the journal's machine handles a stop")
            case _:
                assert_never(event)

    def _on_parts_event(self, event: Answered | Failed | TimerFired | PeerUp, now: int) -> list[Effect]:
        effects: list[Effect] = [*self._share.handle(event, now), *self._consumers.handle(event, now)]
        polled, topics = self._watch.handle(event)
        effects += polled
        if topics is not None:
            effects += self._set_topics(topics, now)
        return [*effects, *self._progress.handle(event, now)]

    def report(self) -> GroupReport:
        """Return the group for the coordinator's report."""
        if self._share.settings.is_share:
            return self._share.reports.group()
        return consumer_report(self.durable)

    def counters(self) -> dict[str, int]:
        """Return the counts for the coordinator's report."""
        return self._share.reports.counters()

    def _set_topics(self, topics: dict[str, CatalogTopic], now: int) -> list[LoopEffect]:
        self.decisions.topics.set_topics(topics)
        self._progress.set_topics(topics)
        self._share.set_topics(topics)
        return self._consumers.retry_resets(now)

    def _forget_senders(self, is_gone: Callable[[Sender], bool], *, also_sent: bool) -> list[Effect]:
        """Forget the requests of senders that are gone."""
        self._share.forget_senders(is_gone, also_sent=also_sent)
        return [*self._consumers.forget_senders(is_gone)]

    # Requests

    def _on_request(self, event: Received, now: int) -> Sequence[Effect]:
        request = event.request
        match request:
            case Cancel():
                return self._forget_senders(event.cancels, also_sent=True)
            case MemberGone():
                kind = self._share if self._share.settings.is_share else self._consumers
                effects = kind.on_request(event, now)
                return [*effects, Reply(event.sender, Done())] if event.sender.awaits_reply else effects
        try:
            if isinstance(request, DeleteGroup):
                return self._delete(event.sender, request, now)
            self._check_served(request, now)
            if isinstance(request, DescribeGroup):
                return [Reply(event.sender, self._describe())]
            if isinstance(request, PauseGroup | ResumeGroup):
                return self._pause_or_resume(event.sender, request, now)
            kind = self._share if self._share.serves(request) else self._consumers
            return kind.on_request(event, now)
        except ProtocolError as error:
            return [Reply(event.sender, error.body)]

    def _check_served(self, request: Any, now: int) -> None:
        """Raise ProtocolError unless the request names this group, and the group is not being deleted."""
        _check_name(self.durable.group, request)
        if self._is_deleted(now):
            raise ProtocolError(ErrorCode.ACTOR_UNAVAILABLE, "the group has just been deleted")

    def _delete(self, sender: Sender, request: DeleteGroup, now: int) -> list[Effect]:
        _check_name(self.durable.group, request)
        self._share.check_unused()
        self._recorder.check_room(sender, len(self.decisions.gathered))
        self.decisions.offsets.delete()
        self._share.delete()
        self._deleted_until = now + DELETED_MS
        is_gathered = bool(self.decisions.gathered)
        return [RemoveSnapshot(), *self._recorder.reply(sender, Done(), is_gathered=is_gathered)]

    def _describe(self) -> DescribeGroupReply:
        body = self._share.describe() if self._share.settings.is_share else self._consumers.describe()
        pause = self.durable.pause
        if pause is not None:
            body.paused = described(pause, self._wall_offset_ms)
            is_held = body.share is not None and any(part.acquired for part in body.share.partitions)
            body.state = self.durable.shown_as(body.state, is_held=is_held)
        return body

    def _pause_or_resume(self, sender: Sender, request: PauseGroup | ResumeGroup, now: int) -> list[Effect]:
        self._recorder.check_room(sender, len(self.decisions.gathered))
        pauses = self.decisions.pauses
        effects: list[Effect] = [
            *(pauses.pause(request, now) if isinstance(request, PauseGroup) else pauses.resume())
        ]
        self._share.on_paused()
        return effects + self._recorder.reply(sender, Done(), is_gathered=bool(self.decisions.gathered))

    def _is_deleted(self, now: int) -> bool:
        return now < self._deleted_until

    # The journal

    def on_durable(self, durable: Durable[Change, Answer], now: int) -> list[Effect]:
        for change in durable.changes:
            self.durable.apply(change)
        self._progress.on_durable(durable.changes)
        return [*self._share.on_durable(durable), *self._consumers.on_durable(durable, now)]

    def advance(self, now: int) -> list[Effect]:
        effects: list[Effect] = [*self._share.advance(now)]
        if self._recorder.is_idle:
            self.decisions.members.settle()
            self._share.gather(now)
            effects += self._expiry.settle(self.decisions.gathered, now)
        return effects

    def tidy(self, now: int) -> list[Effect]:
        effects: list[Effect] = [*self._share.tidy(now)]
        pending = self.decisions.state.pending
        if pending.open or self._reports.is_watching:
            effects += self._reports.look(pending.open, now)
        if self.durable.pause != self._noted:
            self._noted = self.durable.pause
            effects.append(NotePause(self._noted))
        self._progress.on_sharing(self._share.topics_in_use)
        return effects + self._progress.flush(now, at_once=self._is_stopping)

    def take(self) -> list[Change]:
        return self.decisions.take()

    def close(self, now: int) -> list[Effect]:
        self._is_stopping = True
        return [*self._share.close(), *self._consumers.close()]

    @property
    def snapshot_records(self) -> int:
        return SNAPSHOT_RECORDS

    def snapshot(self, mark: LogMark, now: int) -> bytes | None:
        # A deleted group leaves no file behind, however late its coordinator is stopped.
        if self._is_deleted(now) or self.durable.is_blank:
            return None
        return encode_snapshot(self.durable, mark, now)

    def is_working(self, now: int) -> bool:
        is_busy = self._share.is_working() or self._consumers.is_working() or self.decisions.pauses.is_paused
        return is_busy or not self._progress.is_current or self._is_deleted(now)

    def wake_after_ms(self, now: int) -> int | None:
        return self._expiry.due_in_ms(now)

    def retrying(self) -> RetryReport:
        """Report a share group's records that failed and wait for their next delivery."""
        return self._share.reports.retrying()

    def _drop_spent_fences(self, now: int) -> list[Effect]:
        self.decisions.offsets.drop_spent_fences(now)
        return [SetTimer(FencesTimer(), now + FENCES_CHECK_MS)]


def _check_name(group: str, request: Any) -> None:
    if request.group != group:
        message = f"this is the coordinator of {group!r}, not of {request.group[:250]!r}"
        raise ProtocolError(ErrorCode.INVALID_GROUP, message)


def coordinator_machine(
    group: str,
    offsets_topic: str,
    offsets_partition: int,
    *,
    starter: str,
    snapshot: Snapshot[GroupState] | None = None,
    idle_ms: int = 0,
    offsets_retention_ms: int = FOREVER,
    disconnect_grace_ms: int = 0,
    is_replaceable: bool = False,
) -> CoordinatorMachine:
    ledger = GroupLedger(group, snapshot.state if snapshot else None)
    replay = Replay(coordinator_address(group), offsets_topic, offsets_partition, starter, ledger, snapshot)
    return JournalMachine(
        replay,
        lambda change: (encode(change),),
        lambda recorder, now: GroupService(
            ledger.state,
            recorder,
            now,
            offsets_retention_ms,
            disconnect_grace_ms,
            is_replaceable=is_replaceable,
        ),
        idle_ms=idle_ms,
    )
