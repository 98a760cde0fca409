"""Records with an id: sent by lane in order, several in a request, one request at a time. Pure.

Lanes are partitions. There are two kinds of requests: `produce` for records with a dedup id, and `publish` for delayed
ones, which have an id until they are due. A record that expects an offset or a version of its key has a dedup id, too.
The id makes retries harmless, so a request is retried until it has a reply or the time of its oldest record is over.
Each record that was refused with a retriable error is retried likewise. A partition that refuses for backpressure is
left alone for the time it names, and then probed with a single record. No producer id is involved: the partition may
recognise one batch of a request and write the next, which sequence numbers could not distinguish from a gap. Called by
the producer's half on the network thread.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import UNSET, Struct

from ..addresses import GATEWAY, Address, TopicPartition, partition_address
from ..deduplication import identified_batch
from ..machine import Answered, Call, Effect, Event, Failed, Payload, Receipt, SetTimer, TimerFired
from ..protocol.data import (
    Acks,
    Produce,
    ProducedBatch,
    ProduceReply,
    Publish,
    PublishRecord,
    PublishReply,
)
from ..protocol.errors import ErrorBody, ErrorCode
from ..protocol.message import Reply, Request
from .lanes import HELD_MS, NOT_APPENDED, Outcome
from .producing import LaneFreed, LaneHeld

REQUEST_BATCHES = 128
REQUEST_BYTES = 4 * 1024 * 1024
AGAIN_MS = 20
"""Pause of a lane before it retries records that were refused individually."""
ANY_PARTITION = -1
"""Stands for the partition of a delayed message: decided when the message is due."""


class Schedule(Struct, frozen=True):
    """The delivery time of a message, and its id until then. One of the times is None."""

    scheduled_id: str
    deliver_at_ms: int | None
    delay_ms: int | None


class Identified(ABC):
    """Delivers batches of one record (ProducerBatch), in order within a lane. A subclass makes the requests."""

    name: ClassVar[str]
    """The first part of the machine's keys."""
    reply_type: ClassVar[type[Reply]]

    def __init__(self, delivery_timeout_ms: int, request_timeout_ms: int, is_patient: bool = True) -> None:
        self._delivery_timeout_ms = delivery_timeout_ms
        self._request_timeout_ms = request_timeout_ms
        self._is_patient = is_patient
        """True if the time of refusal for backpressure does not count against the delivery timeout."""
        self._held: set[TopicPartition] = set()
        """Partitions that refuse, from the refusal to the next success."""
        self._paused: set[TopicPartition] = set()
        """Refusing partitions whose pause is not over."""
        self._stopped_clock_ms: dict[TopicPartition, int] = {}
        self._waiting: dict[TopicPartition, deque[Any]] = {}
        self._in_flight: dict[TopicPartition, list[Any]] = {}
        self._receipts: dict[TopicPartition, Receipt] = {}
        """Receipts of the requests in flight."""
        self._doubtful: set[int] = set()
        """Batches, by `id`, of requests that were sent and had no reply."""

    @abstractmethod
    def _request(
        self, tp: TopicPartition, batches: Sequence[Any], now: int
    ) -> tuple[Address, Request, Payload]:
        """Return the request for some batches of a lane, with its receiver and its payload."""

    @abstractmethod
    def _results(self, reply: Any) -> Sequence[ProducedBatch]:
        """Return the result of each batch."""

    def put(self, key: TopicPartition, batch: Any, now: int) -> list[Effect]:
        """Queue one more record of a partition."""
        self._waiting.setdefault(key, deque()).append(batch)
        return self._send(key, now)

    def handle(self, event: Event, now: int) -> list[Effect]:
        assert isinstance(event, Answered | Failed | TimerFired)
        key: TopicPartition = event.key[1]
        if isinstance(event, TimerFired):
            self._paused.discard(key)
            return self._repeat(key, now) if key in self._in_flight else self._send(key, now)
        batches = self._in_flight.pop(key, [])
        if isinstance(event, Failed):
            if not self._receipts[key].is_unsent and event.error.code not in NOT_APPENDED:
                self._doubtful.update(map(id, batches))
            if batches and event.error.code == ErrorCode.BACKPRESSURE:
                return self._hold(key, batches, event.error, now)
            if batches and event.error.retriable and self._left_ms(key, batches[0], now) > 0:
                return [self._ask(key, batches, now)]
            effects = self._failures(key, batches, event.error)
        else:
            effects = [LaneFreed(key)] if key in self._held else []
            self._held.discard(key)
            effects += self._on_results(key, batches, event.reply, now)
        return effects + self._send(key, now)

    def _hold(self, key: TopicPartition, batches: list[Any], error: ErrorBody, now: int) -> list[Effect]:
        """Put the refused batches, none of which was written, before all others, and pause."""
        self._waiting.setdefault(key, deque()).extendleft(reversed(batches))
        self._held.add(key)
        self._paused.add(key)
        if self._is_patient:
            self._stopped_clock_ms[key] = now
        return [LaneHeld(key, error), SetTimer((self.name, key), now + _wait_ms(error, HELD_MS))]

    def _repeat(self, key: TopicPartition, now: int) -> list[Effect]:
        """Retry after the pause that follows individual refusals."""
        batches = self._in_flight.pop(key)
        late = [batch for batch in batches if self._left_ms(key, batch, now) <= 0]
        in_time = [batch for batch in batches if self._left_ms(key, batch, now) > 0]
        error = ErrorBody(ErrorCode.TIMED_OUT, f"refused for {self._delivery_timeout_ms} ms", True)
        effects = self._failures(key, late, error)
        return [*effects, *([self._ask(key, in_time, now)] if in_time else self._send(key, now))]

    def abandon(self, error: ErrorBody) -> list[Effect]:
        """Fail everything that is not done."""
        for key, batches in self._in_flight.items():
            if not self._receipts[key].is_unsent:
                self._doubtful.update(map(id, batches))
        lanes = [*self._in_flight.items(), *((key, list(queue)) for key, queue in self._waiting.items())]
        self._in_flight.clear()
        self._waiting.clear()
        return [effect for key, batches in lanes for effect in self._failures(key, batches, error)]

    def _send(self, key: TopicPartition, now: int) -> list[Effect]:
        queue = self._waiting.get(key)
        if key in self._in_flight or key in self._paused or not queue:
            return []
        late: list[Any] = []
        while queue and self._left_ms(key, queue[0], now) <= 0:
            late.append(queue.popleft())
        message = f"not sent within {self._delivery_timeout_ms} ms"
        effects = self._failures(key, late, ErrorBody(ErrorCode.TIMED_OUT, message, True))
        if not queue:
            return effects
        batches = [queue.popleft()]
        size_bytes = batches[0].size_bytes
        most = 1 if key in self._held else REQUEST_BATCHES
        while queue and len(batches) < most and size_bytes + queue[0].size_bytes <= REQUEST_BYTES:
            size_bytes += queue[0].size_bytes
            batches.append(queue.popleft())
        return [*effects, self._ask(key, batches, now)]

    def _ask(self, key: TopicPartition, batches: list[Any], now: int) -> Call:
        self._in_flight[key] = batches
        address, request, payload = self._request(key, batches, now)
        timeout_ms = min(self._request_timeout_ms, self._left_ms(key, batches[0], now))
        receipt = self._receipts[key] = Receipt()
        return Call(
            (self.name, key),
            address,
            request,
            self.reply_type,
            payload,
            timeout_ms,
            receipt=receipt,
            is_retried=True,
        )

    def _on_results(self, key: TopicPartition, batches: list[Any], reply: Reply, now: int) -> list[Effect]:
        effects: list[Effect] = []
        again: list[Any] = []
        for batch, result in zip(batches, self._results(reply), strict=True):
            error = result.error
            if error is not None and error.retriable and error.code not in NOT_APPENDED:
                self._doubtful.add(id(batch))
            if error is not None and error.retriable and self._left_ms(key, batch, now) > 0:
                again.append(batch)
                refusal = error
            else:
                is_doubtful = id(batch) in self._doubtful
                self._doubtful.discard(id(batch))
                is_uncertain = error is not None and error.retriable and is_doubtful
                effects.append(
                    Outcome(
                        key, batch, result.base_offset, error, is_uncertain, is_duplicate=result.duplicate
                    )
                )
        if again and refusal.code == ErrorCode.BACKPRESSURE:
            effects += self._hold(key, again, refusal, now)
        elif again:
            self._in_flight[key] = again
            effects.append(SetTimer((self.name, key), now + _wait_ms(refusal, AGAIN_MS)))
        return effects

    def _failures(self, key: TopicPartition, batches: list[Any], error: ErrorBody) -> list[Effect]:
        """Fail batches. Those of a request without a reply may have been written."""
        doubtful = self._doubtful & set(map(id, batches))
        self._doubtful -= doubtful
        return [
            Outcome(key, batch, error=error, is_uncertain=error.retriable and id(batch) in doubtful)
            for batch in batches
        ]

    def _left_ms(self, key: TopicPartition, batch: Any, now: int) -> int:
        counts_from_ms: int = max(batch.created_ms, self._stopped_clock_ms.get(key, 0))
        return counts_from_ms + self._delivery_timeout_ms - now


class IdentifiedRecords(Identified):
    """Records with a dedup id: `produce`, to their partition."""

    name = "identified"
    reply_type = ProduceReply

    def __init__(
        self, acks: Acks, delivery_timeout_ms: int, request_timeout_ms: int, is_patient: bool = True
    ) -> None:
        super().__init__(delivery_timeout_ms, request_timeout_ms, is_patient)
        self._acks: Acks = acks

    def _request(
        self, tp: TopicPartition, batches: Sequence[Any], now: int
    ) -> tuple[Address, Request, Payload]:
        topic, partition = tp
        expected = [batch.expected for batch in batches]
        request = Produce(
            topic=topic, partition=partition, acks=self._acks, expected=expected if any(expected) else None
        )
        return partition_address(topic, partition), request, tuple(map(_frame_of, batches))

    def _results(self, reply: ProduceReply) -> Sequence[ProducedBatch]:
        return reply.batches


class DelayedRecords(Identified):
    """Delayed messages: `publish`, to the gateway. A delay counts from the program's call of `publish`."""

    name = "delayed"
    reply_type = PublishReply

    def _request(
        self, tp: TopicPartition, batches: Sequence[Any], now: int
    ) -> tuple[Address, Request, Payload]:
        topic, partition = tp
        records = [_delayed_record(batch, now - batch.created_ms) for batch in batches]
        chosen = None if partition == ANY_PARTITION else partition
        return GATEWAY, Publish(topic=topic, partition=chosen, records=records), ()

    def _results(self, reply: PublishReply) -> Sequence[ProducedBatch]:
        return [ProducedBatch(each.offset, each.duplicate, each.error) for each in reply.records]


def _frame_of(batch: Any) -> bytes:
    entry = batch.alone
    return identified_batch((entry.key, entry.value, 0, entry.headers), batch.first_ms)


def _delayed_record(batch: Any, age_ms: int) -> PublishRecord:
    entry, when = batch.alone, batch.schedule
    return PublishRecord(
        key=entry.key,
        value=entry.value,
        headers=entry.headers,
        timestamp_ms=batch.first_ms if batch.records.has_own_times else None,
        scheduled_id=when.scheduled_id,
        deliver_at_ms=when.deliver_at_ms,
        delay_ms=None if when.delay_ms is None else max(0, when.delay_ms - age_ms),
    )


def _wait_ms(error: ErrorBody, otherwise: int) -> int:
    return otherwise if error.retry_after_ms is UNSET else error.retry_after_ms
