"""The coordinator of transactions: the service that its journal's machine runs.

Owns the timers and the order of the parts' work: requests.py (requests and decisions), markers.py, the watch of topics,
the numbers for producer ids. Once it serves, the markers of transactions that were ending are sent again. Called by
journal/machine.py.
"""

from typing import Never, TypeAlias, assert_never

from msgspec import Struct

from ...transport.addresses import transactions_address
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
    SetTimer,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ..journal.machine import JournalMachine
from ..journal.producer_ids import ProducerIds
from ..journal.recorder import Durable, Recorder
from ..journal.replay import Replay
from ..journal.service import Service
from ..journal.topics_watch import TopicsWatch
from .decided import DecidedTransactions
from .markers import Markers
from .records import Change, TransactionLedger, encode
from .requests import REQUESTS, TransactionRequests

COMPLETION_WAIT_MS = 1_000
"""The longest time that a completion waits to be recorded together with other changes."""
FORGET_CHECK_MS = 3600 * 1000

TransactionsMachine: TypeAlias = JournalMachine[Change, Never, Never]

__all__ = ["REQUESTS", "TransactionsMachine", "transactions_machine"]


class OverdueTimer(Struct, frozen=True):
    """The next timeout of an open transaction."""


class WaitTimer(Struct, frozen=True):
    """The next timeout of a request that waits for the end of a transaction."""


class CompletionsTimer(Struct, frozen=True):
    """The end of the wait of completions that are not recorded yet."""


class ForgetTimer(Struct, frozen=True):
    """The next check for transactional ids that have expired."""


class TransactionsService(Service[Change, Never, Never]):
    def __init__(
        self,
        number: int,
        endpoint: str | None,
        node: str,
        ledger: TransactionLedger,
        recorder: Recorder[Change, Never],
        now: int,
    ) -> None:
        self._watch = TopicsWatch()
        self._markers = Markers()
        self._numbers = ProducerIds()
        self._overdue_at: int | None = None
        self._wait_until: int | None = None
        self._is_completion_timed = False
        self._requests = TransactionRequests(
            number, endpoint, node, ledger.transactions, recorder, self._markers, now
        )

    @property
    def decided(self) -> DecidedTransactions:
        return self._requests.decided

    def begin(self, now: int) -> list[LoopEffect]:
        effects: list[LoopEffect] = [*self._watch.start(), SetTimer(ForgetTimer(), now + FORGET_CHECK_MS)]
        sent, finished = self._requests.begin()
        return effects + sent + self._requests.on_complete(finished, now)

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        match event:
            case Received():
                return self._requests.on_request(event, now)
            case WallClockStepped(offset_ms=offset_ms):
                self._requests.wall_offset_ms = offset_ms
                return []
            case TimerFired(key=OverdueTimer()):
                self._overdue_at = None
                self._requests.abort_overdue(now)
                return []
            case TimerFired(key=WaitTimer()):
                self._wait_until = None
                return self._requests.time_out(now)
            case TimerFired(key=CompletionsTimer()):
                self._is_completion_timed = False
                self._requests.decided.record_completions()
                return []
            case TimerFired(key=ForgetTimer()):
                self._requests.decided.forget_unused(now)
                return [SetTimer(ForgetTimer(), now + FORGET_CHECK_MS)]
            case Answered() | Failed() | TimerFired():
                return self._on_parts_event(event, now)
            case PeerUp() | PeerDown() | PeersAsleep() | Connected() | Disconnected():
                return []
            case StopRequested():
                raise AssertionError("the journal's machine handles a stop")
            case _:
                assert_never(event)

    def _on_parts_event(self, event: Answered | Failed | TimerFired, now: int) -> list[LoopEffect]:
        finished: list[str] = []
        effects, topics = self._watch.handle(event)
        if topics is not None:
            sent, finished = self._markers.set_topics(
                {name: each.partitions for name, each in topics.items()}
            )
            effects += sent
        number = self._numbers.handle(event)
        if number is not None:
            effects += self._requests.on_number(number, now)
        sent, done = self._markers.handle(event, now)
        return effects + sent + self._requests.on_complete(finished + done, now)

    def on_durable(self, durable: Durable[Change, Never], now: int) -> list[LoopEffect]:
        sent, finished = self._requests.on_durable(durable.changes)
        return sent + self._requests.on_complete(finished, now)

    def advance(self, now: int) -> list[LoopEffect]:
        effects = self._numbers.request() if self._requests.numbers.is_low else []
        return effects + self._set_timers(now)

    def take(self) -> list[Change]:
        return self._requests.decided.take()

    def close(self, now: int) -> list[LoopEffect]:
        self._requests.decided.record_completions()
        return []

    def _set_timers(self, now: int) -> list[LoopEffect]:
        effects: list[LoopEffect] = []
        overdue_at = self._requests.decided.next_deadline()
        if overdue_at is not None and (self._overdue_at is None or overdue_at < self._overdue_at):
            self._overdue_at = overdue_at
            effects.append(SetTimer(OverdueTimer(), max(now, overdue_at)))
        wait_until = self._requests.waiting.next_timeout()
        if wait_until is not None and self._wait_until is None:
            self._wait_until = wait_until
            effects.append(SetTimer(WaitTimer(), wait_until))
        if self._requests.decided.has_waiting_completions and not self._is_completion_timed:
            self._is_completion_timed = True
            effects.append(SetTimer(CompletionsTimer(), now + COMPLETION_WAIT_MS))
        return effects


def transactions_machine(
    topic: str, number: int, *, starter: str, endpoint: str | None = None, node: str = ""
) -> TransactionsMachine:
    """Return the machine of partition `number` of the internal topic; reached at `endpoint` on this machine, and in a
    cluster through `node`."""
    ledger = TransactionLedger()
    return JournalMachine(
        Replay(transactions_address(number), topic, number, starter, ledger),
        encode,
        lambda recorder, now: TransactionsService(number, endpoint, node, ledger, recorder, now),
    )
