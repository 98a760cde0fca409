"""A consumer's queries about offsets: of its group, and of the logs it reads. Waits for the broker."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, TypeVar

from ..addresses import Address, TopicPartition, coordinator_address, partition_address
from ..protocol.data import Isolation, ListOffsets, ListOffsetsReply
from ..protocol.errors import PlanariaError
from ..protocol.groups import FetchOffsets, FetchOffsetsReply, PartitionOffset
from ..protocol.message import Reply, Request, by_topic
from .commits import Partition
from .group_admin import by_partition
from .network import Network
from .options import InvalidOption, as_partition, as_partitions
from .schedule import milliseconds_at

ReplyT = TypeVar("ReplyT", bound=Reply)


class OffsetQueries:
    """The part of a consumer that asks the broker for offsets."""

    def __init__(
        self, network: Network, group: str | None, isolation: Isolation, request_timeout_ms: int
    ) -> None:
        self._network = network
        self._group = group
        self._isolation: Isolation = isolation
        self._request_timeout_ms = request_timeout_ms

    def committed(self, partitions: Iterable[Partition] | None = None) -> dict[TopicPartition, int]:
        """Return the group's committed offsets, of these partitions or of all (None), by topic and partition.

        Partitions without one are left out. Waits for transactions that are about to commit these offsets. Raises
        PlanariaError without a group, TimedOut.
        """
        return by_partition(self._committed_offsets(partitions))

    def committed_metadata(self, partitions: Iterable[Partition] | None = None) -> dict[TopicPartition, str]:
        """Return the text that was stored with each committed offset, "" for none. Otherwise like `committed`."""
        found = self._committed_offsets(partitions)
        return {TopicPartition(item.topic, item.partition): item.metadata for item in found}

    def _committed_offsets(self, partitions: Iterable[Partition] | None = None) -> list[PartitionOffset]:
        if self._group is None:
            raise PlanariaError("a consumer without a group has no committed offsets")
        request = committed_offsets_of(self._group, partitions)
        return self._call(coordinator_address(self._group), request, FetchOffsetsReply).offsets

    def offsets_for_times(
        self, times: Mapping[TopicPartition, datetime | int] | Mapping[tuple[str, int], datetime | int]
    ) -> dict[TopicPartition, int]:
        """Return the first offset at or after a time, by partition; -1 if no readable message is that recent.

        A time is a datetime, local without a zone, or milliseconds since the epoch. Raises UnknownTopic, TimedOut.
        """
        if not isinstance(times, Mapping):
            raise InvalidOption(f"times: must be a dict by (topic, partition), not {times!r}")
        wanted = {as_partition("times", tp): milliseconds_at(at) for tp, at in times.items()}
        return {tp: self._offset_at(tp, at) for tp, at in wanted.items()}

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """Return the start of each log: earlier records were deleted. Raises UnknownTopic, TimedOut."""
        return {tp: self._offset_at(tp, "earliest") for tp in as_partitions("partitions", partitions)}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """Return the end of each log for this consumer: the offset of the next record, by partition.

        With `isolation` "read_committed" it is not beyond the first open transaction. Raises UnknownTopic, TimedOut.
        """
        return {tp: self._offset_at(tp, "latest") for tp in as_partitions("partitions", partitions)}

    def _offset_at(self, tp: Partition, at: int | Literal["earliest", "latest"]) -> int:
        topic, partition = tp
        request = ListOffsets(topic=topic, partition=partition, at=at, isolation=self._isolation)
        return self._call(partition_address(topic, partition), request, ListOffsetsReply).offset

    def _call(self, address: Address, request: Request, reply_type: type[ReplyT]) -> ReplyT:
        timeout_ms = self._request_timeout_ms
        return self._network.call(address, request, reply_type, timeout_ms=timeout_ms, requester=self)

    def _refuse_when_closed(self) -> None:
        raise NotImplementedError


def committed_offsets_of(group: str, partitions: Iterable[Partition] | None) -> FetchOffsets:
    """Return the request for a group's committed offsets, of these partitions or of all (None)."""
    wanted = None if partitions is None else by_topic(as_partitions("partitions", partitions))
    return FetchOffsets(group=group, partitions=wanted)
