"""The intake of polled records: those already done are skipped, the rest is held in lanes. Pure.

Owns the start of a partition: the remembered state of its records is applied from there on, or discarded. Called by the
machine.
"""

import itertools
from collections.abc import Mapping, Sequence

from ...transport.addresses import TopicPartition
from ...transport.subscription import SubscriberOptions
from .commits import Commits
from .delivery import DeliveryStrategy, key_of
from .effects import Effect, Forget, PausePartition, Record, RecordsPolled
from .partitions import Partitions
from .progress import NOTHING_AHEAD, Ahead
from .recovered_state import Memory
from .runs import Runs


class Intake:
    def __init__(
        self,
        options: SubscriberOptions,
        strategy: DeliveryStrategy,
        partitions: Partitions,
        runs: Runs,
        memory: Memory,
        commits: Commits,
    ) -> None:
        self._max_records = options.max_records
        self._may_retry = strategy.may_retry
        self._partitions = partitions
        self._runs = runs
        self._memory = memory
        self._commits = commits

    def learn(self, event: RecordsPolled) -> None:
        """Note the lineages of the polled records' partitions, before any of the records is taken."""
        self._memory.learn(event.lineages)
        for key in event.lineages:
            self._runs.clear_void(key, self._memory.lineage(key))

    def take(self, records: Sequence[Record], ahead: Mapping[TopicPartition, Ahead]) -> list[Effect]:
        effects: list[Effect] = []
        for key, group in itertools.groupby(records, key_of):
            polled = list(group)
            if key not in self._partitions.owned and self._may_retry:
                effects += self._begin(key, polled[0].offset, ahead.get(key, NOTHING_AHEAD))
            partition = self._partitions.get(key)
            partition.took(polled)
            fresh, done = self._memory.sort(key, polled)
            self._commits.count(len(done))
            partition.finished(done)
            self._partitions.hold(partition, fresh)
            if not partition.is_paused and partition.is_full(self._max_records):
                partition.is_paused = True
                effects.append(PausePartition(key))
        return effects

    def _begin(self, key: TopicPartition, position: int, ahead: Ahead) -> list[Effect]:
        void = self._memory.take_void(key)
        self._memory.begin(key, position, ahead)
        self._partitions.get(key).inherit(ahead)
        passed = self._memory.take_before(key, position)
        return [Forget(key, each.offset) for each in (*void, *passed)]
