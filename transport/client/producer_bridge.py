"""The producer's half on the network thread: between the accumulator, the machines and the exchange.

Takes batches from the accumulator, passes them to the machines, performs their effects on the network, and
returns outcomes. Never called by user threads, which post to it. Made by `Producer`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from msgspec import Struct, structs

from ..addresses import TopicPartition
from ..batch import TRANSACTIONAL
from ..calls.connections import Owner
from ..calls.events import Deliver
from ..log_access.writer import append_call
from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.data import Acks
from ..protocol.errors import ErrorBody, ErrorCode
from .accumulator import Accumulator
from .errors import Conflict, DeliveryFailed, DeliveryUncertain, error_from
from .identified import Identified
from .lanes import Outcome, Transmit
from .producer_batch import PartitionQueue, ProducerBatch
from .producing import LaneFreed, LaneHeld, LaneIdle, Producing
from .unawaited import JUDGE, UnawaitedFailures

SWEEP_MS = 100
"""Maximum time that a message of an open transaction waits in its batch before it is sent."""
_SWEEP: Final = "sweep"
_END: Final = "end of the transaction"


class Posted(Enum):
    """Events of the program's side that carry nothing."""

    FLUSH_BEGUN = auto()
    """Take all open batches, however young, until FLUSH_ENDED."""
    FLUSH_ENDED = auto()
    BEGUN = auto()
    """A transaction begins while no sweep is running."""
    DROPPED = auto()
    """The transaction is aborted: all pending batches fail."""
    ABANDONED = auto()
    """The producer closes: all pending batches fail."""


class LaneReady(Struct, frozen=True, eq=False, gc=False):
    """A publisher reports that a lane has records."""

    lane: PartitionQueue


class NamedReady(Struct, frozen=True, eq=False, gc=False):
    """A publisher passes a batch of one record that has a dedup id or a delivery time."""

    batch: ProducerBatch


class Concluded(Struct, frozen=True, eq=False):
    """End and suspend the transaction: once all of it is done, the call that `ask()` returns is sent, if it returns one,
    and `owner` receives the reply."""

    owner: Owner
    ask: Callable[[], Call | None]


class ProducerBridge:
    """The producer's half on the network thread, between accumulator, machine and exchange."""

    def __init__(
        self,
        accumulator: Accumulator,
        machine: Producing,
        identified: Identified,
        delayed: Identified,
        *,
        acks: Acks,
        linger_ms: int,
        request_timeout_ms: int,
        codec: int,
        on_done: Callable[[TopicPartition, Exception | None], None] | None,
    ) -> None:
        self._accumulator = accumulator
        self._machine = machine
        self._identified = identified
        self._delayed = delayed
        self._named = {machine.name: machine for machine in (identified, delayed)}
        self._acks: Acks = acks
        self._linger_ms = linger_ms
        self._request_timeout_ms = request_timeout_ms
        self._codec = codec
        self._on_done = on_done
        self._unawaited = UnawaitedFailures()
        self._flushes = 0
        self._concluded: Concluded | None = None
        self.is_sweeping = False
        """True while transactions are open: records in batches are taken every SWEEP_MS."""
        self._lanes: dict[tuple[str, int], PartitionQueue] = {}

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects = self._on_event(event, now)
        concluded = self._concluded
        if concluded is not None and not self._accumulator.unfinished():
            self._concluded = None
            call = concluded.ask()
            if call is not None:
                effects.append(structs.replace(call, key=(_END, concluded.owner)))
        return effects

    def _on_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case LaneReady(lane=lane):
                self._lanes[lane.key] = lane
                return self._take(lane, now)
            case Answered(key=(TopicPartition(), int())):  # early: a caller may wait for it
                return self._perform(self._machine.handle(event, now), now)
            case TimerFired(key=("linger", tuple() as key)):
                return self._take(self._lanes[key], now)
            case NamedReady(batch=batch):
                lanes = self._identified if batch.schedule is None else self._delayed
                return self._perform(lanes.put(TopicPartition(batch.topic, batch.partition), batch, now), now)
            case (
                Answered(key=(first, tuple()))
                | Failed(key=(first, tuple()))
                | TimerFired(key=(first, tuple()))
            ) if first in self._named:
                return self._perform(self._named[first].handle(event, now), now)
            case Posted.FLUSH_BEGUN:
                self._flushes += 1
                return self._take_all(now)
            case Posted.FLUSH_ENDED:
                self._flushes -= 1
                return []
            case Posted.BEGUN:
                self.is_sweeping = True
                return [SetTimer(_SWEEP, now + SWEEP_MS)]
            case TimerFired(key=key) if key is _SWEEP:
                return self._sweep(now)
            case TimerFired(key=key) if key is JUDGE:
                return self._unawaited.judge(now)
            case Concluded():
                self._concluded = event
                return self._take_all(now)
            case Answered(key=(first, owner)) | Failed(key=(first, owner)) if first is _END:
                return [Deliver(owner, event)]
            case Posted.DROPPED:
                self._concluded = None
                error = ErrorBody(ErrorCode.TRANSACTION_ABORTED, "the transaction was aborted")
                effects = self._take_all(now)
                return effects + self._perform(self._machine.abandon(error), now)
            case Posted.ABANDONED:
                effects = self._take_all(now)
                error = ErrorBody(
                    ErrorCode.SHUTTING_DOWN, "the producer was closed before the acknowledgement"
                )
                failed = self._machine.abandon(error)
                for lanes in self._named.values():
                    failed += lanes.abandon(error)
                effects += self._perform(failed, now)
                self._unawaited.close()
                return effects
        return self._perform(self._machine.handle(event, now), now)

    def end(self, failed: Iterable[ProducerBatch], error: Exception, now: int) -> None:
        """Report failures at once, those of `failed` among them: no event follows."""
        for batch in failed:
            self._note(batch, error, now)
        self._unawaited.close()

    def _note(self, batch: ProducerBatch, error: Exception, now: int) -> list[Effect]:
        if self._machine.is_transactional:
            return []  # the end of the transaction raises it
        return self._unawaited.note(batch, error, now)

    def _sweep(self, now: int) -> list[Effect]:
        effects = self._take_all(now)
        # In this order, because `begin` opens before it looks: one of the two threads sees the other.
        self.is_sweeping = False
        if self._accumulator.is_open:
            self.is_sweeping = True
            effects.append(SetTimer(_SWEEP, now + SWEEP_MS))
        return effects

    def _take_all(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        for lane in self._accumulator.lanes():
            self._lanes[lane.key] = lane
            effects += self._take(lane, now)
        return effects

    def _take(self, lane: PartitionQueue, now: int) -> list[Effect]:
        if lane.open is None and not lane.sealed:
            return []  # later records are announced
        linger_ms = 0 if self._flushes else self._linger_ms
        batches, due_ms = self._accumulator.take(lane, now, linger_ms, self._machine.is_idle(lane.key))
        if batches and self._accumulator.identity is not None:
            # The first records of a transaction announce it to this thread.
            self._machine.adopt(self._accumulator.identity)
        effects: list[Effect] = []
        for batch in batches:
            effects += self._perform(self._machine.put(lane.key, batch, now), now)
        if due_ms is not None and due_ms > now:
            effects.append(SetTimer(("linger", lane.key), due_ms))
        return effects

    def _perform(self, effects: list[Effect], now: int) -> list[Effect]:
        """Perform the producer's own effects. Return those for the network."""
        left: list[Effect] = []
        work = deque(effects)
        while work:
            effect = work.popleft()
            match effect:
                case Transmit():
                    left += self._transmit(effect, now)
                case Outcome(lane=key, batch=batch, base_offset=base_offset):
                    error = _error_of(effect)
                    if self._on_done is not None:
                        self._on_done(key, error)
                    if error is not None:
                        left += self._note(batch, error, now)
                    self._accumulator.finish(batch, base_offset, error, effect.is_duplicate)
                    batch.records.forget()
                    if self._machine.fatal is not None and not self._machine.is_transactional:
                        self._accumulator.stop(error_from(self._machine.fatal))
                case LaneHeld(lane=key, error=refusal):
                    self._accumulator.hold(key, refusal)
                    if key in self._lanes:
                        left += self._take(self._lanes[key], now)
                case LaneFreed(lane=key):
                    self._accumulator.release(key)
                case LaneIdle(lane=key):
                    self._accumulator.release(key)
                    left += self._take(self._lanes[key], now)
                case _:
                    left.append(effect)
        return left

    def _transmit(self, effect: Transmit, now: int) -> list[Effect]:
        return [
            append_call(
                (effect.lane, effect.token),
                effect.lane,
                self._frame(effect),
                acks=self._acks,
                topic_id=effect.topic_id,
                timeout_ms=self._request_timeout_ms,
                has_reply=effect.identity is not None,
                receipt=effect.receipt,
            )
        ]

    def _frame(self, effect: Transmit) -> memoryview:
        """Return the encoded batch, built once for all attempts under the same numbers."""
        batch: ProducerBatch = effect.batch
        numbers = (effect.identity, effect.sequence)
        if batch.frame is not None and batch.frame[0] == numbers:
            return batch.frame[1]
        identity = effect.identity
        attributes = self._codec | (TRANSACTIONAL if self._machine.is_transactional else 0)
        if identity is None:
            frame = batch.build(attributes=attributes)
        else:
            frame = batch.build(identity.producer_id, identity.epoch, effect.sequence, attributes)
        batch.frame = (numbers, frame)
        return frame


def _error_of(outcome: Outcome) -> Exception | None:
    error = outcome.error
    if error is None:
        return None
    if error.code == ErrorCode.PRODUCER_FENCED:
        return error_from(error)
    if error.code == ErrorCode.CONFLICT:
        return Conflict.from_body(error)
    kind = DeliveryUncertain if outcome.is_uncertain else DeliveryFailed
    return kind(error.code, error.message, retriable=error.retriable)
