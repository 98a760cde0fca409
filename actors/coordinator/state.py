"""A group's state: a pure function of its records.

Owns members, offsets, generation and the index of holders; changes by `apply` alone. The coordinator keeps two: the
decided one, which is ahead, and the durable one, from which requests are answered. Applying a record that grants a
partition to two members raises: a coordinator with such a decision must not continue.
"""

from ...transport.addresses import TopicPartition
from ...transport.protocol.groups import GroupStateName
from ...transport.protocol.transactions import TransactionId
from ..journal.identity import NO_START, Start
from .members import Member
from .offsets import CommittedOffset
from .pending_offsets import Fence, PendingOffsets, PendingTransactionOffsets
from .records import (
    Change,
    FenceKey,
    GroupKey,
    GroupProgress,
    KnownTopic,
    MemberKey,
    OffsetKey,
    Pause,
    PauseKey,
    PendingKey,
    Resets,
    ResetsKey,
    ShareGroupKey,
    ShareKey,
    StartKey,
    TopicKey,
    Unused,
    UnusedKey,
)
from .share.records import ShareProgress, ShareSettings

NO_RESETS = Resets(0, 0)


class TwoHolders(AssertionError):
    """A partition was about to have two holders."""


class GroupState:
    def __init__(self, group: str) -> None:
        self.group = group
        self.start = Start(NO_START, "")
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.topic_ids: dict[str, str] = {}
        """The topic id of the offsets and grants of a name. Empty: no such topic when the group subscribed."""
        self.partition_counts: dict[str, int] = {}
        """Number of partitions of the topic the group knows."""
        self.offsets: dict[TopicPartition, CommittedOffset] = {}
        self.pending = PendingTransactionOffsets()
        self.resets = NO_RESETS
        self.unused_since_ms: int | None = None
        """Time since which the offsets are unused; None while they are used, and where they are kept forever."""
        self.pause: Pause | None = None
        self.holders: dict[TopicPartition, str] = {}
        """The member that was granted each partition and has not released it."""
        self.share_settings: ShareSettings | None = None
        """Settings of a share group, which has neither members nor offsets."""
        self.shares: dict[TopicPartition, ShareProgress] = {}

    def shown_as(self, name: GroupStateName, *, is_held: bool) -> GroupStateName:
        """Return the state that operators see: `name`, unless the group is paused. `is_held`: members hold records."""
        if self.pause is None:
            return name
        return "pausing" if self.holders or is_held else "paused"

    def apply(self, change: Change) -> None:
        key, value = change.key, change.value
        # The two of the hot paths come first: commits and verdicts.
        if isinstance(key, OffsetKey):
            assert value is None or isinstance(value, CommittedOffset)
            self._apply_offset(TopicPartition(key.topic, key.partition), value)
        elif isinstance(key, ShareKey):
            assert value is None or isinstance(value, ShareProgress)
            self._apply_share(TopicPartition(key.topic, key.partition), value)
        elif isinstance(key, MemberKey):
            assert value is None or isinstance(value, Member)
            self._apply_member(key.member_id, value)
        elif isinstance(key, TopicKey):
            assert value is None or isinstance(value, KnownTopic)
            self._apply_topic(key.topic, value)
        elif isinstance(key, PendingKey):
            assert value is None or isinstance(value, PendingOffsets)
            self._apply_pending(TransactionId(key.producer_id, key.producer_epoch), value)
        elif isinstance(key, FenceKey):
            assert value is None or isinstance(value, Fence)
            self._apply_fence(key.producer_id, value)
        elif isinstance(key, GroupKey):
            assert value is None or isinstance(value, GroupProgress)
            self.generation = value.generation if value else 0
        elif isinstance(key, ResetsKey):
            assert isinstance(value, Resets)
            self.resets = value
        elif isinstance(key, UnusedKey):
            assert value is None or isinstance(value, Unused)
            self.unused_since_ms = value.since_ms if value else None
        elif isinstance(key, PauseKey):
            assert value is None or isinstance(value, Pause)
            self.pause = value
        elif isinstance(key, ShareGroupKey):
            assert value is None or isinstance(value, ShareSettings)
            self.share_settings = value
        else:
            assert isinstance(value, Start)
            self.start = value

    def changes(self) -> list[Change]:
        """Return the shortest list of changes that builds this state."""
        found = [Change(StartKey(self.group), self.start)] if self.start.epoch != NO_START else []
        if self.resets != NO_RESETS:
            found.append(Change(ResetsKey(self.group), self.resets))
        if self.generation:
            found.append(Change(GroupKey(self.group), GroupProgress(self.generation)))
        found += [Change(MemberKey(self.group, name), member) for name, member in self.members.items()]
        found += [
            Change(TopicKey(self.group, name), KnownTopic(known, self.partition_counts[name]))
            for name, known in self.topic_ids.items()
        ]
        found += [Change(OffsetKey(self.group, *tp), offset) for tp, offset in self.offsets.items()]
        found += [Change(PendingKey(self.group, *key), offsets) for key, offsets in self.pending.open.items()]
        found += [
            Change(FenceKey(self.group, producer_id), fence)
            for producer_id, fence in self.pending.fences.items()
        ]
        if self.unused_since_ms is not None:
            found.append(Change(UnusedKey(self.group), Unused(self.unused_since_ms)))
        if self.pause is not None:
            found.append(Change(PauseKey(self.group), self.pause))
        if self.share_settings is not None:
            found.append(Change(ShareGroupKey(self.group), self.share_settings))
        found += [Change(ShareKey(self.group, *tp), each) for tp, each in self.shares.items()]
        return found

    def instance(self, instance_id: str) -> Member | None:
        """Return the static member that runs under this instance id."""
        return next((member for member in self.members.values() if member.instance_id == instance_id), None)

    def reset_epoch(self, tp: TopicPartition) -> int:
        """Return the partition's reset epoch, which changes with every reset, and when the group is deleted."""
        committed = self.offsets.get(tp)
        return committed.reset_epoch if committed is not None else self.resets.floor

    def is_replaced(self, member_id: str) -> bool:
        """Return True if this was a static member's earlier process."""
        return any(member.replaced == member_id for member in self.members.values())

    @property
    def is_blank(self) -> bool:
        """True if only records that outlive a deletion exist: the group is new, or deleted."""
        is_fencing = self.pending.open or self.pending.fences
        is_used = self.generation or self.members or self.offsets or self.topic_ids
        return not (is_used or is_fencing or self.share_settings or self.pause)

    @property
    def is_settled(self) -> bool:
        """True if every member holds exactly its target."""
        return all(member.is_settled for member in self.members.values())

    def _apply_topic(self, topic: str, value: KnownTopic | None) -> None:
        if value is None:
            self.topic_ids.pop(topic, None)
            self.partition_counts.pop(topic, None)
        else:
            self.topic_ids[topic] = value.topic_id
            self.partition_counts[topic] = value.partitions

    def _apply_share(self, tp: TopicPartition, value: ShareProgress | None) -> None:
        if value is None:
            self.shares.pop(tp, None)
        else:
            self.shares[tp] = value

    def _apply_offset(self, tp: TopicPartition, value: CommittedOffset | None) -> None:
        if value is None:
            self.offsets.pop(tp, None)
        else:
            self.offsets[tp] = value

    def _apply_pending(self, key: TransactionId, value: PendingOffsets | None) -> None:
        if value is None:
            self.pending.open.pop(key, None)
        else:
            self.pending.open[key] = value

    def _apply_fence(self, producer_id: int, value: Fence | None) -> None:
        if value is None:
            self.pending.fences.pop(producer_id, None)
        else:
            self.pending.fences[producer_id] = value

    def _apply_member(self, member_id: str, member: Member | None) -> None:
        before = self.members.pop(member_id, None)
        if before is not None:
            for item in before.held:
                del self.holders[item]
        if member is None:
            return
        self.members[member_id] = member
        for item in member.held:
            other = self.holders.setdefault(item, member_id)
            if other != member_id:
                raise TwoHolders(f"{item} is held by {other} and given to {member_id}")
