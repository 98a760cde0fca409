"""Administrative calls about consumer groups and share groups. Part of Client and Broker."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from ..addresses import TopicPartition
from ..durations import in_milliseconds
from ..keywords import Milliseconds
from ..protocol.groups import (
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    FetchOffsets,
    FetchOffsetsReply,
    ListGroups,
    ListGroupsReply,
    PartitionOffset,
    PauseGroup,
    ResetOffsets,
    ResumeGroup,
)
from ..protocol.message import Done
from ..protocol.shares import Coalesce, ConfigureShareGroup, ConfigureShareGroupReply, Expired
from .commits import GivenOffsets, as_offsets
from .descriptions import GroupDescription, ShareGroupSettings, described
from .errors import UnknownTopic
from .topic_admin import TopicAdmin


class GroupAdmin(TopicAdmin):
    """Describe groups, compute their lag, set their offsets, delete them."""

    def list_groups(self) -> list[str]:
        """Return the names of all consumer groups and share groups.

            for group in client.list_groups():
                print(group, client.describe_group(group).state)

        Raises TimedOut.
        """
        return self._ask(ListGroups(), ListGroupsReply).groups

    def describe_group(self, group: str) -> GroupDescription:
        """Return a group's type, state, members and committed offsets.

            for member in client.describe_group("billing").members:
                print(member.member_id, member.assignment)

        Raises UnknownGroup, TimedOut.
        """
        return described(GroupDescription, self._ask(DescribeGroup(group=group), DescribeGroupReply))

    def configure_share_group(
        self,
        group: str,
        *,
        lock_ms: Milliseconds | None = None,
        max_deliveries: int | None = None,
        dead_letter: str | None = None,
        start: Literal["earliest", "latest"] | None = None,
        fair: bool | None = None,
        max_in_flight_per_key: int | None = None,
        rate_per_key: float | None = None,
        weights: Mapping[str, int] | None = None,
        coalesce: Coalesce | None = None,
        max_wait_ms: Milliseconds | None = None,
        expired: Expired | None = None,
    ) -> ShareGroupSettings:
        """Create a share group, or change one, and return its settings. None keeps a setting.

            client.configure_share_group("resize", max_deliveries=3, dead_letter="IMAGES.dead")

        `lock_ms`: milliseconds, or a timedelta, that a message stays locked, 100 to 3,600,000. `max_deliveries`:
        deliveries after which a failed message is dead. `dead_letter`: topic for dead messages; empty: they are parked.
        `start`: where a new partition is read from. The others deliver by key (docs/delivery.md,
        Fairness by key). Raises UnknownTopic, ProtocolError with INVALID_GROUP for a
        consumer group, TimedOut.
        """
        request = ConfigureShareGroup(
            group=group,
            max_deliveries=max_deliveries,
            dead_letter=dead_letter,
            start=start,
            fair=fair,
            max_in_flight_per_key=max_in_flight_per_key,
            rate_per_key=rate_per_key,
            weights=None if weights is None else dict(weights),
            coalesce=coalesce,
            expired=expired,
            **in_milliseconds({"lock_ms": lock_ms, "max_wait_ms": max_wait_ms}),
        )
        return described(ShareGroupSettings, self._ask(request, ConfigureShareGroupReply))

    def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a consumer group by topic and partition; empty for an unknown group.

            done = sum(client.group_offsets("billing").values())

        Raises TimedOut.
        """
        return by_partition(
            self._ask(FetchOffsets(group=group, require_stable=False), FetchOffsetsReply).offsets
        )

    def group_lag(self, group: str) -> dict[TopicPartition, int | None]:
        """Return the number of offsets between each committed offset of a consumer group and the end of its partition.

            behind = sum(lag or 0 for lag in client.group_lag("billing").values())

        Offsets that transactions and compaction left without a message count, too. None: the partition is offline or
        was deleted. Raises UnknownGroup, TimedOut.
        """
        committed = {each.topic_partition: each.offset for each in self.describe_group(group).offsets}
        ends: dict[TopicPartition, tuple[int, int]] = {}
        for topic in sorted({tp.topic for tp in committed}):
            with suppress(UnknownTopic):
                for each in self.describe_topic(topic).partitions:
                    if each.log_start_offset is not None and each.high_watermark is not None:
                        tp = TopicPartition(topic, each.partition)
                        ends[tp] = (each.log_start_offset, each.high_watermark)
        return {
            tp: max(0, ends[tp][1] - max(offset, ends[tp][0])) if tp in ends else None
            for tp, offset in committed.items()
        }

    def reset_offsets(self, group: str, offsets: GivenOffsets) -> None:
        """Set committed offsets of a consumer group by topic and partition.

            client.reset_offsets("billing", {("ORDERS", 0): 1_500})

        Raises GroupNotEmpty while the group has members, or, while it is paused, until they hold no partition;
        UnknownTopic or ProtocolError with UNKNOWN_PARTITION for a
        partition that does not exist, TimedOut; then no offset is set.
        """
        self._ask(ResetOffsets(group=group, offsets=as_offsets(offsets)), Done)

    def pause_group(self, group: str, *, reason: str = "", for_ms: Milliseconds | None = None) -> None:
        """Pause a group: its members stay, and receive nothing until it is resumed.

            client.pause_group("billing", reason="the bank is down", for_ms=3_600_000)

        Members of a consumer group give up their partitions; records that members of a share group hold are not
        taken from them. `for_ms`: milliseconds after which the group is resumed, 1 to 366 days; None: by
        `resume_group` alone. A second pause replaces the first one's reason and end. The pause outlives restarts of
        the broker. Raises UnknownGroup, TimedOut.
        """
        options = in_milliseconds({"for_ms": for_ms})
        self._ask(PauseGroup(group=group, reason=reason, **options), Done)

    def resume_group(self, group: str) -> None:
        """End the pause of a group. Does nothing if it is not paused.

            client.resume_group("billing")

        Raises UnknownGroup, TimedOut.
        """
        self._ask(ResumeGroup(group=group), Done)

    def delete_group(self, group: str) -> None:
        """Delete a group without members, and its offsets.

            client.delete_group("billing")

        Raises UnknownGroup, GroupNotEmpty, TimedOut.
        """
        self._ask(DeleteGroup(group=group), Done)


def by_partition(offsets: Sequence[PartitionOffset]) -> dict[TopicPartition, int]:
    return {TopicPartition(item.topic, item.partition): item.offset for item in offsets}
