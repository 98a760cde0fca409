"""The records of `__delayed`: everything a scheduler must remember, as changes by key.

Owns their form and its translation; knows nothing of who decides a change. The newest record of a key holds, nil deletes,
so the topic may be compacted. Each partition has one scheduler, and what others write there is passed over.

    record = key value headers                          key and value MessagePack
    key    = ["start"]                                  value = {epoch, starter}
           | ["producer"]                                       the producer id under which messages are moved
           | ["message", scheduled_id]                          Message | nil; nil has the header `ended`:
                                                                `delivered` or `cancelled`
           | ["target", topic, partition]                       Target | nil

The records of one change are in one batch: that a batch of messages has been delivered, each message's end, and the next
batch that is intended for the same place.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...transport.addresses import TopicPartition
from ...transport.batch import Record
from ..journal.identity import Start

Ending: TypeAlias = Literal["delivered", "cancelled"]
ENDED = "ended"


class InvalidRecord(ValueError):
    """A record of `__delayed` that this version cannot read."""


class StartKey(Struct, frozen=True, array_like=True, tag="start"):
    pass


class ProducerKey(Struct, frozen=True, array_like=True, tag="producer"):
    pass


class MessageKey(Struct, frozen=True, array_like=True, tag="message"):
    scheduled_id: str


class TargetKey(Struct, frozen=True, array_like=True, tag="target"):
    topic: str
    partition: int


Key: TypeAlias = StartKey | ProducerKey | MessageKey | TargetKey


class Message(Struct, frozen=True, array_like=True):
    """What is to be delivered, where and when."""

    topic: str
    partition: int | None
    """None: by key, and without a key any; decided when it is due."""
    due_ms: int
    """By the time of day; by the scheduler's `elapsed` clock where there is a `delay_ms`."""
    delay_ms: int | None
    """How long it is held back; None: until a time of day."""
    scheduled_at_ms: int
    """The time of day."""
    key: bytes | None
    value: bytes | None
    headers: dict[str, str] | None
    timestamp_ms: int | None
    """None: the time of delivery."""

    @property
    def is_delay(self) -> bool:
        return self.delay_ms is not None

    @property
    def announced_ms(self) -> int:
        """For which time of day it was scheduled, by the clock as it was then."""
        return self.due_ms if self.delay_ms is None else self.scheduled_at_ms + self.delay_ms

    def due_after(self, elapsed_ms: int) -> int:
        """When it is due for a process that started at `elapsed_ms`: no later than its whole delay from then.

        The clock by which it was written down may have been ahead of this one, if the machine has booted since.
        """
        return self.due_ms if self.delay_ms is None else min(self.due_ms, elapsed_ms + self.delay_ms)

    @property
    def size_bytes(self) -> int:
        return len(self.key or b"") + len(self.value or b"")


class Intent(Struct, frozen=True, array_like=True):
    """These messages, in this order, are one batch with this sequence, which may be on its way."""

    base_sequence: int
    offsets: tuple[int, ...]
    """Where the messages are in `__delayed`."""


class Target(Struct, frozen=True, array_like=True):
    """What a scheduler remembers of a partition it delivers to."""

    topic_id: str
    epoch: int
    next_sequence: int
    """Behind the intent's batch, if there is one."""
    from_offset: int
    """Everything that was delivered before the intent lies below."""
    decided_ms: int
    intent: Intent | None = None


class Scheduled(Struct, frozen=True):
    scheduled_id: str
    message: Message


class Cancelled(Struct, frozen=True):
    scheduled_id: str


class Moved(Struct, frozen=True):
    """What was intended for a place has been delivered, and what comes next there."""

    tp: TopicPartition
    target: Target | None
    delivered: tuple[str, ...] = ()


class ProducerChosen(Struct, frozen=True):
    producer_id: int


Change: TypeAlias = Scheduled | Cancelled | Moved | ProducerChosen

_encode = msgspec.msgpack.Encoder().encode
decode_key = msgspec.msgpack.Decoder(Key).decode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_target = msgspec.msgpack.Decoder(Target).decode
decode_start = msgspec.msgpack.Decoder(Start).decode
decode_producer_id = msgspec.msgpack.Decoder(int).decode


def encode_start(start: Start) -> Record:
    return (_encode(StartKey()), _encode(start), 0, None)


def encode(change: Change) -> Sequence[Record]:
    match change:
        case Scheduled(scheduled_id=scheduled_id, message=message):
            return ((_encode(MessageKey(scheduled_id)), _encode(message), 0, None),)
        case Cancelled(scheduled_id=scheduled_id):
            return (_ended(scheduled_id, "cancelled"),)
        case ProducerChosen(producer_id=producer_id):
            return ((_encode(ProducerKey()), _encode(producer_id), 0, None),)
        case Moved(tp=tp, target=target, delivered=delivered):
            value = None if target is None else _encode(target)
            return ((_encode(TargetKey(*tp)), value, 0, None), *(_ended(each) for each in delivered))


def record_count(change: Change) -> int:
    return 1 + len(change.delivered) if isinstance(change, Moved) else 1


def _ended(scheduled_id: str, ending: Ending = "delivered") -> Record:
    return (_encode(MessageKey(scheduled_id)), None, 0, {ENDED: ending})
