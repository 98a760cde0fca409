"""The topics of which a consumer without a group reads every partition, also those that are added while it reads. Pure.

A topic that grows sends no mail, so a poll looks at the directory again after GROWTH_CHECK_S. Called by the consumer.
"""

from collections.abc import Callable, Iterable, Sequence

from ..addresses import TopicPartition

GROWTH_CHECK_S = 0.5


class GrowingTopics:
    def __init__(self, topics: Iterable[str]) -> None:
        self._counts = dict.fromkeys(topics, 0)
        """The number of partitions seen last, by topic."""

    @property
    def topics(self) -> list[str]:
        return list(self._counts)

    @property
    def is_followed(self) -> bool:
        return bool(self._counts)

    def partitions(self, count_of: Callable[[str], int]) -> list[TopicPartition]:
        """Return the present partitions, by the partition count of each topic."""
        return [
            TopicPartition(topic, partition) for topic in self._counts for partition in range(count_of(topic))
        ]

    def added(
        self,
        count_of: Callable[[str], int | None],
        owned: Sequence[TopicPartition] | frozenset[TopicPartition],
    ) -> set[TopicPartition]:
        """Return the partitions that were added since the last call, by the counts known now."""
        found: set[TopicPartition] = set()
        for topic, known in self._counts.items():
            count = count_of(topic) or 0
            if count > known:
                self._counts[topic] = count
                found |= {TopicPartition(topic, number) for number in range(known, count)}
        return found.difference(owned)

    def longest_wait_s(self, left_s: float | None) -> float | None:
        """Return how long a poll with `left_s` seconds left may wait for mail."""
        if not self._counts:
            return left_s
        return GROWTH_CHECK_S if left_s is None else min(left_s, GROWTH_CHECK_S)
