"""The topics that a producer publishes to: their partitions, limits, and the partition of a message without a key.

Takes facts from the client's topics, and asks the broker for the rest: a caller may wait. Called by the accumulator, in
the threads of publishers, and by the parts of the broker that ask about a topic before they publish.
"""

import random

from ..addresses import TopicPartition, is_internal
from ..protocol.errors import ErrorCode, ProtocolError
from .batches import HeldPartitions
from .content import RECORD_OVERHEAD_BYTES
from .errors import DeliveryFailed, TimedOut
from .network import Network
from .options import ProducerOptions
from .placement import BATCH_OVERHEAD_BYTES
from .waiting import Requester


class Destinations:
    def __init__(
        self, network: Network, requester: Requester, held: HeldPartitions, options: ProducerOptions
    ) -> None:
        self._network = network
        self._requester = requester
        self._held = held
        self._batch_bytes = options.batch_bytes
        self._timeout_ms = min(options.request_timeout_ms, options.max_block_ms)
        self._turns: dict[str, int] = {}

    def partitions_of(self, topic: str, least: int = 1) -> int:
        if type(topic) is str:  # anything else may have no hash, and is refused below
            known = self._network.topics.partition_count(topic)
            if known is not None and known >= least:
                return known
        return self.find(topic, self._timeout_ms, least)

    def partitions_known(self, topic: str) -> int | None:
        """Return how many partitions the topic has, as far as is known without asking."""
        return self._network.topics.partition_count(topic)

    def find(self, topic: str, timeout_ms: int, least: int = 1) -> int:
        """Return how many partitions the topic has. Waits a moment for as many as `least`.

        Raises UnknownTopic, and DeliveryFailed when that is not known in time.
        """
        try:
            return self._network.partitions_of(topic, timeout_ms, least, requester=self._requester)
        except TimedOut as error:
            message = f"never sent, the partitions of {topic!r} are not known: {error.message}"
            raise DeliveryFailed(error.code, message, retriable=True) from error

    def check_partition(self, topic: str, partition: int | None) -> None:
        """Raise UnknownTopic, or ProtocolError with UNKNOWN_PARTITION, if there is no such partition."""
        partitions = self.partitions_of(topic, 1 if partition is None else partition + 1)
        if partition is not None and not 0 <= partition < partitions:
            raise ProtocolError(ErrorCode.UNKNOWN_PARTITION, f"{topic!r} has no partition {partition}")

    def check(self, topic: str, partition: int | None, size_bytes: int) -> None:
        """Raise the error with which a message of that size would be refused, as far as it is known beforehand."""
        if is_internal(topic):
            raise ProtocolError(ErrorCode.FORBIDDEN, f"topic {topic!r} is internal")
        self.check_partition(topic, partition)
        most_bytes = self.largest_batch_of(topic) - BATCH_OVERHEAD_BYTES - RECORD_OVERHEAD_BYTES
        if size_bytes > most_bytes:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"{size_bytes} bytes; topic {topic!r} accepts messages of up to {most_bytes}",
            )

    def largest_batch_of(self, topic: str) -> int:
        """Return the limit of the topic's partitions for a batch, in bytes."""
        return self._network.topics.largest_batch_bytes(topic) or self._batch_bytes

    def choose_partition(self, topic: str) -> int:
        """Take turns among the partitions that are online and accept messages, among all when none is."""
        partitions = self.partitions_of(topic)
        if partitions == 1:
            return 0
        turn = self._turns.get(topic)
        if turn is None:
            turn = random.randrange(partitions)
        self._turns[topic] = turn + 1
        now = self._network.now_ms()
        for step in range(partitions):
            chosen = (turn + step) % partitions
            is_online = self._network.topics.is_online(topic, chosen, now)
            if is_online and TopicPartition(topic, chosen) not in self._held:
                return chosen
        return turn % partitions
