"""The producer that programs hold: the accumulator's public face, and its half on the network thread.

The hot path is inherited from the accumulator as it stands. This file owns the wiring: batches from the accumulator to
the machine, the machine's effects to the network, outcomes back. Called by `Client.producer`.
"""

import random
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Final, Self

from msgspec import structs

from ..addresses import Place, is_internal
from ..batch import CODEC_NONE, CODEC_ZSTD, TRANSACTIONAL, CodecUnavailable, Headers, build, require
from ..deduplication import identified_batch
from ..protocol.data import Acks, Produce, ProduceReply, PublishRecord
from ..protocol.errors import ErrorBody, ErrorCode, PlanariaError, ProtocolError
from .accumulator import BATCH_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES, Accumulator, Lingers
from .asking import Answered, Ask, Effect, Event, Failed, Owner, SetTimer, TimerFired, partition_address
from .delayed import Schedule, delayed_dialog
from .delivery import Lane, ProducerBatch
from .errors import Closed, DeliveryFailed, DeliveryUncertain, TimedOut, error_from
from .exchange_events import Deliver, Withdrawn
from .identified import Identified, identified_dialog
from .lanes import Identity
from .network import Network
from .options import InvalidOption, ProducerOptions
from .producing import BatchTaken, LaneFreed, LaneHeld, LaneIdle, Outcome, Producing, Transmit
from .retry import RetryPolicy

_CODECS = {"none": CODEC_NONE, "zstd": CODEC_ZSTD}
SWEEP_MS = 100
"""How long a message in a transaction may lie there before it goes out, if the transaction stays open."""
_SWEEP: Final = "sweep"
_END: Final = "end of the transaction"
INTERRUPTED_FLUSH_S = 5.0
"""How long a `with` block that ends by an exception waits for what was published in it."""


class LaneReady:
    """A publisher says that a lane has something to take."""

    __slots__ = ("lane",)

    def __init__(self, lane: Lane) -> None:
        self.lane = lane


class NamedReady:
    """A publisher hands over a batch of one record that has a name: an identity, or a time of delivery."""

    __slots__ = ("batch",)

    def __init__(self, batch: ProducerBatch) -> None:
        self.batch = batch


class FlushRequested:
    """Take everything that is open, however young; ended by FlushEnded."""


class FlushEnded:
    """A flush is over."""


class Begun:
    """A transaction begins, and nobody sweeps."""


class Dropped:
    """The transaction is aborted: what is not done by now fails."""


class Concluded:
    """The transaction is to be ended, and suspended: once all of it is done `ask()` is asked, and `owner` hears of it."""

    def __init__(self, owner: Owner, ask: Callable[[], Ask]) -> None:
        self.owner = owner
        self.ask = ask


class Abandoned:
    """The producer closes; what is not done by now fails."""


class Pump:
    """The producer's half on the network thread; between accumulator, machine and exchange."""

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
        self._flushes = 0
        self._concluded: Concluded | None = None
        self.is_sweeping = False
        """While transactions are open, what lies in batches is taken every SWEEP_MS."""
        self._lanes: dict[Place, Lane] = {}

    def handle(self, event: Event, now: int) -> list[Effect]:
        effects = self._on_event(event, now)
        concluded = self._concluded
        if concluded is not None and not self._accumulator.unfinished():
            self._concluded = None
            effects.append(structs.replace(concluded.ask(), key=(_END, concluded.owner)))
        return effects

    def _on_event(self, event: Event, now: int) -> list[Effect]:
        match event:
            case LaneReady(lane=lane):
                self._lanes[lane.key] = lane
                return self._take(lane, now)
            case TimerFired(key=("linger", tuple() as key)):
                return self._take(self._lanes[key], now)
            case NamedReady(batch=batch):
                lanes = self._identified if batch.schedule is None else self._delayed
                return self._perform(lanes.put((batch.topic, batch.partition), batch, now), now)
            case (
                Answered(key=(first, tuple()))
                | Failed(key=(first, tuple()))
                | TimerFired(key=(first, tuple()))
            ) if first in self._named:
                return self._perform(self._named[first].handle(event, now), now)
            case FlushRequested():
                self._flushes += 1
                return self._take_all(now)
            case FlushEnded():
                self._flushes -= 1
                return []
            case Begun():
                self.is_sweeping = True
                return [SetTimer(_SWEEP, now + SWEEP_MS)]
            case TimerFired(key=key) if key is _SWEEP:
                return self._sweep(now)
            case Concluded():
                self._concluded = event
                return self._take_all(now)
            case Answered(key=(first, owner)) | Failed(key=(first, owner)) if first is _END:
                return [Deliver(owner, event)]
            case Dropped():
                self._concluded = None
                error = ErrorBody(ErrorCode.TRANSACTION_ABORTED, "the transaction was aborted")
                effects = self._take_all(now)
                return effects + self._perform(self._machine.abandon(error), now)
            case Abandoned():
                effects = self._take_all(now)
                error = ErrorBody(
                    ErrorCode.SHUTTING_DOWN, "the producer was closed before the acknowledgement"
                )
                failed = self._machine.abandon(error)
                for lanes in self._named.values():
                    failed += lanes.abandon(error)
                return effects + self._perform(failed, now)
        return self._perform(self._machine.handle(event, now), now)

    def _sweep(self, now: int) -> list[Effect]:
        effects = self._take_all(now)
        # In this order, as `begin` opens first and looks then: one of the two sees the other.
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

    def _take(self, lane: Lane, now: int) -> list[Effect]:
        if lane.open is None and not lane.sealed:
            return []  # what comes next is announced
        linger_ms = 0 if self._flushes else self._linger_ms
        batches, due_ms = self._accumulator.take(lane, now, linger_ms, self._machine.is_idle(lane.key))
        if batches and self._accumulator.identity is not None:
            # The first of a transaction are how this thread hears of it.
            self._machine.adopt(self._accumulator.identity)
        effects: list[Effect] = []
        for batch in batches:
            effects += self._perform(self._machine.handle(BatchTaken(lane.key, batch), now), now)
        if due_ms is not None and due_ms > now:
            effects.append(SetTimer(("linger", lane.key), due_ms))
        return effects

    def _perform(self, effects: list[Effect], now: int) -> list[Effect]:
        """Perform the producer's own effects; return those of the network."""
        left: list[Effect] = []
        work = deque(effects)
        while work:
            effect = work.popleft()
            match effect:
                case Transmit():
                    left += self._transmit(effect, now)
                case Outcome(batch=batch, base_offset=base_offset):
                    self._accumulator.finish(batch, base_offset, _error_of(effect), effect.is_duplicate)
                    if self._machine.fatal is not None and not self._machine.is_transactional:
                        self._accumulator.stop(error_from(self._machine.fatal))
                case LaneHeld(lane=key, error=error):
                    self._accumulator.hold(key, error)
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
        topic, partition = effect.lane
        return [
            Ask(
                (effect.lane, effect.token),
                partition_address(topic, partition),
                Produce(topic=topic, partition=partition, acks=self._acks),
                ProduceReply,
                (self._frame(effect),),
                self._request_timeout_ms,
                is_retried=False,
                has_reply=effect.identity is not None,
                receipt=effect.receipt,
            )
        ]

    def _frame(self, effect: Transmit) -> bytes:
        """The batch as it goes out; built once for all attempts under the same numbers."""
        batch: ProducerBatch = effect.batch
        numbers = (effect.identity, effect.sequence)
        if batch.frame is not None and batch.frame[0] == numbers:
            return batch.frame[1]
        identity = effect.identity
        frame = build(
            batch.records,
            first_timestamp_ms=batch.first_ms,
            max_timestamp_ms=batch.max_timestamp_ms(),
            producer_id=identity.producer_id if identity else -1,
            producer_epoch=identity.epoch if identity else -1,
            base_sequence=effect.sequence,
            attributes=self._codec | (TRANSACTIONAL if self._machine.is_transactional else 0),
        )
        batch.frame = (numbers, frame)
        return frame


def _lingers(options: ProducerOptions) -> Lingers:
    if options.linger_ms == 0:
        return "not at all"
    return "for a time" if options.transactional_id is None else "to the end"


def _identified_frame(batch: ProducerBatch) -> bytes:
    entry = batch.records[0]
    return identified_batch((entry.key, entry.value, 0, entry.headers), batch.first_ms)


def _delayed_record(batch: ProducerBatch) -> PublishRecord:
    entry = batch.records[0]
    timestamp_ms = batch.first_ms if batch.has_own_times else None
    return PublishRecord(key=entry.key, value=entry.value, headers=entry.headers, timestamp_ms=timestamp_ms)


def _error_of(outcome: Outcome) -> Exception | None:
    error = outcome.error
    if error is None:
        return None
    if error.code == ErrorCode.PRODUCER_FENCED:
        return error_from(error)
    kind = DeliveryUncertain if outcome.is_uncertain else DeliveryFailed
    return kind(error.code, error.message, retriable=error.retriable)


class Producer(Accumulator):
    """Publishes messages, each once and in order within its partition; safe to use from several threads.

    A failed delivery is reported by its Delivery and never sent again by itself: DeliveryFailed when the message is
    surely not in the log, DeliveryUncertain when nobody can know.
    """

    def __init__(self, network: Network, options: ProducerOptions | None = None) -> None:
        options = options or ProducerOptions()
        try:
            require(_CODECS[options.compression])
        except CodecUnavailable as error:
            raise InvalidOption(f"compression: {error}") from error
        super().__init__(
            batch_bytes=options.batch_bytes,
            batch_records=options.batch_records,
            buffer_bytes=options.buffer_bytes,
            max_block_ms=options.max_block_ms,
            partitions_of=self._count_partitions,
            largest_batch_of=self._largest_batch,
            place=self._next_partition,
            notify=self._announce,
            notify_identified=self._announce_identified,
            now_ms=network.now_ms,
            is_patient=options.on_backpressure == "block",
            lingers=_lingers(options),
            let_pass=network.let_pass,
        )
        self._network = network
        self._request_timeout_ms = options.request_timeout_ms
        self._turns: dict[str, int] = {}
        self._is_closed = False
        is_patient = options.on_backpressure == "block"
        machine = Producing(
            acks=options.acks,
            delivery_timeout_ms=options.delivery_timeout_ms,
            request_timeout_ms=options.request_timeout_ms,
            retry=RetryPolicy(),
            jitter=random.random,
            is_patient=is_patient,
            is_transactional=options.transactional_id is not None,
            topic_id_of=network.directory.topic_id,
        )
        identified, delayed = (
            Identified(
                dialog,
                delivery_timeout_ms=options.delivery_timeout_ms,
                request_timeout_ms=options.request_timeout_ms,
                is_patient=is_patient,
            )
            for dialog in (
                identified_dialog(options.acks, _identified_frame),
                delayed_dialog(_delayed_record),
            )
        )
        self._acks = options.acks
        self._is_transactional = options.transactional_id is not None
        self._pump = Pump(
            self,
            machine,
            identified,
            delayed,
            acks=options.acks,
            linger_ms=options.linger_ms,
            request_timeout_ms=options.request_timeout_ms,
            codec=_CODECS[options.compression],
        )

        network.tell_of_failure(self)

    def on_network_failure(self, error: PlanariaError) -> None:
        """Nothing is taken any more, and of what is not acknowledged nobody will hear."""
        self.stop(error)
        for batch in self.unfinished():
            self.finish(batch, -1, DeliveryUncertain(ErrorCode.SHUTTING_DOWN, str(error)))

    def _largest_batch(self, topic: str) -> int:
        return self._network.directory.largest_batch_bytes(topic) or self._batch_bytes

    def _count_partitions(self, topic: str) -> int:
        try:
            return self._network.partitions_of(topic, self._request_timeout_ms)
        except TimedOut as error:
            message = f"never sent, the partitions of {topic!r} are not known: {error.message}"
            raise DeliveryFailed(error.code, message, retriable=True) from error

    def _next_partition(self, topic: str) -> int:
        """Round robin among the partitions that are online and take messages, among all when none is."""
        partitions = self._count_partitions(topic)
        if partitions == 1:
            return 0
        turn = self._turns.get(topic)
        if turn is None:
            turn = random.randrange(partitions)
        self._turns[topic] = turn + 1
        now = self._network.now_ms()
        for step in range(partitions):
            chosen = (turn + step) % partitions
            if self._network.directory.is_online(topic, chosen, now) and not self.is_held((topic, chosen)):
                return chosen
        return turn % partitions

    def _announce(self, lane: Lane) -> None:
        self._network.post(self._pump, LaneReady(lane))

    def check(self, topic: str, partition: int | None, size_bytes: int) -> None:
        """Raises what a message with contents of that size would be refused for, as far as can be told beforehand."""
        if is_internal(topic):
            raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {topic!r} is internal")
        self._check_partition(topic, partition)
        most_bytes = self._largest_batch(topic) - BATCH_OVERHEAD_BYTES - RECORD_OVERHEAD_BYTES
        if size_bytes > most_bytes:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"{size_bytes} bytes; topic {topic!r} takes messages of {most_bytes}",
            )

    def begin(self, identity: Identity) -> None:
        """Publish under this identity from now on; what came before is done."""
        self.reopen(identity)
        if not self._pump.is_sweeping:
            self._network.post(self._pump, Begun())

    def conclude(self, ask: Callable[[], Ask]) -> Answered:
        """Wait until everything published is done, and for the answer to what is asked then: in the network's own thread.

        Raises as the asking does. Interrupted, it leaves nothing that is not done.
        """
        try:
            return self._network.outcome(self._pump, lambda waiter: Concluded(waiter, ask))
        except PlanariaError:
            raise
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Fail what is not done, and wait until it has failed."""
        self._network.post(self._pump, Dropped())
        for batch in self.unfinished():
            batch.wait(None)

    def _identify(self, headers: Headers | None, dedup_id: str) -> Headers:
        if self._is_transactional:
            raise InvalidOption("dedup_id: not within a transaction, which is written once as it is")
        if self._acks == 0:
            raise InvalidOption("dedup_id: needs acks 1 or 'all'; with 0 no repeat would ever be answered")
        return super()._identify(headers, dedup_id)

    def _schedule(
        self,
        deliver_at: datetime | int | None,
        delay: timedelta | float | None,
        scheduled_id: str | None,
        dedup_id: str | None,
    ) -> Schedule:
        if self._is_transactional:
            raise InvalidOption("delay: not within a transaction; publish it afterwards")
        if self._acks == 0:
            raise InvalidOption("delay: needs acks 1 or 'all'; with 0 nobody would know what is held back")
        return super()._schedule(deliver_at, delay, scheduled_id, dedup_id)

    def _announce_identified(self, batch: ProducerBatch) -> None:
        self._network.post(self._pump, NamedReady(batch))

    def flush(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds until everything published so far is acknowledged or failed.

        Failures are for the Deliveries to tell. Raises TimedOut; the deliveries go on.
        """
        deadline = None if timeout is None else monotonic() + timeout
        self._network.post(self._pump, FlushRequested())
        try:
            for batch in self.unfinished():
                left = None if deadline is None else max(0.0, deadline - monotonic())
                if not batch.wait(left):
                    raise TimedOut(f"{len(self.unfinished())} batches not acknowledged within {timeout} s")
        finally:
            self._network.post(self._pump, FlushEnded())

    def close(self, timeout: float | None = None) -> None:
        """Flush, then refuse further messages. After `timeout` seconds what is left fails. Raises TimedOut then."""
        if self._is_closed:
            return
        self._is_closed = True
        self.stop(Closed("the producer is closed"))
        try:
            self.flush(timeout)
        finally:
            self._network.post(self._pump, Abandoned())
            self._network.post(self._network.owner, Withdrawn(self._pump))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close(INTERRUPTED_FLUSH_S)
        except TimedOut:
            pass  # the exception that ends the block is the one to report; the deliveries say the rest
