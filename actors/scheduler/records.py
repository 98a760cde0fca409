"""The records of `__delayed`: the durable state of a scheduler, as changes by key.

Owns their form and its translation, and is independent of the decisions. The newest record of a key holds, nil
deletes, so the topic may be compacted. Each partition has one scheduler, and records of other producers there are
skipped.

    record = key value headers                          key and value MessagePack
    key    = ["start"]                                  value = {epoch, starter}
           | ["producer"]                                       the producer id under which messages are moved
           | ["message", scheduled_id]                          Message | nil; nil has the header `ended`:
                                                                `delivered` or `cancelled`
           | ["target", topic, partition]                       Target | nil

The records of one change are in one batch: the delivery of a batch of messages, each message's end, and the next
batch that is intended for the same partition.
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
    """A message with its target and due time."""

    topic: str
    partition: int | None
    """None: by key, or any partition without a key; decided when it is due."""
    due_ms: int
    """Wall-clock time, or the time of the scheduler's `elapsed` clock when there is a `delay_ms`."""
    delay_ms: int | None
    """The delay; None: until a wall-clock time."""
    scheduled_at_ms: int
    """Wall-clock time of scheduling."""
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
        """Return the wall-clock time for which it was scheduled, by the clock at that time."""
        return self.due_ms if self.delay_ms is None else self.scheduled_at_ms + self.delay_ms

    def due_after(self, elapsed_ms: int) -> int:
        """Return the due time for a process that started at `elapsed_ms`: at most its whole delay later.

        The clock that it was recorded with may have been ahead of this one, if the machine has booted since.
        """
        return self.due_ms if self.delay_ms is None else min(self.due_ms, elapsed_ms + self.delay_ms)

    @property
    def size_bytes(self) -> int:
        return len(self.key or b"") + len(self.value or b"")


class Intent(Struct, frozen=True, array_like=True):
    """The decision to send these messages, in this order, as one batch with this sequence; it may be in flight."""

    base_sequence: int
    offsets: tuple[int, ...]
    """Offsets of the messages in `__delayed`."""


class Target(Struct, frozen=True, array_like=True):
    """A scheduler's state of a partition that it delivers to."""

    topic_id: str
    epoch: int
    next_sequence: int
    """The sequence after the intent's batch, if there is one."""
    from_offset: int
    """Every batch delivered before the intent lies below this offset."""
    decided_ms: int
    intent: Intent | None = None


class Scheduled(Struct, frozen=True):
    scheduled_id: str
    message: Message


class Cancelled(Struct, frozen=True):
    scheduled_id: str


class Moved(Struct, frozen=True):
    """The intended batch for a target has been delivered, and the next intent."""

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
