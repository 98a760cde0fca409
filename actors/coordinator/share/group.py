"""A share group: the plug-in of the coordinator for groups whose members acquire records. Pure.

Owns the parts and the order of their work. Must never answer with state that is not durable: a change marks its
partition, the coordinator's next flush records it (`gather`), and the answer waits for that. Called by the
coordinator's machine.

    acquire           acquiring.py
    acknowledge       acknowledging.py, also within an acquire; answered when durable; `renew` alone and refusals
                      at once
    configure         settings.py; creates the group, or changes it
    leave             the member's records are available again
    connection lost   those of a member that does not come back: lost_members.py
    share timer       locks and delays that are over, and requests that have waited long enough
    dead records      dead_letters.py
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.machine import (
    Answered,
    CancelTimer,
    Failed,
    LoopEffect,
    LoopEvent,
    PeerUp,
    Received,
    Reply,
    Sender,
    SetTimer,
    TimerFired,
    WallClockStepped,
)
from ....transport.protocol.errors import ErrorCode, ProtocolError
from ....transport.protocol.groups import (
    CommitOffsets,
    DescribeGroupReply,
    FetchOffsets,
    GroupHeartbeat,
    LeaveGroup,
    MemberGone,
    ResetOffsets,
)
from ....transport.protocol.message import Done, Request
from ....transport.protocol.shares import (
    Acknowledge,
    AcknowledgeReply,
    Acquire,
    ConfigureShareGroup,
)
from ....transport.protocol.topics import CatalogTopic
from ...journal.recorder import Durable, Recorder
from ..decisions import Decisions
from ..effects import Alarm, Effect
from ..records import Change, ShareKey
from ..state import GroupState
from .acknowledging import Acknowledgements
from .acquire_replies import Acquired
from .acquiring import Acquisitions
from .dead_letters import DeadLetterReadCall, DeadLetterRetryTimer, DeadLetters, DeadLetterWriteCall
from .description import describe, retry_alarms
from .log_bounds import LogBounds
from .lookahead import LookaheadCall, LookaheadTimer
from .losses import Loss
from .lost_members import LostMembers
from .partitions import SharePartitions
from .reading import RecordsCall
from .records import ShareProgress, by_this_clock
from .reports import ShareReports
from .settings import GroupSettings
from .tails import GroupStartCall, LogStartCall, TailCall, TailRetryTimer

REQUESTS: tuple[type[Request], ...] = (Acquire, Acknowledge, ConfigureShareGroup, MemberGone)
"""Requests that only a share group serves."""
SHARED_REQUESTS = (LeaveGroup,)
"""Requests that a group of either kind serves."""
CONSUMERS_REQUESTS = (GroupHeartbeat, CommitOffsets, FetchOffsets, ResetOffsets)
"""Requests that a share group refuses."""


class ShareTimer(Struct, frozen=True):
    """The end of a lock, a delay or a wait."""


class ShareGroup:
    def __init__(
        self,
        durable: GroupState,
        decisions: Decisions,
        recorder: Recorder[Change, Any],
        disconnect_grace_ms: int,
        now: int,
        *,
        is_replaceable: bool,
    ) -> None:
        """`is_replaceable`: another coordinator may serve the group while this one still runs."""
        progress = {tp: by_this_clock(each, now) for tp, each in durable.shares.items()}
        self._group = durable.group
        self._decisions = decisions
        self._recorder = recorder
        self._partitions = SharePartitions(progress)
        self.settings = GroupSettings(
            durable.group, durable.share_settings, self._partitions, decisions.why_no_share_group
        )
        self._log_bounds = LogBounds(self._partitions, decisions.topics.is_younger)
        self._acquisitions = Acquisitions(
            self._partitions,
            self._log_bounds,
            recorder,
            lambda: decisions.pauses.is_paused,
            lambda tp: not is_replaceable and durable.pause is None and tp in durable.shares,
        )
        self._acknowledgements = Acknowledgements(self._partitions)
        self._lost_members = LostMembers(disconnect_grace_ms)
        self._dead_letters = DeadLetters(durable.group, self._partitions)
        for tp, each in progress.items():
            self._dead_letters.on_durable(tp, each)
        self.reports = ShareReports(durable, self._partitions, self._dead_letters, self._members)
        self._alarms: tuple[str, ...] = ()
        self._timer_at: int | None = None
        self._is_touched = True
        """True if something has happened since `tidy` that may give work to it or to `advance`."""

    # Requests

    def serves(self, request: Request) -> bool:
        """Return True if the request is for this kind of group."""
        if isinstance(request, REQUESTS):
            return True
        return self.settings.is_share and isinstance(request, SHARED_REQUESTS + CONSUMERS_REQUESTS)

    def on_request(self, event: Received, now: int) -> list[LoopEffect]:
        """Handle a request. Raises ProtocolError."""
        self._is_touched = True
        sender, request = event.sender, event.request
        match request:
            case MemberGone(member_id=member, connection=client):
                self._lost_members.on_gone(member, sender.route[0], client, now)
                return []
            case _ if isinstance(request, CONSUMERS_REQUESTS):
                return [Reply(sender, self.settings.refusal())]
        self._recorder.check_room(sender, 0)
        if isinstance(request, Acquire | Acknowledge):
            self._lost_members.note(request.member_id, event)
        match request:
            case Acquire():
                return self._on_acquire(sender, request, now)
            case Acknowledge():
                return self._on_acknowledge(sender, request, now)
            case ConfigureShareGroup():
                reply = self.settings.configure(request).reply
                return self._recorder.reply(sender, reply, is_gathered=True)
            case LeaveGroup():
                effects = self._end(request.member_id)
                self._acknowledgements.release(request.member_id, None, now)
                return effects + self._recorder.reply(sender, Done(), is_gathered=self._is_changed)
        raise AssertionError(f"{request!r} is not for a share group")

    def _on_acquire(self, sender: Sender, request: Acquire, now: int) -> list[LoopEffect]:
        self.settings.check_topics(request)
        self.settings.become_share()
        settings = self.settings.current
        if request.acknowledgements:
            results, is_changed = self._acknowledgements.apply(request, settings, now)
            effects = self._acquisitions.request_at_once(
                sender, request, results, settings, now, is_changed=is_changed
            )
        else:
            effects = self._acquisitions.request(sender, request, settings, now)
            # At once: the answer need not wait for the rest of the turn.
            effects += self._acquisitions.advance(settings, now)
        self._decisions.topics.note_sharing(request.topics)
        return effects

    def _on_acknowledge(self, sender: Sender, request: Acknowledge, now: int) -> list[LoopEffect]:
        if not self.settings.is_share:
            message = f"{self._group!r} is not a share group: it has no records to acknowledge"
            raise ProtocolError(ErrorCode.INVALID_GROUP, message)
        results, is_changing = self._acknowledgements.apply(request, self.settings.current, now)
        body = AcknowledgeReply(results=results)
        self._acquisitions.stir()
        if not is_changing:
            return [Reply(sender, body)]
        return self._recorder.reply(sender, body, is_gathered=True)

    def _end(self, member: str) -> list[LoopEffect]:
        """End the requests of a member that leaves or is lost."""
        if not self.settings.is_share:
            return []
        effects = self._acquisitions.end(member, self.settings.current)
        self._acquisitions.drop_replies(member)
        self._lost_members.forget(member)
        self._acquisitions.stir()
        return effects

    def on_disconnected(self, connection: bytes, now: int) -> None:
        """Expect the members back whose client was connected here itself."""
        self._is_touched = True
        self._lost_members.on_disconnected(connection, now)

    def on_paused(self) -> None:
        """Check the waiting requests again: the group has been paused or resumed."""
        self._is_touched = True
        self._acquisitions.stir()

    def forget_senders(self, is_gone: Callable[[Sender], bool], *, also_sent: bool) -> None:
        """Cancel the requests of senders that are gone; `also_sent`: the latest replies to them are lost."""
        self._is_touched = True
        self._acquisitions.cancel(is_gone, also_sent=also_sent)

    def check_unused(self) -> None:
        """Raise ProtocolError while records are held or waited for."""
        members = self._members()
        if members:
            message = f"the group is not empty; members that hold records or wait for some: {len(members)}"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)

    def delete(self) -> None:
        """Drop all state: the group is deleted."""
        self._is_touched = True
        self._partitions.forget()
        self.settings.forget()

    # Other events

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        """Handle the answers and timers of the group's own, the start of its partitions, and the wall clock."""
        self._is_touched = True
        match event:
            case TimerFired(key=ShareTimer()):
                self._timer_at = None
                if self.settings.is_share:
                    settings = self.settings.current
                    effects: list[LoopEffect] = []
                    for member, is_charged in self._lost_members.take_lost(now):
                        effects += self._end(member)
                        self._acknowledgements.release(member, Loss(settings.max_deliveries, is_charged), now)
                    self._acknowledgements.expire(settings, now)
                    self._acquisitions.stir()
                    return effects
            case TimerFired(key=LookaheadTimer(tp=tp)):
                self._acquisitions.lookahead.on_rested(tp)
            case Answered(key=LookaheadCall(tp=tp)) | Failed(key=LookaheadCall(tp=tp)):
                self._acquisitions.stir()
                return self._acquisitions.lookahead.on_outcome(tp, event, now)
            case TimerFired(key=TailRetryTimer(tp=tp)):
                self._log_bounds.on_rested(tp)
            case TimerFired(key=DeadLetterRetryTimer(tp=tp, offset=offset)):
                self._dead_letters.on_rested(tp, offset)
                return []
            case Answered(key=RecordsCall(number=number)) | Failed(key=RecordsCall(number=number)):
                self._acquisitions.stir()
                return self._acquisitions.reading.handle(number, event)
            case (
                Answered(key=GroupStartCall() | LogStartCall() | TailCall() as call)
                | Failed(key=GroupStartCall() | LogStartCall() | TailCall() as call)
            ):
                if not self.settings.is_share:
                    return self._log_bounds.on_deleted(call.tp)
                is_cut = isinstance(event, Failed) and event.error.code == ErrorCode.LOG_TRUNCATED
                if not is_cut and (isinstance(call, TailCall) or isinstance(event, Failed)):
                    self._acquisitions.on_partition_answered(call.tp)
                self._acquisitions.stir()
                return self._log_bounds.on_outcome(call, event, now)
            case (
                Answered(key=DeadLetterReadCall() | DeadLetterWriteCall() as copy)
                | Failed(key=DeadLetterReadCall() | DeadLetterWriteCall() as copy)
            ):
                return self._dead_letters.on_outcome(copy, event, self.settings.dead_letter, now)
            case PeerUp() if (up := event.address.topic_partition) is not None:
                self._log_bounds.on_up(up)
            case WallClockStepped(offset_ms=offset_ms):
                self._partitions.wall_offset_ms = offset_ms
            case _:
                return []
        self._acquisitions.stir()
        return []

    def set_topics(self, topics: Mapping[str, CatalogTopic]) -> None:
        self._is_touched = True
        self._partitions.set_topics(topics)
        self._acquisitions.stir()
        if self.settings.is_share:
            self._decisions.topics.note_sharing(self.topics_in_use())

    def on_durable(self, durable: Durable[Change, Any]) -> list[LoopEffect]:
        self._is_touched |= self._dead_letters.has_work
        for change in durable.changes:
            if isinstance(change.key, ShareKey):
                assert change.value is None or isinstance(change.value, ShareProgress)
                tp = TopicPartition(change.key.topic, change.key.partition)
                self._dead_letters.on_durable(tp, change.value)
        self._is_touched |= self._dead_letters.has_work
        acquired = [answer for answer in durable.answers if isinstance(answer, Acquired)]
        return [effect for each in acquired for effect in self._acquisitions.on_durable(each)]

    def advance(self, now: int) -> list[Effect]:
        """Serve waiting requests, and request log ends."""
        if not self._is_touched or not self.settings.is_share:
            return []
        return [*self._acquisitions.advance(self.settings.current, now)]

    def tidy(self, now: int) -> list[Effect]:
        """Write dead letters, set the timer and the alarms."""
        if not self._is_touched:
            return []
        self._is_touched = False
        if not self.settings.is_share:
            return self._raise_alarms(()) if self._alarms else []
        settings = self.settings.current
        effects: list[Effect] = [*self._dead_letters.advance(settings.dead_letter)]
        effects += self._set_timer(now)
        dead_letters = self._dead_letters.alarms(settings.dead_letter)
        return effects + self._raise_alarms(dead_letters + retry_alarms(dict(self._partitions.items()), now))

    def _raise_alarms(self, alarms: tuple[str, ...]) -> list[Effect]:
        if alarms == self._alarms:
            return []
        self._alarms = alarms
        return [Alarm(alarms)]

    def _set_timer(self, now: int) -> list[LoopEffect]:
        times = [
            self._acknowledgements.next_due(now),
            self._acquisitions.next_due(now),
            self._lost_members.next_due(),
            self._partitions.next_due(now),
        ]
        at = min((each for each in times if each is not None), default=None)
        if at == self._timer_at:
            return []
        self._timer_at = at
        return [CancelTimer(ShareTimer())] if at is None else [SetTimer(ShareTimer(), at)]

    def gather(self, now: int) -> None:
        """Add the changes since the last flush to the decisions."""
        settings, changed = self.settings.take(), self._partitions.take(now)
        if settings is not None or changed:
            self._decisions.record_share(settings, changed)

    def close(self) -> list[LoopEffect]:
        self._partitions.hurry()
        return self._acquisitions.close()

    # State

    @property
    def _is_changed(self) -> bool:
        return self._partitions.is_changed or self.settings.is_changed

    def is_working(self) -> bool:
        """Return True if a request waits, a record is locked or delayed, or a dead letter or an alarm is outstanding."""
        is_timed = self._acquisitions.is_waiting or self._timer_at is not None
        return is_timed or self._dead_letters.has_work or self._is_changed or bool(self._alarms)

    def topics_in_use(self) -> frozenset[str]:
        """Return the topics whose records members hold or wait for."""
        held = {tp.topic for tp, part in self._partitions.items() if part.is_held}
        return frozenset(held | self._acquisitions.topics)

    def _members(self) -> list[str]:
        held = (part.members() for _, part in self._partitions.items())
        return sorted(self._acquisitions.members.union(*held))

    def describe(self) -> DescribeGroupReply:
        partitions = dict(self._partitions.items())
        settings = self.settings.current
        return describe(self._group, settings, self._members(), partitions, self._partitions.wall_offset_ms)
