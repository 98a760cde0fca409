"""The machine of a coordinator of transactions: it replays its entries, serves them, sends markers, and stops.

Owns the flush and the timers. The work is done by its parts: the phases and the replay with records.py, serving.py
(requests and decisions), markers.py, the recorder. Once it serves, the markers of transactions that were ending are
sent again. Run by process.py.
"""

from ...transport.addresses import transactions_address
from ...transport.machine import Effect, Event, Received, Reply, SetTimer, Stop, TimerFired, WallClockStepped
from ..journal.effects import BecomeReady
from ..journal.phases import Disposition, Phases
from ..journal.producer_ids import ProducerIds
from ..journal.recorder import Recorder, Waiting
from ..journal.replay import Replay
from ..journal.topics_watch import TopicsWatch
from .markers import Markers
from .records import Change, Ledger, encode
from .serving import REQUESTS, TransactionRequests

COMPLETION_WAIT_MS = 1_000
"""The longest time that a completion waits to be recorded together with other changes."""
FORGET_CHECK_MS = 3600 * 1000
OVERDUE, PATIENCE, COMPLETIONS, FORGET = TIMERS = "overdue", "patience", "completions", "forget"

__all__ = ["REQUESTS", "TransactionsMachine"]


class TransactionsMachine:
    def __init__(self, topic: str, number: int, *, starter: str, endpoint: str | None = None) -> None:
        """Create the machine of partition `number` of the internal topic; reached at `endpoint` on this machine."""
        self._number = number
        self._endpoint = endpoint
        self._ledger = Ledger()
        self._replay = Replay(transactions_address(number), topic, number, starter, self._ledger)
        self._phases = Phases(
            self._replay,
            while_replaying="the transactions are being replayed",
            while_stopping="the coordinator is stopping",
        )
        self._watch = TopicsWatch()
        self._markers = Markers()
        self._numbers = ProducerIds()
        self._overdue_at: int | None = None
        self._deadline_at: int | None = None
        self._is_completion_timed = False
        self._recorder: Recorder[Change, Waiting]
        self._serving: TransactionRequests

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects, left = self._phases.handle(event, now)
        match left:
            case Disposition.NOTHING:
                return effects
            case Disposition.BEGIN:
                return effects + self._begin_serving(now)
            case Disposition.CLOSE:
                self._serving.hasten()
            case Disposition.EVENT:
                effects += self._while_serving(event, now)
        effects += self._flush(now)
        if self._phases.is_stopping:
            return [*effects, Stop("stopped")] if self._recorder.is_idle else effects
        return effects + self._ask_for_numbers() + self._set_timers(now)

    def _ask_for_numbers(self) -> list[Effect]:
        return self._numbers.ask() if self._serving.is_wanting_numbers else []

    def _begin_serving(self, now: int) -> list[Effect]:
        self._recorder = Recorder(
            self._replay.appender, self._replay.identity, next_sequence=1, encode=encode
        )
        self._serving = TransactionRequests(
            self._number, self._endpoint, self._ledger.entries, self._recorder, self._markers, now
        )
        effects: list[Effect] = [BecomeReady(), *self._watch.start(), SetTimer(FORGET, now + FORGET_CHECK_MS)]
        more, finished = self._serving.begin()
        effects += more + self._serving.on_complete(finished, now)
        return effects + self._ask_for_numbers() + self._set_timers(now)

    def _while_serving(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, WallClockStepped):
            self._serving.wall_offset_ms = event.offset_ms
            return []
        if isinstance(event, Received):
            return self._serving.on_request(event, now)
        if isinstance(event, TimerFired) and event.key in TIMERS:
            return self._on_timer(event.key, now)
        effects, topics = self._watch.handle(event, now)
        finished: list[str] = []
        if topics is not None:
            more, finished = self._markers.set_topics(
                {name: each.partitions for name, each in topics.items()}
            )
            effects += more
        more, number = self._numbers.handle(event, now)
        effects += more
        if number is not None:
            effects += self._serving.on_number(number, now)
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
            self._deadline_at = None
            return self._serving.send_away(now)
        elif key == COMPLETIONS:
            self._is_completion_timed = False
            self._serving.hasten()
        else:
            self._serving.forget_unused(now)
            return [SetTimer(FORGET, now + FORGET_CHECK_MS)]
        return []

    def _flush(self, now: int) -> list[Effect]:
        """Flush if no append is outstanding; later decisions wait for the next append."""
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
        deadline_at = self._serving.next_timeout()
        if deadline_at is not None and self._deadline_at is None:
            self._deadline_at = deadline_at
            effects.append(SetTimer(PATIENCE, deadline_at))
        if self._serving.has_lazy and not self._is_completion_timed:
            self._is_completion_timed = True
            effects.append(SetTimer(COMPLETIONS, now + COMPLETION_WAIT_MS))
        return effects
