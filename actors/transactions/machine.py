"""The machine of a coordinator of transactions: it replays its entries, serves them, sends markers, and stops.

Owns the phases, the flush and the timers. Must never serve before the partition is taken over. The work is done by its
parts: the replay with records.py, serving.py (requests and decisions), markers.py, the recorder. Run by process.py.

    replaying --replay done--> serving     requests are refused; then BecomeReady, and the markers of what was being ended
    serving --StopRequested--> stopping    nothing new; what is outstanding may become durable
    stopping --nothing outstanding | STOP_WAIT_MS--> Stop
"""

from ...transport.addresses import CONTROLLER, transactions_address
from ...transport.machine import (
    Answered,
    Call,
    Effect,
    Event,
    Failed,
    Received,
    Reply,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from ...transport.protocol.data import InitProducer, InitProducerReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..coordinator.watch import TopicsWatch
from ..journal.pause import Pause
from ..journal.recorder import Recorder, Waiting
from ..journal.replay import Replay
from .effects import BecomeReady, Started
from .markers import Markers
from .records import Change, Ledger, encode
from .serving import REQUESTS, Serving

STOP_WAIT_MS = 1_000
"""How long a stop waits for the outstanding append."""
COMPLETION_WAIT_MS = 1_000
"""How long a completion waits for something else to be recorded with."""
FORGET_CHECK_MS = 3600 * 1000
NUMBER = "number"
OVERDUE, PATIENCE, COMPLETIONS, FORGET, STOP = "overdue", "patience", "completions", "forget", "stop"

TIMERS = (OVERDUE, PATIENCE, COMPLETIONS, FORGET, STOP)

__all__ = ["REQUESTS", "TransactionsMachine"]


class TransactionsMachine:
    def __init__(self, topic: str, number: int, *, starter: str, endpoint: str | None = None) -> None:
        """Of partition `number` of the internal topic; reached at `endpoint` on this machine."""
        self._number = number
        self._endpoint = endpoint
        self._ledger = Ledger()
        self._replay = Replay(transactions_address(number), topic, number, starter, self._ledger)
        self._watch = TopicsWatch()
        self._markers = Markers()
        self._number_pause = Pause("number_retry", CONTROLLER)
        self._is_asking = False
        self._is_serving = self._is_stopping = False
        self._overdue_at: int | None = None
        self._patience_at: int | None = None
        self._is_completion_timed = False
        self._recorder: Recorder[Change, Waiting]
        self._serving: Serving

    def handle(self, event: Event, now: int) -> list[Effect]:
        if not self._is_serving:
            return self._while_replaying(event, now)
        effects = self._while_serving(event, now)
        effects += self._flush(now)
        if self._is_stopping:
            return [*effects, Stop("stopped")] if self._recorder.is_idle else effects
        return effects + self._ask_for_numbers() + self._set_timers(now)

    def _while_replaying(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Started):
            return self._replay.start(now)
        if isinstance(event, Received):
            error = ErrorBody(ErrorCode.ACTOR_UNAVAILABLE, "the transactions are being replayed", True)
            return [Reply(event.sender, error)]
        if isinstance(event, StopRequested):
            return [Stop("stopped while replaying")]
        effects = self._replay.handle(event, now)
        if self._replay.is_done:
            effects += self._begin_serving(now)
        return effects

    def _begin_serving(self, now: int) -> list[Effect]:
        self._is_serving = True
        self._recorder = Recorder(
            self._replay.appender, self._replay.identity, next_sequence=1, encode=encode
        )
        self._serving = Serving(
            self._number, self._endpoint, self._ledger.entries, self._recorder, self._markers
        )
        effects: list[Effect] = [BecomeReady(), *self._watch.start(), SetTimer(FORGET, now + FORGET_CHECK_MS)]
        more, finished = self._serving.begin()
        effects += more + self._serving.on_complete(finished, now)
        return effects + self._ask_for_numbers() + self._set_timers(now)

    def _while_serving(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Received):
            if self._is_stopping:
                error = ErrorBody(ErrorCode.SHUTTING_DOWN, "the coordinator is stopping", True)
                return [Reply(event.sender, error)]
            return self._serving.on_request(event, now)
        if isinstance(event, StopRequested):
            self._is_stopping = True
            self._serving.hasten()
            return [SetTimer(STOP, now + STOP_WAIT_MS)]
        if isinstance(event, TimerFired) and event.key in TIMERS:
            return self._on_timer(event.key, now)
        effects, topics = self._watch.handle(event, now)
        finished: list[str] = []
        if topics is not None:
            more, finished = self._markers.set_topics(
                {name: each.partitions for name, each in topics.items()}
            )
            effects += more
        effects += self._on_number(event, now)
        more, durable = self._recorder.handle(event, now)
        effects += more
        if durable is not None:
            effects += [Reply(waiting.sender, waiting.body) for waiting in durable.waiting]
            more, done = self._serving.on_durable(durable.changes)
            effects += more
            finished += done
        more, done = self._markers.handle(event, now)
        return effects + more + self._serving.on_complete(finished + done, now)

    def _on_timer(self, key: str, now: int) -> list[Effect]:
        if key == OVERDUE:
            self._overdue_at = None
            self._serving.abort_overdue(now)
        elif key == PATIENCE:
            self._patience_at = None
            return self._serving.send_away(now)
        elif key == COMPLETIONS:
            self._is_completion_timed = False
            self._serving.hasten()
        elif key == FORGET:
            self._serving.forget_unused(now)
            return [SetTimer(FORGET, now + FORGET_CHECK_MS)]
        else:
            return [Stop("the outstanding append was not answered in time")]
        return []

    def _on_number(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Answered) and event.key == NUMBER:
            self._is_asking = False
            return self._serving.on_number(event.reply.producer_id, now)
        if isinstance(event, Failed) and event.key == NUMBER:
            return self._number_pause.begin(now)
        if self._number_pause.is_over(event):
            self._is_asking = False
            return [self._number_pause.end]
        return []

    def _ask_for_numbers(self) -> list[Effect]:
        """Nobody else is ever given them: the controller's, as for any producer."""
        if self._is_asking or not self._serving.is_wanting_numbers:
            return []
        self._is_asking = True
        return [Call(NUMBER, CONTROLLER, InitProducer(), InitProducerReply)]

    def _flush(self, now: int) -> list[Effect]:
        """One append is outstanding at a time; what is decided meanwhile gathers for the next."""
        if not self._recorder.is_idle:
            return []
        changes = self._serving.take()
        return self._recorder.flush(changes, now) if changes else []

    def _set_timers(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        overdue_at = self._serving.next_deadline()
        if overdue_at is not None and (self._overdue_at is None or overdue_at < self._overdue_at):
            self._overdue_at = overdue_at
            effects.append(SetTimer(OVERDUE, max(now, overdue_at)))
        patience_at = self._serving.next_impatience()
        if patience_at is not None and self._patience_at is None:
            self._patience_at = patience_at
            effects.append(SetTimer(PATIENCE, patience_at))
        if self._serving.has_lazy and not self._is_completion_timed:
            self._is_completion_timed = True
            effects.append(SetTimer(COMPLETIONS, now + COMPLETION_WAIT_MS))
        return effects
