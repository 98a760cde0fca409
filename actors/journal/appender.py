"""Appends to an actor's partition of an internal topic, one batch at a time, each sent until it is answered.

Owns the batch in flight: a missing answer leaves the outcome unknown, so the same bytes are sent again, across restarts
of the partition, and their sequence makes the repeat idempotent. Must never send a second batch before the first is
answered. Used by replay.py for the start record and by the actor's recorder for all later records.

    idle --append--> in flight --answered--> idle
                     in flight --refused--> raises Fenced: a newer incarnation of the actor writes; SequenceRefused: it
                                            may write as well; or AppendRefused, for any other reason
"""

from msgspec import Struct

from ...transport.addresses import TopicPartition, partition_address
from ...transport.log_access.writer import append_call, result_of
from ...transport.machine import Answered, Failed, LoopEffect, LoopEvent
from ...transport.protocol.errors import ErrorCode


class AppendCall(Struct, frozen=True):
    """The batch in flight."""


class Fenced(RuntimeError):
    """A newer incarnation of this actor writes; this one must end."""


class AppendRefused(RuntimeError):
    """The partition refused a batch, and a retry cannot succeed."""


class SequenceRefused(AppendRefused):
    """The partition knows other batches of the producer than this actor."""


_REFUSALS: dict[str, type[RuntimeError]] = {
    ErrorCode.PRODUCER_FENCED: Fenced,
    ErrorCode.OUT_OF_ORDER_SEQUENCE: SequenceRefused,
}


class Appender:
    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.is_idle = True

    @property
    def address(self) -> str:
        return partition_address(*self.tp)

    def append(self, frame: bytes) -> list[LoopEffect]:
        assert self.is_idle, "one batch is outstanding at a time"
        self.is_idle = False
        return [append_call(AppendCall(), self.tp, frame, is_endless=True)]

    def handle(self, event: LoopEvent) -> int | None:
        """Return the base offset when the batch in flight has become durable."""
        if not isinstance(event, Answered | Failed) or event.key != AppendCall():
            return None
        result = result_of(event)
        if result.error is not None:
            kind = _REFUSALS.get(result.error.code, AppendRefused)
            raise kind(f"{result.error.code}: {result.error.message}")
        self.is_idle = True
        return result.base_offset
