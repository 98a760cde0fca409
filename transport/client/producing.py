"""The producer's machine: lanes, their backoff, the producer id, and delivery deadlines. Pure.

Called by the producer's bridge with batches taken from the accumulator. Never sees a record. Exactly one
Outcome follows every `put`; a Delivery waits for it.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count

from msgspec import Struct

from ..addresses import GATEWAY, TopicPartition
from ..calls.retry import Jitter, RetryPolicy
from ..log_access.writer import result_of
from ..machine import Answered, Call, Effect, Event, Failed, SetTimer, TimerFired
from ..protocol.data import Acks, InitProducer, InitProducerReply, ProducedBatch
from ..protocol.errors import ErrorBody, ErrorCode
from .lanes import MOVED_MS, Batch, Outcome, PartitionSequence, ProducerIdentity, Transmit

_INIT = "init_producer"
_EXPIRY = "expiry"


class LaneIdle(Struct, frozen=True):
    """The lane has nothing in flight: a batch that is not full may come."""

    lane: TopicPartition


class LaneHeld(Struct, frozen=True):
    """The partition refuses the lane's batches for backpressure. Repeated with every refusal."""

    lane: TopicPartition
    error: ErrorBody


class LaneFreed(Struct, frozen=True):
    """The partition accepts the lane's batches again."""

    lane: TopicPartition


class Producing:
    """Delivers batches, each once and in order within its partition."""

    def __init__(
        self,
        *,
        acks: Acks,
        delivery_timeout_ms: int,
        request_timeout_ms: int,
        retry: RetryPolicy,
        jitter: Jitter,
        is_patient: bool = True,
        is_transactional: bool = False,
        topic_id_of: Callable[[str], str | None],
    ) -> None:
        self.is_transactional = is_transactional
        """True if `adopt` brings the identity, and a batch that cannot be placed fails all batches under it."""
        self.fatal: ErrorBody | None = None
        self._acks = acks
        self._delivery_timeout_ms = delivery_timeout_ms
        self._request_timeout_ms = request_timeout_ms
        self._retry = retry
        self._jitter = jitter
        self._is_patient = is_patient
        """True if the time of refusal for backpressure does not count against the delivery timeout."""
        self._topic_id_of = topic_id_of
        self._lanes: dict[TopicPartition, PartitionSequence] = {}
        self._tokens: Iterator[int] = count(1)
        self._identity: ProducerIdentity | None = None
        self._is_asking = False
        self._init_failures = 0
        self._expiry_at: int | None = None

    def is_idle(self, key: TopicPartition) -> bool:
        """Return True if a batch that is not full should come now."""
        lane = self._lanes.get(key)
        return lane is None or lane.is_idle or self.fatal is not None

    def adopt(self, identity: ProducerIdentity) -> None:
        """Begin again under another identity, after all pending batches had their outcome. The same object
        changes nothing.

        A transaction in which nothing was written leaves its sequence numbers to the next, which then adopts
        the same object.
        """
        if identity is self._identity:
            return
        assert not self.pending, "the transaction before is not over"
        self._identity = identity
        self._lanes.clear()
        self.fatal = None

    @property
    def pending(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def put(self, key: TopicPartition, batch: Batch, now: int) -> list[Effect]:
        """Deliver a sealed batch. Exactly one Outcome follows."""
        if self.fatal is not None:
            return [Outcome(key, batch, error=self.fatal)]
        if self._acks == 0:
            return [Transmit(key, batch), Outcome(key, batch)]
        lane = self._lanes.get(key)
        if lane is None:
            # The records of a transaction in a deleted topic are lost: it must fail and not continue in the
            # new topic.
            topic_id = None if self.is_transactional else self._topic_id_of(key[0])
            lane = self._lanes[key] = PartitionSequence(key, self._tokens, topic_id)
            lane.identity = self._identity
        lane.put(batch)
        effects = self._transmit(lane, lane.transmit())
        if lane.needs_identity:
            effects += self._ask_identity()
        return effects + self._set_expiry(lane)

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Answered(key=(lane_key, token)) | Failed(key=(lane_key, token)):
                lane = self._lanes.get(lane_key)
                # None: of a transaction that has ended.
                return [] if lane is None else self._on_result(lane, token, result_of(event), now)
            case Answered(key=key, reply=InitProducerReply() as reply) if key == _INIT:
                return self._on_identity(ProducerIdentity(reply.producer_id, reply.producer_epoch))
            case Failed(key=key, error=error) if key == _INIT:
                return self._on_no_identity(error, now)
            case TimerFired(key=key) if key == _EXPIRY:
                return self._on_expiry(now)
            case TimerFired(key=key) if key == _INIT:
                return self._ask_identity()
            case TimerFired(key=lane_key):
                lane = self._lanes.get(lane_key)
                return [] if lane is None else self._transmit(lane, lane.resume())
        raise AssertionError(f"no such event: {event!r}")

    def _transmit(self, lane: PartitionSequence, sent: Iterable[Transmit]) -> list[Effect]:
        effects: list[Effect] = [*sent]
        if lane.is_idle:
            effects.append(LaneIdle(lane.key))
        return effects

    # The producer id.

    def _ask_identity(self) -> list[Effect]:
        if self._is_asking:
            return []
        self._is_asking = True
        return [
            Call(
                _INIT,
                GATEWAY,
                InitProducer(),
                InitProducerReply,
                timeout_ms=self._request_timeout_ms,
                is_retried=True,
            )
        ]

    def _on_identity(self, identity: ProducerIdentity) -> list[Effect]:
        self._is_asking = False
        self._init_failures = 0
        self._identity = identity
        effects: list[Effect] = []
        for lane in self._lanes.values():
            if lane.identity is None:
                lane.identity = identity
                effects += self._transmit(lane, lane.transmit())
        return effects

    def _on_no_identity(self, error: ErrorBody, now: int) -> list[Effect]:
        self._is_asking = False
        if not error.retriable:
            return self.abandon(error)
        self._init_failures += 1
        return [SetTimer(_INIT, now + self._retry.delay_ms(self._init_failures, self._jitter))]

    # Replies.

    def _on_result(
        self, lane: PartitionSequence, token: int, result: ProducedBatch, now: int
    ) -> list[Effect]:
        if result.error is not None:
            return self._on_refusal(lane, token, result.error, now)
        batch = lane.acknowledge(token)
        if batch is None:
            return []
        freed: list[Effect] = [LaneFreed(lane.key)] if lane.is_held else []
        lane.is_held = False
        if lane.is_idle:
            return [*freed, Outcome(lane.key, batch, result.base_offset), LaneIdle(lane.key)]
        return [
            *freed,
            Outcome(lane.key, batch, result.base_offset),
            *self._transmit(lane, lane.transmit()),
            *self._drain(lane, now),
        ]

    def _on_refusal(self, lane: PartitionSequence, token: int, error: ErrorBody, now: int) -> list[Effect]:
        if lane.is_in_flight(token) and (
            error.code == ErrorCode.PRODUCER_FENCED or (self.is_transactional and lane.is_lost(token, error))
        ):
            return self.abandon(error)
        effects: list[Effect] = []
        if error.code == ErrorCode.BACKPRESSURE and lane.is_in_flight(token):
            lane.is_held = True
            lane.stopped_clock_ms = now if self._is_patient else 0
            effects.append(LaneHeld(lane.key, error))
        given_up = lane.refuse(token, error)
        if given_up is not None:
            effects.append(given_up)
        return effects + self._drain(lane, now)

    def _drain(self, lane: PartitionSequence, now: int) -> list[Effect]:
        if not lane.is_drained:
            return []
        wait_ms = lane.held_ms
        if wait_ms is None:
            wait_ms = self._retry.delay_ms(lane.failures + 1, self._jitter)
            wait_ms = min(wait_ms, MOVED_MS) if lane.is_moved else wait_ms
        retry_at = now + wait_ms
        effects: list[Effect] = [*lane.drain(retry_at)]
        if lane.retry_at is not None:
            effects.append(SetTimer(lane.key, retry_at))
        elif lane.is_idle:
            effects.append(LaneIdle(lane.key))
        if lane.identity is None:
            effects += self._ask_identity()
        return effects

    # Deadlines.

    def _set_expiry(self, lane: PartitionSequence) -> list[Effect]:
        oldest_ms = lane.oldest_ms()
        if self._expiry_at is not None or oldest_ms is None:
            return []
        self._expiry_at = oldest_ms + self._delivery_timeout_ms + 1
        return [SetTimer(_EXPIRY, self._expiry_at)]

    def _on_expiry(self, now: int) -> list[Effect]:
        self._expiry_at = None
        effects: list[Effect] = []
        for lane in self._lanes.values():
            effects += lane.expire(now - self._delivery_timeout_ms)
            effects += self._transmit(lane, lane.transmit())
            effects += self._drain(lane, now)
        ages = [oldest for lane in self._lanes.values() if (oldest := lane.oldest_ms()) is not None]
        if ages:
            self._expiry_at = max(now + 1, min(ages) + self._delivery_timeout_ms + 1)
            effects.append(SetTimer(_EXPIRY, self._expiry_at))
        return effects

    def abandon(self, error: ErrorBody) -> list[Effect]:
        """Fail everything that is not done, and all that follows: the producer is closed, or can never write again."""
        self.fatal = error
        return [outcome for lane in self._lanes.values() for outcome in lane.give_up(error)]
