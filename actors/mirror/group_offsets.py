"""The groups' offsets: those of the source, set here as they are, and never beyond the end of the copy. Pure.

    state        left by
    idle         GroupsTimer -> listing
    listing      the source's groups -> describing the first that is chosen; an error -> idle
    describing   its offsets -> committing, or the next group; an error -> the next group
    committing   its coordinator exists, and takes the offsets -> the next group; after the last -> idle

One request at a time. A group with members here is left alone: it has begun to consume on this side. Share groups have a
state that is not copied; they are named in the report. Called by the mirror's machine.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from msgspec import UNSET
from msgspec.structs import replace

from ...transport.addresses import CONTROLLER, TopicPartition, coordinator_address
from ...transport.machine import Call, SetTimer
from ...transport.protocol.control import EnsureGroup
from ...transport.protocol.errors import ErrorBody
from ...transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    DescribeGroup,
    DescribeGroupReply,
    ListGroups,
    ListGroupsReply,
    PartitionOffset,
)
from ...transport.protocol.message import Done
from .effects import AskSource, Effect
from .keys import CommitKey, EnsureKey, GroupKey, GroupsKey, GroupsTimer

INTERVAL_MS = 1_000
TIMEOUT_MS = 5_000


class GroupOffsets:
    def __init__(
        self, patterns: Sequence[str], end_of: Callable[[TopicPartition], tuple[str, int] | None]
    ) -> None:
        """`end_of` returns the topic id and the end of a partition that is copied."""
        self._patterns = patterns
        self._end_of = end_of
        self._queue: list[str] = []
        self._pending: list[PartitionOffset] = []
        self._set: dict[str, dict[TopicPartition, PartitionOffset]] = {}
        """The offsets that were set here, by group."""
        self.not_copied: dict[str, str] = {}
        """Groups whose state is not copied, with the reason."""

    @property
    def copied(self) -> list[str]:
        return sorted(self._set)

    def start(self) -> list[Effect]:
        return [AskSource(GroupsKey(), ListGroups(), ListGroupsReply, TIMEOUT_MS)]

    def pause(self, now: int) -> list[Effect]:
        return [SetTimer(GroupsTimer(), now + INTERVAL_MS)]

    def on_groups(self, reply: ListGroupsReply, now: int) -> list[Effect]:
        self._queue = [
            group for group in reply.groups if any(fnmatchcase(group, each) for each in self._patterns)
        ]
        self.not_copied = {
            group: reason for group, reason in self.not_copied.items() if group in set(self._queue)
        }
        return self.next(now)

    def next(self, now: int) -> list[Effect]:
        if not self._queue:
            return self.pause(now)
        group = self._queue.pop()
        return [AskSource(GroupKey(group), DescribeGroup(group=group), DescribeGroupReply, TIMEOUT_MS)]

    def on_group(self, reply: DescribeGroupReply, now: int) -> list[Effect]:
        if reply.type != "consumer":
            self.not_copied[reply.group] = "a share group: which records were done is not copied"
            return self.next(now)
        known = self._set.get(reply.group, {})
        self._pending = []
        for each in reply.offsets:
            clipped = self._clipped(each)
            if clipped is not None and known.get(TopicPartition(each.topic, each.partition)) != clipped:
                self._pending.append(clipped)
        if not self._pending:
            return self.next(now)
        ensure = EnsureGroup(group=reply.group, create=True)
        return [Call(EnsureKey(reply.group), CONTROLLER, ensure, Done, timeout_ms=TIMEOUT_MS)]

    def _clipped(self, offset: PartitionOffset) -> PartitionOffset | None:
        """Return the offset to set here; None if the partition is not copied, or is another topic's."""
        found = self._end_of(TopicPartition(offset.topic, offset.partition))
        if found is None or offset.topic_id not in (UNSET, found[0]):
            return None
        topic_id, end_offset = found
        # Resets are counted on each side by itself.
        return replace(offset, offset=min(offset.offset, end_offset), topic_id=topic_id, reset_epoch=UNSET)

    def on_ensured(self, group: str) -> list[Effect]:
        request = CommitOffsets(group=group, offsets=self._pending)
        address = coordinator_address(group)
        return [
            Call(
                CommitKey(group), address, request, CommitOffsetsReply, timeout_ms=TIMEOUT_MS, is_retried=True
            )
        ]

    def on_committed(self, group: str, now: int) -> list[Effect]:
        known = self._set.setdefault(group, {})
        known |= {TopicPartition(each.topic, each.partition): each for each in self._pending}
        self.not_copied.pop(group, None)
        return self.next(now)

    def on_not_committed(self, group: str, error: ErrorBody, now: int) -> list[Effect]:
        self.not_copied[group] = f"{error.code}: {error.message}"
        return self.next(now)
