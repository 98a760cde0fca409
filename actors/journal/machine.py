"""The machine of every actor that keeps a journal: it replays the state, serves it, and stops or falls asleep. Pure.

Owns the phase, the flush, the snapshot and the sleep. Must never let the state be served before it is taken over, nor
accept a request after a stop. Knows nothing of the state: the replay's ledger builds it, and a service (service.py)
serves it. Run by the actor's process, and in tests by a simulator.

    replaying --replay done--> serving          requests are refused ACTOR_UNAVAILABLE; the service is made at the end
    replaying --StopRequested--> stopped        no state was changed
    serving   --StopRequested--> stopping       requests are refused SHUTTING_DOWN; other events are still handled
    serving   --idle timer, no work--> asleep   a snapshot, MarkAsleep, Sleep
    stopping  --no append in flight | STOP_WAIT_MS--> stopped

    an event of a serving actor    handle, and on_durable if it confirms an append: its changes, and their answers
    TurnHandled                    advance
                                   take, unless an append is in flight: the gathered changes become one flush
    TurnFlushed                    tidy, and a snapshot if it is due

An append in flight at a stop may become durable; later than STOP_WAIT_MS its outcome is unknown, as after a crash.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias

from msgspec import Struct

from ...transport.batch import Record
from ...transport.machine import (
    Disconnected,
    LoopEffect,
    LoopEvent,
    Received,
    Reply,
    SetTimer,
    Sleep,
    Stop,
    StopRequested,
    TimerFired,
)
from ...transport.protocol.errors import ErrorBody, ErrorCode
from .effects import (
    BecomeReady,
    JournalEffect,
    JournalEvent,
    JournalOpened,
    MarkAsleep,
    SaveSnapshot,
    TurnFlushed,
    TurnHandled,
    WarnOfSnapshot,
)
from .idleness import Idleness, IdleTimer
from .recorder import AnswerT, ChangeT, Recorder
from .replay import Replay
from .service import OwnEffectT, Service
from .snapshot import LogMark

STOP_WAIT_MS = 1_000
"""Longest wait of a stop for the append in flight."""
IDLE_CHECK_MS = 30_000
REPLAYING = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "the actor is replaying its journal", True)
STOPPING = ErrorBody(ErrorCode.SHUTTING_DOWN, "the actor is stopping", True)

Event: TypeAlias = LoopEvent | JournalEvent


class StopTimer(Struct, frozen=True):
    """The end of a stop's wait."""


class JournalMachine(Generic[ChangeT, AnswerT, OwnEffectT]):
    def __init__(
        self,
        replay: Replay,
        encode: Callable[[ChangeT], Sequence[Record]],
        make_service: Callable[[Recorder[ChangeT, AnswerT], int], Service[ChangeT, AnswerT, OwnEffectT]],
        *,
        idle_ms: int = 0,
    ) -> None:
        """`make_service(recorder, now)` is called once, at the end of the replay. `idle_ms` 0: never sleep."""
        self._replay = replay
        self._encode = encode
        self._make_service = make_service
        self._idleness = Idleness(idle_ms, IDLE_CHECK_MS)
        self._is_stopping = False
        self._is_idle_due = False
        """True if the timer of the idleness has fired in this turn."""
        self.is_turn_open = False
        """True if events have been handled since TurnFlushed."""
        self.service: Service[ChangeT, AnswerT, OwnEffectT] | None = None
        """None during the replay."""
        self._recorder: Recorder[ChangeT, AnswerT]
        self._mark: LogMark
        self._unsaved_records = 0
        """Records that the snapshot does not contain."""

    @property
    def has_snapshot(self) -> bool:
        """Return True if the replay began with a snapshot. Called before the first event."""
        return self._replay.mark is not None

    def handle(self, event: Event, now: int) -> list[LoopEffect | JournalEffect | OwnEffectT]:
        service = self.service
        if service is None:
            return self._while_not_serving(event, now)
        if isinstance(event, TurnHandled):
            return self._flush(service, now)
        if isinstance(event, TurnFlushed):
            self.is_turn_open = False
            return [*service.tidy(now), *self._snapshot(now)]
        self.is_turn_open = True
        match event:
            case Received():
                if self._is_stopping:
                    return [Reply(event.sender, STOPPING)]
                self._idleness.on_request(now)
                return [*service.handle(event, now)]
            case StopRequested():
                self._is_stopping = True
                return [SetTimer(StopTimer(), now + STOP_WAIT_MS), *service.close(now)]
            case TimerFired(key=StopTimer()):
                return [Stop("the outstanding append was not answered in time")]
            case TimerFired(key=IdleTimer()):
                self._is_idle_due = True
                return []
            case JournalOpened():
                raise AssertionError("the journal is opened once")
        return [*self._serve(service, event, now)]

    def _flush(
        self, service: Service[ChangeT, AnswerT, OwnEffectT], now: int
    ) -> list[LoopEffect | JournalEffect | OwnEffectT]:
        """Append the changes of the turn; then end, or fall asleep, if nothing is left to do."""
        effects: list[LoopEffect | JournalEffect | OwnEffectT] = [*service.advance(now)]
        if self._recorder.is_idle and (changes := service.take()):
            effects += self._recorder.flush(changes, now)
        if self._is_stopping and self._recorder.is_idle:
            return [*effects, *self._snapshot(now, least=1), Stop("stopped")]
        if self._is_idle_due:
            self._is_idle_due = False
            return [*effects, *self._fall_asleep(service, now)]
        return effects

    def _while_not_serving(self, event: Event, now: int) -> list[LoopEffect | JournalEffect | OwnEffectT]:
        match event:
            case JournalOpened():
                return [*self._replay.start(now)]
            case Received():
                return [Reply(event.sender, REPLAYING)]
            case StopRequested():
                return [Stop("stopped while replaying")]
            case Disconnected() | TurnHandled() | TurnFlushed():
                return []
        effects = self._replay.handle(event, now)
        return [*effects, *self._begin(now)] if self._replay.is_done else [*effects]

    def _begin(self, now: int) -> list[LoopEffect | JournalEffect | OwnEffectT]:
        replay = self._replay
        assert replay.mark is not None, "the start record has been read"
        self._mark = replay.mark
        self._unsaved_records = replay.records_read
        self._recorder = Recorder(replay.appender, replay.identity, next_sequence=1, encode=self._encode)
        service = self.service = self._make_service(self._recorder, now)
        least = 1 if replay.is_snapshot_refused else None
        self.is_turn_open = True
        effects: list[LoopEffect | JournalEffect | OwnEffectT] = [
            BecomeReady(),
            *([] if replay.snapshot_fault is None else [WarnOfSnapshot(replay.snapshot_fault)]),
            *service.begin(now),
            *self._snapshot(now, least),
        ]
        return [*effects, *self._idleness.start(now)]

    def _serve(
        self, service: Service[ChangeT, AnswerT, OwnEffectT], event: LoopEvent, now: int
    ) -> Sequence[LoopEffect | JournalEffect | OwnEffectT]:
        """Handle an event that is the recorder's, the service's, or, as the start of a partition, both parts'."""
        recorded, durable = self._recorder.handle(event)
        if durable is None:
            return [*recorded, *service.handle(event, now)]
        self._mark = durable.mark
        self._unsaved_records += durable.mark.next_offset - durable.mark.base_offset
        return [*recorded, *service.on_durable(durable, now)]

    def _snapshot(self, now: int, least: int | None = None) -> list[SaveSnapshot]:
        """Renew the snapshot if it lacks `least` records, or as many as the service says."""
        service = self.service
        if service is None or self._unsaved_records < (least or service.snapshot_records):
            return []
        data = service.snapshot(self._mark, now)
        if data is None:
            return []
        self._unsaved_records = 0
        return [SaveSnapshot(data)]

    def _fall_asleep(
        self, service: Service[ChangeT, AnswerT, OwnEffectT], now: int
    ) -> list[LoopEffect | JournalEffect]:
        """Sleep if the timer finds the actor idle; all its requests are answered by now."""
        is_working = not self._recorder.is_idle or service.is_working(now)
        effects, is_time = self._idleness.on_timer(is_working, now)
        if not is_time:
            return [*effects]
        wake_after_ms = service.wake_after_ms(now)
        wake_at = None if wake_after_ms is None else now + wake_after_ms
        sleep = Sleep("no requests, no work", wake_after_ms)
        return [*effects, *self._snapshot(now, least=1), MarkAsleep(wake_at), sleep]
