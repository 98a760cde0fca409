"""Committed offsets: the form they are kept in, and who may commit what.

Owns the fencing of commits. A commit counts when its member is one of the group, its generation is no later than the
group's, and it holds every partition it names since that generation or an earlier one: a partition that went away
and came back is not moved by a commit from before (the assignment epochs of KIP-1251). Called by decisions.py.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from ...transport.addresses import Place
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ...transport.protocol.message import TopicPartitions
from .members import Member, check_name

MAX_METADATA_BYTES = 4_096
MAX_PARTITION = 2**31 - 1


class CommittedOffset(Struct, frozen=True):
    offset: int
    metadata: str = ""


def check_offsets(offsets: Iterable[PartitionOffset]) -> None:
    """Raises ProtocolError when an offset could not be kept."""
    for item in offsets:
        check_name("topic", item.topic)
        if not 0 <= item.partition <= MAX_PARTITION:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"partition: 0 to {MAX_PARTITION} allowed")
        size_bytes = len(item.metadata.encode())
        if size_bytes > MAX_METADATA_BYTES:
            message = f"metadata: {size_bytes} bytes, {MAX_METADATA_BYTES} allowed"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)


def check_holder(member: Member, generation: int, offsets: Iterable[PartitionOffset]) -> None:
    """Raises ProtocolError unless the member has held every partition since `generation` or before."""
    for item in offsets:
        granted = member.held.get((item.topic, item.partition))
        name = f"{item.topic}/{item.partition}"
        if granted is None:
            raise ProtocolError(ErrorCode.NOT_ASSIGNED, f"{member.member_id} does not hold {name}")
        if generation < granted:
            message = f"{name} was granted in generation {granted}, the commit is of {generation}"
            raise ProtocolError(ErrorCode.STALE_GENERATION, message)


def selected(
    offsets: Mapping[Place, CommittedOffset], partitions: TopicPartitions | None
) -> list[PartitionOffset]:
    """The committed offsets of `partitions`, or all of them, ascending."""
    if partitions is None:
        wanted = sorted(offsets)
    else:
        wanted = sorted((topic, number) for topic, numbers in partitions.items() for number in set(numbers))
    return [
        PartitionOffset(topic, number, offsets[topic, number].offset, offsets[topic, number].metadata)
        for topic, number in wanted
        if (topic, number) in offsets
    ]
