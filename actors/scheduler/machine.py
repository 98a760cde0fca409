"""The scheduler of delayed messages: the service that its journal's machine runs.

Owns the parts and the order of their work: requests.py (requests), moves.py (deliveries), the watch of topics, the
producer id under which messages are delivered. Called by journal/machine.py.

A batch in flight at a stop is repeated by the next incarnation, as after a crash.
"""

from typing import Never, TypeAlias, assert_never

from ...transport.addresses import TopicPartition, scheduler_address
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
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.operations import Durations
from ..journal.machine import JournalMachine
from ..journal.producer_ids import ProducerIds
from ..journal.recorder import Durable, Recorder
from ..journal.replay import Replay
from ..journal.service import Service
from ..journal.snapshot import LogMark, Snapshot
from ..journal.topics_watch import TopicsWatch
from .ledger import SchedulerLedger
from .listing import Listing, PageCall
from .moves import Moves
from .reading import MessageReading
from .records import Change, Moved, ProducerChosen, encode
from .requests import REQUESTS, Answer, SchedulerRequests
from .snapshot import encode_snapshot

SNAPSHOT_RECORDS = 10_000
"""A snapshot is taken after this many records, or after twice the pending messages if those are more."""

SchedulerMachine: TypeAlias = JournalMachine[Change, Answer, Never]

__all__ = ["REQUESTS", "SchedulerMachine", "scheduler_machine"]


class SchedulerService(Service[Change, Answer, Never]):
    def __init__(
        self,
        topic: str,
        number: int,
        schedulers: int,
        ledger: SchedulerLedger,
        recorder: Recorder[Change, Answer],
        now: int,
    ) -> None:
        ledger.pending.settle_endings(now)
        self._ledger = ledger
        address = scheduler_address(number)
        tp = TopicPartition(topic, number)
        self._moves = Moves(ledger.pending, ledger.targets, MessageReading(address, tp))
        self._moves.producer_id = ledger.producer_id
        self._listing = Listing(
            address, tp, schedulers, ledger.pending, self._moves.reason_of, self._moves.clocks
        )
        self._requests = SchedulerRequests(ledger.pending, self._moves, self._listing, recorder)
        self._watch = TopicsWatch()
        self._producer_ids = ProducerIds()
        self._is_stopping = False

    @property
    def pending_count(self) -> int:
        return len(self._ledger.pending)

    @property
    def lateness(self) -> Durations:
        return self._moves.lateness.durations()

    def begin(self, now: int) -> list[LoopEffect]:
        effects = self._watch.start()
        return effects + self._producer_ids.request() if self._ledger.producer_id is None else effects

    def handle(self, event: LoopEvent, now: int) -> list[LoopEffect]:
        match event:
            case Received():
                return self._requests.on_request(event, now)
            case WallClockStepped():
                self._moves.follow_clocks(event)
                return []
            case Answered(key=PageCall(number=number)) | Failed(key=PageCall(number=number)):
                return self._listing.handle(number, event, now)
            case Answered() | Failed() | TimerFired() | PeerUp():
                return self._on_parts_event(event, now)
            case PeerDown() | PeersAsleep() | Connected() | Disconnected():
                return []
            case StopRequested():
                raise AssertionError("the journal's machine handles a stop")
            case _:
                assert_never(event)

    def _on_parts_event(self, event: Answered | Failed | TimerFired | PeerUp, now: int) -> list[LoopEffect]:
        effects, topics = self._watch.handle(event)
        if topics is not None:
            effects += self._moves.set_topics(topics, now)
        producer_id = self._producer_ids.handle(event)
        if producer_id is not None:
            # Messages are delivered under it: it is chosen once in the life of the partition.
            self._requests.choose(producer_id)
        return effects + self._moves.handle(event, now)

    def on_durable(self, durable: Durable[Change, Answer], now: int) -> list[LoopEffect]:
        effects = self._requests.on_durable(durable, now)
        for change in durable.changes:
            match change:
                case Moved(tp=tp, target=target):
                    if target is None:
                        self._ledger.targets.pop(tp, None)
                    else:
                        self._ledger.targets[tp] = target
                    effects += self._moves.on_durable(change, now)
                case ProducerChosen(producer_id=producer_id):
                    self._ledger.producer_id = self._moves.producer_id = producer_id
        return effects

    def advance(self, now: int) -> list[LoopEffect]:
        return [] if self._is_stopping else self._moves.advance(now)

    def take(self) -> list[Change]:
        # Cancellations precede moves, which were decided with them in mind.
        return [*self._requests.take(), *self._moves.take()]

    def close(self, now: int) -> list[LoopEffect]:
        self._is_stopping = True
        return []

    @property
    def snapshot_records(self) -> int:
        return max(SNAPSHOT_RECORDS, 2 * len(self._ledger.pending))

    def snapshot(self, mark: LogMark, now: int) -> bytes | None:
        return encode_snapshot(self._ledger, mark, now)


def scheduler_machine(
    topic: str,
    number: int,
    schedulers: int,
    *,
    starter: str,
    elapsed_ms: int,
    snapshot: Snapshot[SchedulerLedger] | None = None,
) -> SchedulerMachine:
    """Return the machine of partition `number` of the internal topic, one of `schedulers`.

    `elapsed_ms`: the time of the clock of delays.
    """
    ledger = snapshot.state if snapshot else SchedulerLedger()
    ledger.elapsed_ms = elapsed_ms
    return JournalMachine(
        Replay(scheduler_address(number), topic, number, starter, ledger, snapshot),
        encode,
        lambda recorder, now: SchedulerService(topic, number, schedulers, ledger, recorder, now),
    )
