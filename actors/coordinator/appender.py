"""One batch at a time into the group's partition of `__offsets`, each sent until it is answered.

Owns the outstanding batch and its retries, whatever becomes of the partition meanwhile: an answer that did not come says
nothing, so the same bytes go again, and the sequence in them makes the second time harmless. Must never send a second
batch before the first is answered. Owns as well the rule under which producer id and epoch each start of a group writes.
Used by replay.py for the start record and by recorder.py for everything after it.

    idle --append--> in flight --answered--> idle
                     in flight --failed, may succeed later--> waiting --timer | partition is up--> in flight
                     in flight --fenced--> raises Fenced: a newer incarnation writes for this group
"""

from hashlib import sha256
from typing import NamedTuple

from ...transport.addresses import partition_address
from ...transport.batch import BatchHeader
from ...transport.machine import (
    Answered,
    Call,
    Effect,
    Event,
    Failed,
)
from ...transport.protocol.data import Produce, ProduceReply
from ...transport.protocol.errors import ErrorBody, ErrorCode
from ..log.key_map import FAMILY_BITS, OWN_ID
from .pause import Pause

APPEND = "append"


class Fenced(RuntimeError):
    """A newer incarnation of this coordinator writes for the group; this one must end."""


class AppendRefused(RuntimeError):
    """The partition refused a batch in a way that no retry can mend."""


STARTS_PER_ID = 2**15 - 1
"""Starts that write under one producer id, with epochs from 0; the epoch after the last one closes the id for ever."""
ERA_BITS = FAMILY_BITS
"""The lowest bits of a producer id count the ids a group has used up; by the others compaction knows its records."""


class Identity(NamedTuple):
    """What an incarnation signs its batches with: each start has one of its own, and fences those before it."""

    producer_id: int
    epoch: int


def identity_of(group: str, start: int) -> Identity:
    """Of the group's start number `start`, from 0 on. Ids that are handed out never have bit 62."""
    era, epoch = divmod(start, STARTS_PER_ID)
    digest = sha256(f"coordinator/{group}".encode()).digest()
    family = int.from_bytes(digest[:8], "big") >> (4 + ERA_BITS)
    assert era < 1 << ERA_BITS, f"{group} has been started {start} times"
    return Identity(OWN_ID | family << ERA_BITS | era, epoch)


def closing_identity(group: str, start: int) -> Identity | None:
    """With what the first start of a new id fences those of the id before; None for any other start."""
    if start == 0 or start % STARTS_PER_ID:
        return None
    return Identity(identity_of(group, start - 1).producer_id, STARTS_PER_ID)


def start_of(group: str, header: BatchHeader) -> int | None:
    """The start that wrote a batch; None when it was not one of this group's."""
    first_id = identity_of(group, 0).producer_id
    if header.producer_id >> ERA_BITS != first_id >> ERA_BITS:
        return None
    return (header.producer_id - first_id) * STARTS_PER_ID + header.producer_epoch


class Appender:
    def __init__(self, topic: str, partition: int) -> None:
        self.address = partition_address(topic, partition)
        self._request = Produce(topic=topic, partition=partition, acks="all")
        self._frame: bytes | None = None
        self._pause = Pause("append_retry", self.address)

    @property
    def is_idle(self) -> bool:
        return self._frame is None

    def append(self, frame: bytes) -> list[Effect]:
        assert self._frame is None, "one batch is outstanding at a time"
        self._frame = frame
        return [self._call(frame)]

    def handle(self, event: Event, now: int) -> tuple[list[Effect], int | None]:
        """Effects, and the base offset when the outstanding batch has become durable."""
        if self._frame is None:
            return [], None
        if isinstance(event, Answered) and event.key == APPEND:
            result = event.reply.batches[0]
            if result.error is not None:
                return self._on_refusal(result.error, now), None
            self._frame = None
            return [], result.base_offset
        if isinstance(event, Failed) and event.key == APPEND:
            return self._on_refusal(event.error, now), None
        if self._pause.is_over(event):
            return [self._pause.end, self._call(self._frame)], None
        return [], None

    def _on_refusal(self, error: ErrorBody, now: int) -> list[Effect]:
        if error.code == ErrorCode.PRODUCER_FENCED:
            raise Fenced(error.message)
        if not error.retriable:
            raise AppendRefused(f"{error.code}: {error.message}")
        return self._pause.begin(now)

    def _call(self, frame: bytes) -> Call:
        return Call(APPEND, self.address, self._request, ProduceReply, (frame,))
