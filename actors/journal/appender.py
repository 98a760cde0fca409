"""Appends to an actor's partition of an internal topic, one batch at a time, each sent until it is answered.

Owns the batch in flight and its retries across restarts of the partition: a missing answer leaves the outcome unknown,
so the same bytes are sent again, and their sequence makes the repeat idempotent. Must never send a second batch before
the first is answered. Used by replay.py for the start record and by the actor's recorder for all later records.

    idle --append--> in flight --answered--> idle
                     in flight --failed, may succeed later--> waiting --timer | partition is up--> in flight
                     in flight --fenced--> raises Fenced: a newer incarnation of the actor writes
"""

from msgspec import Struct

from ...transport.addresses import partition_address
from ...transport.machine import Answered, Call, Failed, LoopEffect, LoopEvent
from ...transport.protocol.data import Produce, ProduceReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from .pause import Pause


class AppendCall(Struct, frozen=True):
    """The batch in flight."""


class Fenced(RuntimeError):
    """A newer incarnation of this actor writes; this one must end."""


class AppendRefused(RuntimeError):
    """The partition refused a batch, and a retry cannot succeed."""


class Appender:
    def __init__(self, topic: str, partition: int) -> None:
        self.address = partition_address(topic, partition)
        self._request = Produce(topic=topic, partition=partition, acks="all")
        self._frame: bytes | None = None
        self._pause = Pause(AppendCall(), self.address)

    @property
    def is_idle(self) -> bool:
        return self._frame is None

    def append(self, frame: bytes) -> list[LoopEffect]:
        assert self._frame is None, "one batch is outstanding at a time"
        self._frame = frame
        return [self._call(frame)]

    def handle(self, event: LoopEvent, now: int) -> tuple[list[LoopEffect], int | None]:
        """Return effects, and the base offset when the batch in flight has become durable."""
        if self._frame is None:
            return [], None
        match event:
            case Answered(key=AppendCall()):
                result = event.reply.batches[0]
                if result.error is not None:
                    return self._on_refusal(result.error, now), None
                self._frame = None
                return [], result.base_offset
            case Failed(key=AppendCall()):
                return self._on_refusal(event.error, now), None
        if self._pause.is_over(event):
            return [self._pause.end, self._call(self._frame)], None
        return [], None

    def _on_refusal(self, error: ErrorBody, now: int) -> list[LoopEffect]:
        if error.code == ErrorCode.PRODUCER_FENCED:
            raise Fenced(error.message)
        if not error.retriable:
            raise AppendRefused(f"{error.code}: {error.message}")
        return self._pause.begin(now)

    def _call(self, frame: bytes) -> Call:
        return Call(AppendCall(), self.address, self._request, ProduceReply, (frame,))
