"""Offsets that wait for the end of a transaction, and which producers' epochs are over. Pure; part of a group's state.

A commit within a transaction is judged like any other when it comes, and takes effect when the transaction commits. The
commit that came later counts, whichever takes effect first, as in Kafka; so what waits is newer than what is committed,
and goes when something still newer takes effect. An ended epoch is fenced: a commit that comes late for it would wait
until its coordinator has been asked, and might be applied a second time. After FENCE_MS it would not: that coordinator
has forgotten by then how the transaction ended, or has ended others since, and answers with an abort.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from ...transport.addresses import TopicPartition
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ...transport.protocol.transactions import ID_EXPIRY_MS, TransactionId

FENCE_MS = ID_EXPIRY_MS + 24 * 3600 * 1000
"""How long an ended epoch is fenced."""


class PendingOffset(PartitionOffset, frozen=True):
    order: int = 0
    """Higher than that of every commit before it that still waits."""

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class PendingOffsets(Struct, frozen=True):
    """What a transaction moves when it commits."""

    offsets: tuple[PendingOffset, ...]

    def with_more(self, offsets: Iterable[PartitionOffset], order: int) -> "PendingOffsets":
        """The newest of each partition holds."""
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
        """Without what came before these commits took effect or came themselves."""
        return PendingOffsets(tuple(item for item in self.offsets if item.order >= orders.get(item.tp, 0)))


class Fence(Struct, frozen=True):
    """Transactions of a producer up to this epoch are over."""

    epoch: int
    ended_ms: int = 0


class PendingTransactionOffsets(Struct):
    open: dict[TransactionId, PendingOffsets] = field(default_factory=dict)
    fences: dict[int, Fence] = field(default_factory=dict)
    """By producer id."""

    def check(self, key: TransactionId) -> None:
        """Raises ProtocolError when the transaction is over."""
        if self.has_ended(key):
            message = f"the transaction of epoch {key.producer_epoch} is over"
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, message)

    def has_ended(self, key: TransactionId) -> bool:
        fence = self.fences.get(key.producer_id)
        return fence is not None and key.producer_epoch <= fence.epoch

    def spent_fences(self, now: int) -> list[int]:
        """Producers whose fence keeps nothing out any more."""
        return [name for name, fence in self.fences.items() if fence.ended_ms + FENCE_MS <= now]

    @property
    def next_order(self) -> int:
        return 1 + max((item.order for pending in self.open.values() for item in pending.offsets), default=0)

    def topics(self) -> set[str]:
        """Those with offsets that some transaction is about to move."""
        return {item.topic for pending in self.open.values() for item in pending.offsets}

    def is_touching(self, tps: Iterable[TopicPartition] | None) -> bool:
        """Whether some transaction is about to move one of these; None: any."""
        if not self.open:
            return False
        moved = {item.tp for pending in self.open.values() for item in pending.offsets}
        return bool(moved) if tps is None else not moved.isdisjoint(tps)
