"""Revocations: how partitions are given up, on request or after a loss, and which records are dropped. Pure.

    revoking   the feed waits: records in progress are finished, the rest dropped, then HandOver; forced
               after the session timeout
    lost       the records are dropped
    a stop     records not in progress are dropped, the partitions stay until the group is left
    restart    handled records that cannot be committed are handled again: the rest is dropped, and when no record is in
               progress the partition is dropped and read again from its committed offset

Records that the strategy keeps are never dropped: no other member would handle them. A dropped record that had failed
keeps its attempts: the partition may be assigned again. Called by the machine.
"""

from collections.abc import Sequence

from ...transport.addresses import TopicPartition
from ...transport.machine import CancelTimer, SetTimer
from ...transport.subscription import SubscriberOptions
from .delivery import DeliveryStrategy, key_of
from .effects import WARNING, Effect, HandOver, Record, ResumePartition, Rewind, log_of
from .lanes import Lane
from .partitions import Partition, Partitions
from .recovered_state import Memory
from .runs import Runs
from .timers import RevocationTimeout


class Revocations:
    def __init__(
        self,
        options: SubscriberOptions,
        strategy: DeliveryStrategy,
        partitions: Partitions,
        runs: Runs,
        memory: Memory,
    ) -> None:
        self._timeout_ms = options.session_timeout_ms
        self._strategy = strategy
        self._partitions = partitions
        self._runs = runs
        self._memory = memory
        self._wanted: list[TopicPartition] | None = None
        """Partitions whose revocation the feed waits for."""
        self._restarting: set[TopicPartition] = set()

    def restart(self, keys: Sequence[TopicPartition]) -> None:
        """Read these partitions again from their committed offsets, once none of their records is in progress."""
        for partition in self._partitions.of(keys):
            self._restarting.add(partition.key)
            partition.is_leaving = partition.is_spoiled = True
            self.drop_all(partition)

    def admitted(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records without those of partitions that are to be read again."""
        if not self._restarting:
            return records
        return [record for record in records if key_of(record) not in self._restarting]

    @property
    def can_restart(self) -> bool:
        """True if a partition could be restarted, were no poll in flight."""
        return bool(self._restarting) and any(
            not each.is_busy for each in self._partitions.of(self._restarting)
        )

    def try_restart(self) -> list[Effect]:
        """Restart the partitions that can. Call it while no poll is in flight: the next poll must follow the rewind."""
        ready = [each for each in self._partitions.of(self._restarting) if not each.is_busy]
        self._restarting &= self._partitions.owned.keys()
        self._restarting -= {partition.key for partition in ready}
        self._remove(ready)
        paused = [ResumePartition(partition.key) for partition in ready if partition.is_paused]
        return [*paused, Rewind({each.key: each.committed_offset for each in ready})] if ready else []

    def revoking(self, keys: Sequence[TopicPartition], now: int) -> list[Effect]:
        self._wanted = list(keys)
        for partition in self._partitions.of(keys):
            partition.is_leaving = True
            self.drop_all(partition)
        return [SetTimer(RevocationTimeout(), now + self._timeout_ms), *self.try_hand_over()]

    def try_hand_over(self) -> list[Effect]:
        """Hand over the partitions being revoked, unless one of their records is in progress."""
        if self._wanted is None:
            return []
        is_busy = any(partition.is_busy for partition in self._partitions.of(self._wanted))
        return [] if is_busy and not self._strategy.keeps_held_records else self.hand_over()

    def hand_over(self) -> list[Effect]:
        """Hand over the partitions being revoked, even with records in progress."""
        if self._wanted is None:
            return []
        partitions = self._partitions.of(self._wanted)
        self._wanted = None
        offsets = self._strategy.after_handling(partitions)
        order = HandOver(*self._partitions.with_metadata(offsets))
        self._remove(partitions)
        return [CancelTimer(RevocationTimeout()), order]

    def on_timeout(self) -> list[Effect]:
        """Hand over at the group's timeout."""
        partitions = self._partitions.of(self._wanted or ())
        busy = (lane for partition in partitions for lane in partition.lanes.values() if lane.is_busy)
        warnings = [
            log_of(lane.held[0], WARNING, "partition revoked while its record is in progress")
            for lane in busy
        ]
        return [*warnings, *self.hand_over()]

    def lost(self, keys: Sequence[TopicPartition]) -> None:
        partitions = self._partitions.of(keys)
        for partition in partitions:
            self.drop_all(partition)
        self._remove(partitions)

    def _remove(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            self._runs.clear_suspects(partition.key)
        self._partitions.remove(partitions, is_handled_to_the_end=self._strategy.keeps_held_records)

    def drop_all(self, partition: Partition) -> None:
        for lane in list(partition.lanes.values()):
            self.drop(lane, partition)

    def drop(self, lane: Lane, partition: Partition | None) -> None:
        """Hold only the records in progress, unless no other member would ever handle the rest."""
        if self._strategy.keeps_held_records:
            return
        in_progress = 1 if lane.state == "dead-lettering" else self._runs.with_workers(lane)
        if not in_progress and lane.handed and lane.held:
            # The attempts continue if the partition is assigned again.
            self._memory.remember(lane.as_prior_attempt(self._memory.lineage(lane.key)))
        dropped = lane.keep(in_progress)
        if partition is not None:
            partition.dropped(dropped)
