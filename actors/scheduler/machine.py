"""The scheduler's machine: it replays its messages, serves them, delivers due ones, and stops.

Owns the flush and the snapshot. The work is done by its parts: the phases and the replay with ledger.py, serving.py
(requests), moves.py (deliveries), the watch of topics, the recorder. Run by process.py, and in tests by a simulator.

A batch in flight at a stop is repeated by the next incarnation, as after a crash.
"""

from ...transport.addresses import partition_address, scheduler_address
from ...transport.machine import Answered, Effect, Event, Failed, Received, Stop, WallClockStepped
from ..journal.effects import BecomeReady, JournalOpened, SaveSnapshot
from ..journal.identity import Start
from ..journal.mark import LogMark
from ..journal.phases import Disposition, Phases
from ..journal.producer_ids import ProducerIds
from ..journal.recorder import Recorder
from ..journal.replay import Replay
from ..journal.topics_watch import TopicsWatch
from .ledger import SchedulerLedger
from .listing import LIST, Listing
from .moves import Moves
from .reading import Reading
from .records import Change, Moved, ProducerChosen, encode, record_count
from .serving import REQUESTS, Answer, SchedulerRequests
from .snapshot import Snapshot, encode_snapshot

SNAPSHOT_RECORDS = 10_000
"""A snapshot is taken after this many records, or after twice the pending messages if those are more."""

__all__ = ["REQUESTS", "SchedulerMachine"]


class SchedulerMachine:
    def __init__(
        self,
        topic: str,
        number: int,
        schedulers: int,
        *,
        starter: str,
        snapshot: Snapshot | None = None,
        slept_ms: int = 0,
    ) -> None:
        """Create the machine of partition `number` of the internal topic, one of `schedulers`.

        `slept_ms`: the lead of the clock of delays over `now` at the start.
        """
        self._slept_ms = slept_ms
        self._topic = topic
        self._number = number
        self._schedulers = schedulers
        self._address = scheduler_address(number)
        self._ledger = snapshot.ledger if snapshot else SchedulerLedger()
        self._replay = Replay(
            self._address,
            topic,
            number,
            starter,
            self._ledger,
            snapshot.mark if snapshot else None,
            snapshot.taken_at_ms if snapshot else None,
        )
        self._phases = Phases(
            self._replay,
            while_replaying="the scheduled messages are being replayed",
            while_stopping="the scheduler is stopping",
        )
        self._watch = TopicsWatch()
        self._producer_ids = ProducerIds()
        self._recorder: Recorder[Change, Answer]
        self._moves: Moves
        self._listing: Listing
        self._serving: SchedulerRequests
        self._mark: LogMark
        self._start: Start
        self._since_snapshot = 0

    def handle(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, JournalOpened):
            self._ledger.elapsed_ms = now + self._slept_ms
        effects, left = self._phases.handle(event, now)
        if left is Disposition.NOTHING:
            return effects
        if left is Disposition.BEGIN:
            return effects + self._begin_serving(now)
        if left is Disposition.EVENT:
            effects += self._while_serving(event, now)
        if not self._phases.is_stopping:
            effects += self._moves.advance(now)
            effects += self._flush(now)
        elif self._recorder.is_idle:
            effects += [*self._snapshot(now, least=1), Stop("stopped")]
        return effects

    def _begin_serving(self, now: int) -> list[Effect]:
        replay, ledger = self._replay, self._ledger
        assert replay.mark is not None, "the start record has been read"
        ledger.pending.settle_endings(now)
        self._mark, self._start = replay.mark, ledger.start
        own_partition = partition_address(self._topic, self._number)
        self._recorder = Recorder(replay.appender, replay.identity, next_sequence=1, encode=encode)
        reading = Reading(self._address, self._topic, self._number, own_partition)
        self._moves = Moves(ledger.pending, ledger.targets, reading)
        self._moves.producer_id = ledger.producer_id
        self._listing = Listing(
            self._address,
            self._topic,
            self._number,
            self._schedulers,
            ledger.pending,
            self._moves.reason_of,
            self._moves.clocks,
        )
        self._serving = SchedulerRequests(ledger.pending, self._moves, self._listing, self._recorder)
        self._since_snapshot = replay.records_read
        least = 1 if replay.is_snapshot_refused else None
        effects: list[Effect] = [BecomeReady(), *self._watch.start(), *self._snapshot(now, least)]
        if ledger.producer_id is None:
            effects += self._producer_ids.ask()
        return effects

    def _while_serving(self, event: Event, now: int) -> list[Effect]:
        if isinstance(event, WallClockStepped):
            self._moves.follow_clocks(event)
            return []
        if isinstance(event, Received):
            return self._serving.on_request(event, now)
        if isinstance(event, Answered | Failed) and isinstance(event.key, tuple) and event.key[0] == LIST:
            return self._listing.handle(event, now)
        effects, topics = self._watch.handle(event, now)
        if topics is not None:
            effects += self._moves.set_topics(topics, now)
        more, producer_id = self._producer_ids.handle(event, now)
        effects += more
        if producer_id is not None:
            # Messages are delivered under it: it is chosen once in the life of the partition.
            self._serving.choose(producer_id)
        more, durable = self._recorder.handle(event, now)
        effects += more
        if durable is not None:
            self._mark = durable.mark
            effects += self._serving.on_durable(durable, now)
            for change in durable.changes:
                effects += self._on_durable(change, now)
            effects += self._snapshot(now)
        return effects + self._moves.handle(event, now)

    def _on_durable(self, change: Change, now: int) -> list[Effect]:
        self._since_snapshot += record_count(change)
        match change:
            case Moved(tp=tp, target=target):
                if target is None:
                    self._ledger.targets.pop(tp, None)
                else:
                    self._ledger.targets[tp] = target
                return self._moves.on_durable(change, now)
            case ProducerChosen(producer_id=producer_id):
                self._ledger.producer_id = self._moves.producer_id = producer_id
        return []

    def _flush(self, now: int) -> list[Effect]:
        """Flush if no append is outstanding; later decisions wait for the next append."""
        if not self._recorder.is_idle:
            return []
        # Cancellations precede moves, which were decided with them in mind.
        changes = [*self._serving.take(), *self._moves.take()]
        return self._recorder.flush(changes, now) if changes else []

    def _snapshot(self, now: int, least: int | None = None) -> list[Effect]:
        pending = self._ledger.pending
        if self._since_snapshot < (least or max(SNAPSHOT_RECORDS, 2 * len(pending))):
            return []
        self._since_snapshot = 0
        targets = [(*tp, target) for tp, target in self._ledger.targets.items()]
        data = encode_snapshot(self._start, self._ledger.producer_id, targets, pending, self._mark, now)
        return [SaveSnapshot(data)]
