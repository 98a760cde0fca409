"""A consumer's queries about offsets: of its group, and of the logs it reads. Waits for the broker."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeVar

from ..addresses import TopicPartition
from ..protocol.data import Isolation, ListOffsets, ListOffsetsReply
from ..protocol.errors import PlanariaError
from ..protocol.groups import FetchOffsets, FetchOffsetsReply, PartitionOffset
from ..protocol.message import Reply, Request, TopicPartitions
from .admin import by_partition
from .asking import GATEWAY, partition_address
from .network import Network
from .options import InvalidOption, as_partition, as_partitions
from .schedule import milliseconds_at

ReplyT = TypeVar("ReplyT", bound=Reply)


class OffsetQueries:
    """The part of a consumer that reads offsets and changes nothing."""

    def __init__(
        self, network: Network, group: str | None, isolation: Isolation, request_timeout_ms: int
    ) -> None:
        self._network = network
        self._group = group
        self._isolation: Isolation = isolation
        self._request_timeout_ms = request_timeout_ms

    def committed(self, partitions: Sequence[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """Return the group's committed offsets, of these partitions or of all. Partitions without one are
        left out."""
        return by_partition(self.committed_with_metadata(partitions))

    def committed_with_metadata(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> list[PartitionOffset]:
        """Like `committed`, with metadata. Waits for transactions that are about to commit these offsets."""
        if self._group is None:
            raise PlanariaError("a consumer without a group has no committed offsets")
        wanted: TopicPartitions | None = None if partitions is None else {}
        for topic, partition in as_partitions("partitions", partitions or ()):
            assert wanted is not None
            wanted.setdefault(topic, []).append(partition)
        request = FetchOffsets(group=self._group, partitions=wanted)
        return self._call(GATEWAY, request, FetchOffsetsReply).offsets

    def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, datetime | int]
    ) -> dict[TopicPartition, int]:
        """Return the first offset at or after a time, by partition; -1 if no readable message is that recent.

        A time is a datetime, local without a zone, or milliseconds since the epoch. Raises UnknownTopic, TimedOut.
        """
        if not isinstance(times_ms, Mapping):
            raise InvalidOption(f"times_ms: must be a dict by (topic, partition), not {times_ms!r}")
        wanted = {as_partition("times_ms", tp): milliseconds_at(at) for tp, at in times_ms.items()}
        return {tp: self._offset_at(tp, at) for tp, at in wanted.items()}

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the start of each log: earlier records were deleted."""
        return {tp: self._offset_at(tp, "earliest") for tp in as_partitions("partitions", partitions)}

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the end of each log for this consumer: before the first open transaction with `isolation`
        "read_committed"."""
        return {tp: self._offset_at(tp, "latest") for tp in as_partitions("partitions", partitions)}

    def _offset_at(self, tp: TopicPartition, at: int | Literal["earliest", "latest"]) -> int:
        topic, partition = tp
        request = ListOffsets(topic=topic, partition=partition, at=at, isolation=self._isolation)
        return self._call(partition_address(topic, partition), request, ListOffsetsReply).offset

    def _call(self, address: str, request: Request, reply_type: type[ReplyT]) -> ReplyT:
        timeout_ms = self._request_timeout_ms
        return self._network.call(address, request, reply_type, timeout_ms=timeout_ms, asker=self)

    def _refuse_when_closed(self) -> None:
        raise NotImplementedError
