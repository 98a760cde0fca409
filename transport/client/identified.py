"""Records with an identity on their way: by partition in order, several in a request, one request at a time. Pure.

Their identity makes repeats harmless, so a request is repeated until it is answered or the time of its oldest record
is over. A partition that refuses for backpressure is left alone for as long as it asks, and then tried with a single
record. No producer id is involved: the partition may recognise one batch of a request and write the next,
which a sequence could not tell from a gap. Called by the producer's half on the network thread.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from ..addresses import Place, partition_address
from ..protocol.data import Acks, Produce, ProduceReply
from ..protocol.errors import ErrorBody, ErrorCode
from .asking import Answered, Ask, Effect, Event, Failed, SetTimer, TimerFired
from .lanes import HELD_MS
from .producing import LaneFreed, LaneHeld, Outcome

IDENTIFIED = "identified"
"""The first part of this machine's keys."""
REQUEST_BATCHES = 128
REQUEST_BYTES = 4 * 1024 * 1024


class Identified:
    """`frame_of(batch)` is a batch's bytes; a batch has `size_bytes` and `created_ms`."""

    def __init__(
        self,
        *,
        acks: Acks,
        delivery_timeout_ms: int,
        request_timeout_ms: int,
        frame_of: Callable[[Any], bytes],
        is_patient: bool = True,
    ) -> None:
        self._acks: Acks = acks
        self._delivery_timeout_ms = delivery_timeout_ms
        self._request_timeout_ms = request_timeout_ms
        self._frame_of = frame_of
        self._is_patient = is_patient
        """Whether time in which a partition refuses for backpressure counts for no record."""
        self._held: set[Place] = set()
        """Partitions that refuse, from the refusal to the next answer."""
        self._paused: set[Place] = set()
        """Those of them that are left alone for now."""
        self._excused_ms: dict[Place, int] = {}
        self._waiting: dict[Place, deque[Any]] = {}
        self._under_way: dict[Place, list[Any]] = {}

    def put(self, key: Place, batch: Any, now: int) -> list[Effect]:
        """One more record of a partition."""
        self._waiting.setdefault(key, deque()).append(batch)
        return self._send(key, now)

    def handle(self, event: Event, now: int) -> list[Effect]:
        assert isinstance(event, Answered | Failed | TimerFired)
        key: Place = event.key[1]
        if isinstance(event, TimerFired):
            self._paused.discard(key)
            return self._send(key, now)
        batches = self._under_way.pop(key, [])
        if isinstance(event, Failed):
            if batches and event.error.code == ErrorCode.BACKPRESSURE:
                return self._hold(key, batches, event.error, now)
            if batches and event.error.retriable and self._left_ms(key, batches[0], now) > 0:
                return [self._ask(key, batches, now)]
            effects = _failures(key, batches, event.error)
        else:
            effects = [LaneFreed(key)] if key in self._held else []
            self._held.discard(key)
            effects += _outcomes(key, batches, event.reply)
        return effects + self._send(key, now)

    def _hold(self, key: Place, batches: list[Any], error: ErrorBody, now: int) -> list[Effect]:
        self._waiting.setdefault(key, deque()).extendleft(reversed(batches))
        self._held.add(key)
        self._paused.add(key)
        if self._is_patient:
            self._excused_ms[key] = now
        wait_ms = HELD_MS if error.retry_after_ms is UNSET else error.retry_after_ms
        return [LaneHeld(key, error), SetTimer((IDENTIFIED, key), now + wait_ms)]

    def abandon(self, error: ErrorBody) -> list[Effect]:
        """Fail everything that is not done."""
        lanes = [*self._under_way.items(), *((key, list(queue)) for key, queue in self._waiting.items())]
        self._under_way.clear()
        self._waiting.clear()
        return [effect for key, batches in lanes for effect in _failures(key, batches, error)]

    def _send(self, key: Place, now: int) -> list[Effect]:
        queue = self._waiting.get(key)
        if key in self._under_way or key in self._paused or not queue:
            return []
        late: list[Any] = []
        while queue and self._left_ms(key, queue[0], now) <= 0:
            late.append(queue.popleft())
        message = f"not sent within {self._delivery_timeout_ms} ms"
        effects = [Outcome(key, batch, error=ErrorBody(ErrorCode.TIMED_OUT, message, True)) for batch in late]
        if not queue:
            return effects
        batches = [queue.popleft()]
        size_bytes = batches[0].size_bytes
        most = 1 if key in self._held else REQUEST_BATCHES
        while queue and len(batches) < most and size_bytes + queue[0].size_bytes <= REQUEST_BYTES:
            size_bytes += queue[0].size_bytes
            batches.append(queue.popleft())
        return [*effects, self._ask(key, batches, now)]

    def _ask(self, key: Place, batches: list[Any], now: int) -> Ask:
        self._under_way[key] = batches
        topic, partition = key
        return Ask(
            (IDENTIFIED, key),
            partition_address(topic, partition),
            Produce(topic=topic, partition=partition, acks=self._acks),
            ProduceReply,
            tuple(self._frame_of(batch) for batch in batches),
            min(self._request_timeout_ms, self._left_ms(key, batches[0], now)),
        )

    def _left_ms(self, key: Place, batch: Any, now: int) -> int:
        counts_from_ms: int = max(batch.created_ms, self._excused_ms.get(key, 0))
        return counts_from_ms + self._delivery_timeout_ms - now


def _outcomes(key: Place, batches: list[Any], reply: ProduceReply) -> list[Effect]:
    return [
        Outcome(key, batch, result.base_offset, result.error, is_duplicate=result.duplicate)
        for batch, result in zip(batches, reply.batches, strict=True)
    ]


def _failures(key: Place, batches: list[Any], error: ErrorBody) -> list[Effect]:
    """What may pass may also have been written before it was refused the last time."""
    return [Outcome(key, batch, error=error, is_uncertain=error.retriable) for batch in batches]
