"""Offsets pending in transactions, and the fenced epochs of producers. Pure; part of a group's state.

A commit within a transaction is validated like any other when it arrives, and takes effect when the transaction
commits. The commit that arrived later counts, whichever takes effect first, as in Kafka; so pending offsets are newer
than the committed ones, and are dropped when still newer ones take effect. An ended epoch is fenced: a commit that
arrives late for it would wait until its coordinator has been asked, and might be applied a second time. After FENCE_MS
it would not: that coordinator has forgotten by then how the transaction ended, or has ended others since, and answers
with an abort.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ...transport.protocol.transactions import ID_EXPIRY_MS, TransactionId

FENCE_MS = ID_EXPIRY_MS + 24 * 3600 * 1000
"""Time for which an ended epoch is fenced."""


class PendingOffset(PartitionOffset, frozen=True):
    order: int = 0
    """Higher than the order of every earlier commit that is still pending."""

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class PendingOffsets(Struct, frozen=True):
    """The offsets a transaction moves when it commits."""

    offsets: tuple[PendingOffset, ...]

    def with_more(self, offsets: Iterable[PartitionOffset], order: int) -> "PendingOffsets":
        """Add offsets; the newest of each partition replaces earlier ones."""
        more = [
            PendingOffset(
                item.topic,
                item.partition,
                item.offset,
                item.metadata,
                leader_epoch=item.leader_epoch,
                order=order,
            )
            for item in offsets
        ]
        latest = {item.tp: item for item in (*self.offsets, *more)}
        return PendingOffsets(tuple(latest.values()))

    def without(self, topic: str) -> "PendingOffsets":
        return PendingOffsets(tuple(item for item in self.offsets if item.topic != topic))

    def outdated(self, orders: Mapping[TopicPartition, int]) -> "PendingOffsets":
        """Drop the offsets that precede these commits, which have taken effect or arrived."""
        return PendingOffsets(tuple(item for item in self.offsets if item.order >= orders.get(item.tp, 0)))


class Fence(Struct, frozen=True):
    """Transactions of a producer up to this epoch have ended."""

    epoch: int
    ended_ms: int = 0


class PendingTransactionOffsets(Struct):
    open: dict[TransactionId, PendingOffsets] = field(default_factory=dict)
    fences: dict[int, Fence] = field(default_factory=dict)
    """By producer id."""

    def check(self, key: TransactionId) -> None:
        """Raise ProtocolError if the transaction has ended."""
        if self.has_ended(key):
            message = f"the transaction of epoch {key.producer_epoch} is over"
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, message)

    def has_ended(self, key: TransactionId) -> bool:
        fence = self.fences.get(key.producer_id)
        return fence is not None and key.producer_epoch <= fence.epoch

    def bound_fences(self, now: int) -> None:
        """Limit all times to `now`: if the clock was ahead before the machine booted, no fence would ever expire."""
        for producer_id, fence in self.fences.items():
            if fence.ended_ms > now:
                self.fences[producer_id] = Fence(fence.epoch, now)

    def spent_fences(self, now: int) -> list[int]:
        """Return the producers whose fence has expired."""
        return [name for name, fence in self.fences.items() if fence.ended_ms + FENCE_MS <= now]

    @property
    def next_order(self) -> int:
        return 1 + max((item.order for pending in self.open.values() for item in pending.offsets), default=0)

    def topics(self) -> set[str]:
        """Return the topics with pending offsets."""
        return {item.topic for pending in self.open.values() for item in pending.offsets}

    def is_touching(self, tps: Iterable[TopicPartition] | None) -> bool:
        """Return True if an open transaction would move one of these; None: any."""
        if not self.open:
            return False
        moved = {item.tp for pending in self.open.values() for item in pending.offsets}
        return bool(moved) if tps is None else not moved.isdisjoint(tps)
