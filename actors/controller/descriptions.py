"""Describing a topic: wait until its partitions are up (after a change), ask each, answer with all. Pure.

waiting    after create and alter: until every partition is up, or UP_TIMEOUT_MS have passed
gathering  each partition that is up or sleeps has been asked; the others are described by the reason
"""

from msgspec import UNSET

from ...transport.addresses import Address, partition_address
from ...transport.machine import Call, CancelTimer, Reply, Sender, SetTimer
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.topics import (
    DescribePartition,
    DescribePartitionReply,
    DescribeTopicReply,
    PartitionDescription,
)
from .catalog import TopicEntry
from .children import partition_addresses
from .effects import Effect
from .keys import DescriptionCall, DescriptionTimer
from .peers import Peers

UP_TIMEOUT_MS = 15_000
PEER_REPORT_TIMEOUT_MS = 1_000
"""The longest wait for partitions that the directory has not reported, right after the start of either."""
ANSWER_TIMEOUT_MS = 2_000
MAX_DESCRIPTIONS = 1_000
"""Maximum number of topics being described; more are refused with OVERLOADED."""


class _Description:
    def __init__(self, sender: Sender, entry: TopicEntry, missing: set[Address]) -> None:
        self.sender = sender
        self.entry = entry
        self.missing = missing
        """Addresses that are not up yet."""
        self.partitions: dict[int, PartitionDescription] = {}


class Descriptions:
    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._open: dict[int, _Description] = {}
        self._last_number = 0

    def describe(self, sender: Sender, entry: TopicEntry, now: int) -> list[Effect]:
        """Describe the topic as it is now; wait briefly only for partitions that the directory has not reported."""
        unheard = {address for address in partition_addresses(entry) if self._peers.is_unheard_of(address)}
        return self._describe_without(unheard, sender, entry, now + PEER_REPORT_TIMEOUT_MS)

    def describe_when_up(self, sender: Sender, entry: TopicEntry, now: int) -> list[Effect]:
        missing = {address for address in partition_addresses(entry) if not self._peers.takes_calls(address)}
        return self._describe_without(missing, sender, entry, now + UP_TIMEOUT_MS)

    def _describe_without(
        self, missing: set[Address], sender: Sender, entry: TopicEntry, deadline: int
    ) -> list[Effect]:
        number = self._begin(sender, entry, missing)
        return [SetTimer(DescriptionTimer(number), deadline)] if missing else self._gather(number)

    def check_room(self) -> None:
        """Raises ProtocolError when too many topics are being described."""
        if len(self._open) >= MAX_DESCRIPTIONS:
            raise ProtocolError(ErrorCode.OVERLOADED, "too many topics are being described")

    def on_up(self, address: Address) -> list[Effect]:
        effects: list[Effect] = []
        for number, description in list(self._open.items()):
            if address in description.missing:
                description.missing.discard(address)
                if not description.missing:
                    effects += [CancelTimer(DescriptionTimer(number)), *self._gather(number)]
        return effects

    def on_timer(self, number: int) -> list[Effect]:
        """Answer with the present state, because not all partitions came up in time."""
        description = self._open.get(number)
        if description is None or not description.missing:
            return []
        description.missing.clear()
        return self._gather(number)

    def on_answered(self, key: DescriptionCall, reply: DescribePartitionReply) -> list[Effect]:
        return self._put(key.number, key.partition, reply.description)

    def on_failed(self, key: DescriptionCall, error: ErrorBody) -> list[Effect]:
        return self._put(key.number, key.partition, _offline(key.partition, error.message))

    def on_deleted(self, topic: str) -> list[Effect]:
        """End the descriptions of a deleted topic."""
        error = ErrorBody(ErrorCode.UNKNOWN_TOPIC, f"topic {topic!r} was deleted")
        gone = [number for number, description in self._open.items() if description.entry.topic == topic]
        return [Reply(self._open.pop(number).sender, error) for number in gone]

    def _begin(self, sender: Sender, entry: TopicEntry, missing: set[Address]) -> int:
        self._last_number += 1
        self._open[self._last_number] = _Description(sender, entry, missing)
        return self._last_number

    def _gather(self, number: int) -> list[Effect]:
        effects: list[Effect] = []
        description = self._open[number]
        for partition in range(description.entry.partitions):
            address = partition_address(description.entry.topic, partition)
            if self._peers.takes_calls(address):
                key = DescriptionCall(number, partition)
                effects.append(
                    Call(
                        key,
                        address,
                        DescribePartition(),
                        DescribePartitionReply,
                        timeout_ms=ANSWER_TIMEOUT_MS,
                    )
                )
            else:
                description.partitions[partition] = _offline(partition, self._peers.why_down(address))
        return effects + self._finish_if_complete(number)

    def _put(self, number: int, partition: int, answer: PartitionDescription) -> list[Effect]:
        description = self._open.get(number)
        if description is None:
            return []
        description.partitions[partition] = answer
        return self._finish_if_complete(number)

    def _finish_if_complete(self, number: int) -> list[Effect]:
        description = self._open[number]
        entry = description.entry
        if len(description.partitions) < entry.partitions:
            return []
        del self._open[number]
        reply = DescribeTopicReply(
            topic=entry.topic,
            topic_id=entry.topic_id,
            config=entry.config,
            partitions=[description.partitions[partition] for partition in range(entry.partitions)],
            mirror=UNSET if entry.mirror is None else entry.mirror,
        )
        return [Reply(description.sender, reply)]


def _offline(partition: int, reason: str) -> PartitionDescription:
    return PartitionDescription(partition=partition, online=False, reason=reason)
