"""The messages that a share consumer holds, its pending verdicts, and the requests that send them. Pure.

    held        acquired and not acknowledged: locked to this consumer
    said        acknowledged, and not yet answered by the broker
    unread      held messages that a loop has acquired and not yielded: never accepted unseen
    refused     acknowledgements that came too late, until `flush` reports them

A verdict is about one delivery: a lock may expire and the same consumer acquire the message again. So each held message
has the count of its delivery, and the acknowledgement sends it.

A verdict moves a message from held to said. A message leaves said with the broker's answer.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ..addresses import TopicPartition
from ..protocol.errors import ProtocolError
from ..protocol.shares import Acknowledgement, AcquiredRange, Verdict


class Delivered(Protocol):
    """A message as one delivery brought it, to a thread or a task."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def topic_partition(self) -> TopicPartition: ...

    @property
    def delivery_count(self) -> int: ...


class Said(NamedTuple):
    verdict: Verdict
    delay_ms: int
    reason: str
    delivery_count: int = 1

    def about(self, delivery_count: int) -> "Said":
        """Return the same verdict about another delivery."""
        return self if delivery_count == self.delivery_count else self._replace(delivery_count=delivery_count)


ACCEPTED = Said("accept", 0, "")
RELEASED = Said("release", 0, "")
RENEWED = Said("renew", 0, "")

Verdicts = dict[TopicPartition, dict[int, Said]]


class Refused(NamedTuple):
    """An acknowledgement that came too late: another member may hold the record by now."""

    topic: str
    partition: int
    offset: int
    verdict: Verdict
    error: ProtocolError


class Holdings:
    def __init__(self) -> None:
        self.waiting = 0
        """Number of verdicts in `said`."""
        self._held: dict[TopicPartition, dict[int, int]] = {}
        """The count of the delivery, by offset."""
        self._said: Verdicts = {}
        self._refused: list[Refused] = []

    @property
    def is_holding(self) -> bool:
        return any(self._held.values())

    def has(self, message: Delivered) -> bool:
        """Return True if it is held by this delivery, not by a later one."""
        return self._held.get(message.topic_partition, {}).get(message.offset) == message.delivery_count

    def holds(self, single: Acknowledgement) -> bool:
        """Return True if the message of this acknowledgement is held."""
        held = self._held.get(TopicPartition(single.topic, single.partition), ())
        return single.first_offset in held

    def hold(self, ranges: Iterable[AcquiredRange]) -> None:
        for each in ranges:
            deliveries = dict.fromkeys(each.offsets, each.delivery_count)
            self._held.setdefault(each.topic_partition, {}).update(deliveries)

    def say_each(self, messages: Sequence[Delivered], said: Said) -> Delivered | None:
        """Record a verdict about all that are held. Return the first message that is not."""
        missing: Delivered | None = None
        topic, partition = "", -1
        held: dict[int, int] = {}
        waiting: dict[int, Said] = {}
        for message in messages:
            if message.partition != partition or message.topic != topic:
                topic, partition = message.topic, message.partition
                tp: Any = (topic, partition)  # equal to the TopicPartition, which takes three times as long
                held = self._held.get(tp, {})
                if tp not in self._said:
                    self._said[TopicPartition(topic, partition)] = {}
                waiting = self._said[tp]
            offset, delivery_count = message.offset, held.get(message.offset)
            if delivery_count is None or delivery_count != message.delivery_count:
                missing = missing or message
                continue
            del held[offset]
            waiting[offset] = said if delivery_count == 1 else said.about(delivery_count)
            self.waiting += 1
        return missing

    def say_held(self, tp: TopicPartition, offsets: Iterable[int], said: Said) -> None:
        """Record a verdict about those of the messages that are held by the delivery which it is about."""
        held, waiting = self._held.get(tp, {}), self._said.setdefault(tp, {})
        for offset in offsets:
            if held.get(offset) == said.delivery_count:
                del held[offset]
                waiting[offset] = said
                self.waiting += 1

    def say_all(self, said: Said, but: Sequence[Delivered] = ()) -> None:
        """Record a verdict about all held messages, except these."""
        spared = {(each.topic, each.partition, each.offset) for each in but}
        for tp, held in self._held.items():
            for offset, delivery_count in sorted(held.items()):
                if (*tp, offset) not in spared:
                    self.say_held(tp, (offset,), said.about(delivery_count))

    def take_said(self) -> Verdicts:
        said, self._said, self.waiting = self._said, {}, 0
        return said

    def put_back(self, said: Verdicts) -> None:
        """Take verdicts back that had no answer. They may have taken effect: sent again, they may come too late."""
        for tp, offsets in said.items():
            self._said[tp] = offsets | self._said.get(tp, {})
        self.waiting = sum(map(len, self._said.values()))

    def renewals(self) -> Verdicts:
        return {
            tp: {offset: RENEWED.about(held[offset]) for offset in sorted(held)}
            for tp, held in self._held.items()
            if held
        }

    def refuse(self, each: Acknowledgement, error: ProtocolError) -> None:
        if each.verdict == "renew":  # the lock is lost, so the message is no longer held
            self._held.get(TopicPartition(each.topic, each.partition), {}).pop(each.first_offset, None)
        else:
            refused = Refused(each.topic, each.partition, each.first_offset, each.verdict, error)
            self._refused.append(refused)

    def take_refused(self) -> list[Refused]:
        refused, self._refused = self._refused, []
        return refused


def merged(tp: TopicPartition, offsets: dict[int, Said], lock_ms: int | None = None) -> list[Acknowledgement]:
    """Return one acknowledgement for each run of offsets with the same verdict."""
    runs: list[tuple[int, int, Said]] = []
    for offset in sorted(offsets):
        said = offsets[offset]
        if runs and runs[-1][1] == offset - 1 and runs[-1][2] == said:
            runs[-1] = (runs[-1][0], offset, said)
        else:
            runs.append((offset, offset, said))
    return [
        Acknowledgement(
            topic=tp[0],
            partition=tp[1],
            first_offset=first,
            last_offset=last,
            verdict=said.verdict,
            delivery_count=said.delivery_count,
            delay_ms=said.delay_ms,
            reason=said.reason,
            lock_ms=lock_ms,
        )
        for first, last, said in runs
    ]


def singles(each: Acknowledgement, last_offset: int) -> deque[Acknowledgement]:
    """Return one acknowledgement for each offset."""
    return deque(
        Acknowledgement(
            topic=each.topic,
            partition=each.partition,
            first_offset=offset,
            verdict=each.verdict,
            delivery_count=each.delivery_count,
            delay_ms=each.delay_ms,
            reason=each.reason,
            lock_ms=each.lock_ms,
        )
        for offset in range(each.first_offset, last_offset + 1)
    )
