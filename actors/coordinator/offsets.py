"""Committed offsets: their stored form, and the fencing of commits.

A commit is accepted when its member belongs to the group, its generation is no later than the group's, and the member
has held every partition it names since that generation or an earlier one: a partition that was revoked and assigned
again is not moved by a commit from before (the assignment epochs of KIP-1251). A commit that names a topic id or a
reset epoch is refused unless they are the current ones. Called by decisions.py.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec import UNSET, Struct, UnsetType

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ...transport.protocol.message import TopicPartitions
from .members import Member, check_name

MAX_METADATA_BYTES = 4_096
MAX_PARTITION = 2**31 - 1


class CommittedOffset(Struct, frozen=True, omit_defaults=True):
    offset: int
    metadata: str = ""
    reset_epoch: int = 0
    """The epoch of the latest reset of this partition's offset; commits leave it unchanged."""
    leader_epoch: int | None = None
    """The leader epoch of the partition from which the offset was read, as given in its commit."""

    @property
    def stamp(self) -> int | UnsetType:
        return UNSET if self.leader_epoch is None else self.leader_epoch


def check_offsets(offsets: Iterable[PartitionOffset]) -> None:
    """Raise ProtocolError if an offset could not be stored."""
    for item in offsets:
        check_name("topic", item.topic)
        if not 0 <= item.partition <= MAX_PARTITION:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"partition: 0 to {MAX_PARTITION} allowed")
        size_bytes = len(item.metadata.encode())
        if size_bytes > MAX_METADATA_BYTES:
            message = f"metadata: {size_bytes} bytes, {MAX_METADATA_BYTES} allowed"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)


def check_holder(member: Member, generation: int, offsets: Iterable[PartitionOffset]) -> None:
    """Raise ProtocolError unless the member has held every partition since `generation` or before."""
    for item in offsets:
        granted = member.held.get(TopicPartition(item.topic, item.partition))
        if granted is None:
            message = f"{member.member_id} does not hold {item.topic}/{item.partition}"
            raise ProtocolError(ErrorCode.NOT_ASSIGNED, message)
        if generation < granted:
            name = f"{item.topic}/{item.partition}"
            message = f"{name} was granted in generation {granted}, the commit is of {generation}"
            raise ProtocolError(ErrorCode.STALE_GENERATION, message)


def check_epochs(
    offsets: Iterable[PartitionOffset],
    topic_id: Callable[[str], str | None],
    reset_epoch: Callable[[TopicPartition], int],
) -> None:
    """Raise ProtocolError if an offset belongs to an earlier topic, or to a time before a reset."""
    for item in offsets:
        known = topic_id(item.topic)
        if item.topic_id is not UNSET and known is not None and item.topic_id != known:
            name = f"{item.topic}/{item.partition}"
            message = f"{name}: the offset is of topic {item.topic_id[:64]}, the group reads {known}"
            raise ProtocolError(ErrorCode.UNKNOWN_TOPIC_ID, message)
        current = reset_epoch(TopicPartition(item.topic, item.partition))
        if item.reset_epoch is not UNSET and item.reset_epoch != current:
            name = f"{item.topic}/{item.partition}"
            message = f"{name}: reset epoch {item.reset_epoch} is not the group's, which is {current}"
            raise ProtocolError(ErrorCode.STALE_GENERATION, message)


def selected(
    offsets: Mapping[TopicPartition, CommittedOffset],
    partitions: TopicPartitions | None,
    floor: int = 0,
) -> list[PartitionOffset]:
    """Return the committed offsets of `partitions`, or all, ascending; with reset epochs other than `floor`."""
    if partitions is None:
        wanted = sorted(offsets)
    else:
        wanted = sorted(
            TopicPartition(topic, number) for topic, numbers in partitions.items() for number in set(numbers)
        )
    return [
        PartitionOffset(
            topic,
            number,
            found.offset,
            found.metadata,
            reset_epoch=UNSET if found.reset_epoch == floor else found.reset_epoch,
            leader_epoch=found.stamp,
        )
        for topic, number in wanted
        if (found := offsets.get(TopicPartition(topic, number))) is not None
    ]
