"""Decisions about a group's offsets: commits, resets, the offsets that transactions move, and their end. Pure.

Owns the order of commits. A refusal is raised as ProtocolError before any change is made. Called by offset_requests.py,
expiry.py and the machine.
"""

from collections.abc import Iterable, Mapping

from msgspec import UNSET

from ...transport.addresses import TopicPartition
from ...transport.producer_ids import coordinator_of
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import CommitOffsets, PartitionOffset
from ...transport.protocol.transactions import TransactionId
from .decided import DecidedGroup
from .offsets import CommittedOffset, check_epochs, check_holder, check_offsets
from .pending_offsets import Fence, PendingOffsets
from .records import (
    Change,
    FenceKey,
    GroupKey,
    OffsetKey,
    PauseKey,
    PendingKey,
    Resets,
    ResetsKey,
    ShareGroupKey,
    ShareKey,
    TopicKey,
    Unused,
    UnusedKey,
)
from .topic_decisions import TopicDecisions

MAX_PENDING = 10_000
"""Most open transactions with offsets of one group."""


class OffsetDecisions:
    def __init__(self, decided: DecidedGroup, topics: TopicDecisions) -> None:
        self._decided = decided
        self._topics = topics
        self._next_order = decided.state.pending.next_order

    def commit(self, request: CommitOffsets) -> None:
        check_offsets(request.offsets)
        if request.member_id is not None:
            check_holder(self._decided.state.members[request.member_id], request.generation, request.offsets)
        elif self._decided.state.members:
            message = (
                f"the group has {len(self._decided.state.members)} members; a commit must name its member"
            )
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)
        self._topics.replace_gone()
        check_epochs(request.offsets, self._topics.topic_id, self._decided.state.reset_epoch)
        if request.producer_id is None and request.producer_epoch is None:
            self._commit_at_once(request.offsets)
            return
        if request.producer_id is None or request.producer_epoch is None:
            message = "producer_id, producer_epoch: a transaction has both, any other commit neither"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        self._postpone(TransactionId(request.producer_id, request.producer_epoch), request.offsets)

    def _postpone(self, key: TransactionId, offsets: list[PartitionOffset]) -> None:
        """Keep the offsets until the transaction commits."""
        if coordinator_of(key.producer_id) is None:
            message = f"producer_id: {key.producer_id} does not belong to a transactional_id"
            raise ProtocolError(ErrorCode.INVALID_TRANSACTION, message)
        self._decided.state.pending.check(key)
        if (
            key not in self._decided.state.pending.open
            and len(self._decided.state.pending.open) >= MAX_PENDING
        ):
            message = f"{MAX_PENDING} open transactions will change offsets of the group"
            raise ProtocolError(ErrorCode.OVERLOADED, message)
        for item in offsets:
            self._topics.note(item.topic)
        pending = self._decided.state.pending.open.get(key, PendingOffsets(()))
        self._decided.record(
            Change(PendingKey(self._decided.state.group, *key), pending.with_more(offsets, self._next_order))
        )
        self._next_order += 1

    def end_transaction(self, key: TransactionId, is_committed: bool, now: int) -> None:
        """Apply or drop a transaction's offsets, and fence late commits of it. Idempotent."""
        self._topics.replace_gone()
        pending = self._decided.state.pending.open.get(key)
        if pending is not None:
            if is_committed:
                self._record_offsets(pending.offsets)
                self._outdate({item.tp: item.order for item in pending.offsets})
            self._decided.record(Change(PendingKey(self._decided.state.group, *key), None))
        if not self._decided.state.pending.has_ended(key):
            fence = Fence(key.producer_epoch, now)
            self._decided.record(Change(FenceKey(self._decided.state.group, key.producer_id), fence))

    def drop_spent_fences(self, now: int) -> None:
        for producer_id in self._decided.state.pending.spent_fences(now):
            self._decided.record(Change(FenceKey(self._decided.state.group, producer_id), None))

    def reset(self, offsets: Iterable[PartitionOffset]) -> None:
        if self._decided.state.pause is None:
            self._check_empty()
        self._check_unheld()
        offsets = list(offsets)
        check_offsets(offsets)
        resets = self._decided.state.resets
        self._decided.record(
            Change(ResetsKey(self._decided.state.group), Resets(resets.count + 1, resets.floor))
        )
        self._topics.replace_gone()
        self._commit_at_once(offsets, resets.count + 1)

    def delete(self) -> None:
        """Delete offsets and generation; start and reset records stay, because epochs must never decrease."""
        self._check_empty()
        if self._decided.state.pending.open:
            message = "an open transaction will change the group's offsets"
            raise ProtocolError(ErrorCode.CONCURRENT_TRANSACTIONS, message)
        count = self._decided.state.resets.count + 1
        self._decided.record(Change(ResetsKey(self._decided.state.group), Resets(count, count)))
        for producer_id in list(self._decided.state.pending.fences):
            self._decided.record(Change(FenceKey(self._decided.state.group, producer_id), None))
        self.expire_offsets()
        self.set_unused_since(None)
        if self._decided.state.pause is not None:
            self._decided.record(Change(PauseKey(self._decided.state.group), None))
        if self._decided.state.generation:
            self._decided.record(Change(GroupKey(self._decided.state.group), None))
        for tp in list(self._decided.state.shares):
            self._decided.record(Change(ShareKey(self._decided.state.group, *tp), None))
        if self._decided.state.share_settings is not None:
            self._decided.record(Change(ShareGroupKey(self._decided.state.group), None))

    def expire_offsets(self) -> None:
        """Delete the offsets, and the record of the topics the group has read."""
        for topic in {topic for topic, _ in self._decided.state.offsets}:
            self._topics.forget_offsets(topic)
        for topic in list(self._decided.state.topic_ids):
            self._decided.record(Change(TopicKey(self._decided.state.group, topic), None))

    def set_unused_since(self, since_ms: int | None) -> None:
        """Record the time since which the offsets are unused."""
        if since_ms != self._decided.state.unused_since_ms:
            unused = None if since_ms is None else Unused(since_ms)
            self._decided.record(Change(UnusedKey(self._decided.state.group), unused))

    def _check_empty(self) -> None:
        if self._decided.state.members:
            message = f"the group is not empty; members: {len(self._decided.state.members)}"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)

    def _check_unheld(self) -> None:
        """Check that no member can commit past the reset: members of a paused group give up their partitions first."""
        if self._decided.state.holders:
            message = f"members still own partitions: {len(self._decided.state.holders)}"
            raise ProtocolError(ErrorCode.GROUP_NOT_EMPTY, message)

    def _record_offsets(self, offsets: Iterable[PartitionOffset], reset_epoch: int | None = None) -> None:
        """Record offsets, after `replace_gone`."""
        for item in offsets:
            self._topics.note(item.topic)
            key = OffsetKey(self._decided.state.group, item.topic, item.partition)
            current = self._decided.state.reset_epoch(TopicPartition(item.topic, item.partition))
            epoch = current if reset_epoch is None else reset_epoch
            leader_epoch = None if item.leader_epoch is UNSET else item.leader_epoch
            self._decided.record(
                Change(key, CommittedOffset(item.offset, item.metadata, epoch, leader_epoch))
            )

    def _commit_at_once(self, offsets: list[PartitionOffset], reset_epoch: int | None = None) -> None:
        self._record_offsets(offsets, reset_epoch)
        if self._decided.state.pending.open:
            self._outdate({TopicPartition(item.topic, item.partition): self._next_order for item in offsets})

    def _outdate(self, orders: Mapping[TopicPartition, int]) -> None:
        """Drop pending offsets older than these, which have taken effect."""
        for key, pending in list(self._decided.state.pending.open.items()):
            remaining = pending.outdated(orders)
            if remaining != pending:
                self._decided.record(Change(PendingKey(self._decided.state.group, *key), remaining))
