"""A consumer's partitions and positions, as its machine knows them: the base of the consumer for tasks.

Everything but `seek_to_time`, which asks the broker for offsets first, returns at once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from ..addresses import TopicPartition
from ..client.commits import Partition
from ..client.consuming import Consuming
from ..client.options import as_partition, as_partitions
from ..protocol.errors import PlanariaError
from .admin import AsyncOffsetQueries


class AsyncPositions(AsyncOffsetQueries):
    """The assignment of a consumer, and its positions."""

    _machine: Consuming

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that this consumer owned at the last poll."""
        return [TopicPartition(*tp) for tp in sorted(self._machine.reader.owned)]

    def pause(self, *partitions: Partition) -> None:
        """Return no messages of these partitions until `resume`. They stay assigned."""
        self._set_paused(partitions, True)

    def resume(self, *partitions: Partition) -> None:
        """Return messages of these partitions again, from where reading was paused."""
        self._set_paused(partitions, False)

    def _set_paused(self, partitions: Sequence[Partition], is_paused: bool) -> None:
        self._refuse_when_closed()
        self._machine.set_paused(as_partitions("partitions", partitions), is_paused)
        self._post()

    def paused(self) -> list[TopicPartition]:
        """Return the paused partitions of this consumer."""
        return [TopicPartition(*tp) for tp in sorted(self._machine.reader.paused())]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Continue reading at `offset`. Raises PlanariaError when the partition is not assigned to this consumer."""
        self._refuse_when_closed()
        self._machine.seek(as_partition("partition", (topic, partition)), offset)
        self._post()

    async def seek_to_time(self, time: datetime | int, partitions: Iterable[Partition] | None = None) -> None:
        """Continue at the first message of a time or later, as `Consumer.seek_to_time`."""
        wanted = self.assignment() if partitions is None else as_partitions("partitions", partitions)
        if not wanted:
            raise PlanariaError("no partition is assigned to this consumer; a group assigns them during poll")
        # The ends first: a message that is appended between the two requests is then found by its time.
        ends = await self.end_offsets(wanted)
        for tp, found in (await self.offsets_for_times(dict.fromkeys(ends, time))).items():
            self.seek(*tp, ends[tp] if found < 0 else found)

    def _post(self) -> None:
        raise NotImplementedError

    def _refuse_when_closed(self) -> None:
        raise NotImplementedError
