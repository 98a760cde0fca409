"""A consumer's assignment, and pausing of partitions. The part of the consumer for threads that never waits."""

from collections.abc import Sequence

from ..addresses import TopicPartition
from .commits import Partition
from .consuming import Consuming
from .offset_queries import OffsetQueries
from .options import as_partitions


class FlowControl(OffsetQueries):
    """The part of a consumer that pauses and resumes partitions."""

    _machine: Consuming

    def _post(self) -> None:
        raise NotImplementedError

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
        self._network.refuse_when_inherited()
        return [TopicPartition(*tp) for tp in sorted(self._machine.reader.paused())]

    def assignment(self) -> list[TopicPartition]:
        """Return the partitions that this consumer owned at the last poll."""
        self._network.refuse_when_inherited()
        return [TopicPartition(*tp) for tp in sorted(self._machine.reader.owned)]
