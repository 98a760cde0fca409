"""Offsets that wait for the end of a transaction, and which producers' epochs are over. Pure; part of a group's state.

A commit within a transaction is judged like any other when it comes, and takes effect when the transaction commits. The
commit that came later counts, whichever takes effect first, as in Kafka; so what waits is newer than what is committed,
and goes when something still newer takes effect. An ended epoch is fenced: a commit that comes late for it would wait
for ever.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from ...transport.addresses import Place
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.groups import PartitionOffset
from ..transactions.reports import TransactionId


class PendingOffset(PartitionOffset, frozen=True):
    order: int = 0
    """Higher than that of every commit before it that still waits."""

    @property
    def place(self) -> Place:
        return self.topic, self.partition


class PendingOffsets(Struct, frozen=True):
    """What a transaction moves when it commits."""

    offsets: tuple[PendingOffset, ...]

    def with_more(self, offsets: Iterable[PartitionOffset], order: int) -> "PendingOffsets":
        """The newest of each partition holds."""
        more = [
            PendingOffset(item.topic, item.partition, item.offset, item.metadata, order) for item in offsets
        ]
        latest = {item.place: item for item in (*self.offsets, *more)}
        return PendingOffsets(tuple(latest.values()))

    def without(self, topic: str) -> "PendingOffsets":
        return PendingOffsets(tuple(item for item in self.offsets if item.topic != topic))

    def outdated(self, orders: Mapping[Place, int]) -> "PendingOffsets":
        """Without what came before these commits took effect or came themselves."""
        return PendingOffsets(tuple(item for item in self.offsets if item.order >= orders.get(item.place, 0)))


class Fence(Struct, frozen=True):
    """Transactions of a producer up to this epoch are over."""

    epoch: int


class Pending(Struct):
    open: dict[TransactionId, PendingOffsets] = field(default_factory=dict)
    fences: dict[int, int] = field(default_factory=dict)
    """The last ended epoch by producer id."""

    def check(self, key: TransactionId) -> None:
        """Raises ProtocolError when the transaction is over."""
        if key.producer_epoch <= self.fences.get(key.producer_id, -1):
            message = f"the transaction of epoch {key.producer_epoch} is over"
            raise ProtocolError(ErrorCode.PRODUCER_FENCED, message)

    @property
    def next_order(self) -> int:
        return 1 + max((item.order for pending in self.open.values() for item in pending.offsets), default=0)

    def topics(self) -> set[str]:
        """Those with offsets that some transaction is about to move."""
        return {item.topic for pending in self.open.values() for item in pending.offsets}

    def is_touching(self, places: Iterable[Place] | None) -> bool:
        """Whether some transaction is about to move one of these; None: any."""
        if not self.open:
            return False
        moved = {item.place for pending in self.open.values() for item in pending.offsets}
        return bool(moved) if places is None else not moved.isdisjoint(places)
