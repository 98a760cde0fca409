"""The last message of each key of a topic, and how far the topic has been read. Pure.

Owned by a table, whose thread feeds it with the steps of a consumer and whose readers read it, both under the table's
lock. A partition whose position goes back, or whose topic is created again, is read from its beginning again: its keys
are forgotten first, because an earlier message of a key may be the last one then. Called by `table.py`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

from ..addresses import TopicPartition
from .consuming import Consuming
from .messages import Message

MESSAGES_A_STEP = 2_000


class Place(NamedTuple):
    """A consumer's position in a partition, and the topic's id as far as it is known."""

    offset: int
    topic_id: str | None


class Step(Struct, frozen=True):
    """Messages, and the places behind them."""

    messages: list[Message]
    places: dict[TopicPartition, Place]


class _Waiting(NamedTuple):
    ends: dict[TopicPartition, int]
    notify: Callable[[], object]


class TableState:
    def __init__(self) -> None:
        self.messages: dict[bytes, Message] = {}
        self.places: dict[TopicPartition, Place] = {}
        self._waiting: list[_Waiting] = []

    def take(self, machine: Consuming) -> list[Step]:
        """Return the consumer's next step; none if nothing has changed."""
        reader = machine.reader
        messages = reader.take(MESSAGES_A_STEP)
        places = {tp: Place(offset, reader.origin(tp)[0]) for tp, offset in reader.positions().items()}
        is_news = any(self.places.get(tp) != place for tp, place in places.items())
        return [Step(messages, places)] if messages or is_news else []

    def apply(self, step: Step) -> list[TopicPartition]:
        """Apply a step. Return the partitions that must be read from their beginning again."""
        again = [tp for tp, place in step.places.items() if self._is_void(tp, place)]
        if again:
            void = set(again)
            self.messages = {
                key: message for key, message in self.messages.items() if message.topic_partition not in void
            }
        for message in step.messages:
            if message.key is None or message.topic_partition in again:
                continue
            if message.value is None:
                self.messages.pop(message.key, None)
            else:
                self.messages[message.key] = message
        self.places.update(step.places)
        for tp in again:
            del self.places[tp]
        self._notify()
        return again

    def _is_void(self, tp: TopicPartition, place: Place) -> bool:
        before = self.places.get(tp)
        if before is None:
            return False
        is_of_another = None not in (before.topic_id, place.topic_id) and before.topic_id != place.topic_id
        return is_of_another or place.offset < before.offset

    # -- waiting

    def includes(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Return True if each partition has been read up to the given offset."""
        return all(tp in self.places and self.places[tp].offset >= end for tp, end in ends.items())

    def call_when(self, ends: dict[TopicPartition, int], notify: Callable[[], object]) -> None:
        """Call `notify` once the partitions have been read that far: at once, if they have."""
        if self.includes(ends):
            notify()
        else:
            self._waiting.append(_Waiting(ends, notify))

    def forget(self, notify: Callable[[], object]) -> None:
        """Withdraw a call."""
        self._waiting = [each for each in self._waiting if each.notify != notify]

    def notify_all(self) -> None:
        """Make all calls: nothing more will be read."""
        for each in self._waiting:
            each.notify()
        self._waiting.clear()

    def _notify(self) -> None:
        reached = [each for each in self._waiting if self.includes(each.ends)]
        for each in reached:
            each.notify()
        if reached:
            self._waiting = [each for each in self._waiting if each not in reached]
