"""The messages that a share consumer holds, its pending verdicts, and the requests that send them. Pure.

    held        acquired and not acknowledged: locked to this consumer
    said        acknowledged, and not yet answered by the broker
    unread      held messages that a loop has acquired and not yielded: never accepted unseen
    refused     acknowledgements that came too late, until `flush` reports them

A verdict moves a message from held to said. A message leaves said with the broker's answer.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..addresses import TopicPartition
from ..protocol.errors import ProtocolError
from ..protocol.shares import Acknowledgement, AcquiredRange, Verdict
from .messages import Message


class Said(NamedTuple):
    verdict: Verdict
    delay_ms: int
    reason: str


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
        self._held: dict[TopicPartition, set[int]] = {}
        self._said: Verdicts = {}
        self._refused: list[Refused] = []

    @property
    def is_holding(self) -> bool:
        return any(self._held.values())

    def has(self, message: Message) -> bool:
        return message.offset in self._held.get(message.topic_partition, ())

    def holds(self, single: Acknowledgement) -> bool:
        """Return True if the message of this acknowledgement is held."""
        held = self._held.get(TopicPartition(single.topic, single.partition), ())
        return single.first_offset in held

    def hold(self, ranges: Iterable[AcquiredRange]) -> None:
        for each in ranges:
            self._held.setdefault(each.topic_partition, set()).update(each.offsets)

    def say(self, tp: TopicPartition, offsets: Iterable[int], said: Said) -> bool:
        """Record verdicts. Return False at the first message that is not held."""
        held = self._held.get(tp, set())
        waiting = self._said.setdefault(tp, {})
        for offset in offsets:
            if offset not in held:
                return False
            held.discard(offset)
            waiting[offset] = said
            self.waiting += 1
        return True

    def say_each(self, messages: Sequence[Message], said: Said) -> Message | None:
        """Record a verdict about all that are held. Return the first message that is not."""
        missing: Message | None = None
        topic, partition = "", -1
        held: set[int] = set()
        waiting: dict[int, Said] = {}
        for message in messages:
            if message.partition != partition or message.topic != topic:
                topic, partition = message.topic, message.partition
                tp: Any = (topic, partition)  # equal to the TopicPartition, which takes three times as long
                held = self._held.get(tp, set())
                if tp not in self._said:
                    self._said[TopicPartition(topic, partition)] = {}
                waiting = self._said[tp]
            if message.offset not in held:
                missing = missing or message
                continue
            held.discard(message.offset)
            waiting[message.offset] = said
            self.waiting += 1
        return missing

    def say_held(self, tp: TopicPartition, offsets: Iterable[int], said: Said) -> None:
        """Record a verdict about those of the messages that are held."""
        held = self._held.get(tp, set())
        self.say(tp, [offset for offset in offsets if offset in held], said)

    def say_all(self, said: Said, but: Sequence[Message] = ()) -> None:
        """Record a verdict about all held messages, except these."""
        spared = {(each.topic, each.partition, each.offset) for each in but}
        for tp, offsets in self._held.items():
            self.say(tp, [at for at in sorted(offsets) if (*tp, at) not in spared], said)

    def take_said(self) -> Verdicts:
        said, self._said, self.waiting = self._said, {}, 0
        return said

    def put_back(self, said: Verdicts) -> None:
        """Take verdicts back that had no answer. They may have taken effect: sent again, they may come too late."""
        for tp, offsets in said.items():
            self._said[tp] = offsets | self._said.get(tp, {})
        self.waiting = sum(map(len, self._said.values()))

    def renewals(self) -> Verdicts:
        return {tp: dict.fromkeys(sorted(offsets), RENEWED) for tp, offsets in self._held.items() if offsets}

    def refuse(self, each: Acknowledgement, error: ProtocolError) -> None:
        if each.verdict == "renew":  # the lock is lost, so the message is no longer held
            self._held.get(TopicPartition(each.topic, each.partition), set()).discard(each.first_offset)
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
            delay_ms=each.delay_ms,
            reason=each.reason,
            lock_ms=each.lock_ms,
        )
        for offset in range(each.first_offset, last_offset + 1)
    )
