"""The transactions of one transactional id, of which one is current, and its legal transitions. Pure.

    Empty            no transaction yet under this epoch
    Ongoing          open, and known to the coordinator
    PrepareCommit    decided: committed; the markers are in flight
    CompleteCommit   every participant has its marker
    PrepareAbort, CompleteAbort     the same for an abort
    Dead             forgotten

`producer_id` and `producer_epoch` name the transaction that is open or will be next. The one before is `ended`: a
repeated end is recognised by it. With Prepare*, `partitions` and `groups` are those of the ended one. (KIP-98's
states; the epoch rises with every end, as in KIP-890.)
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from ...transport.addresses import TopicPartition, is_internal
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import TopicPartitions
from ...transport.protocol.transactions import MAX_PARTICIPANTS, State

Why = Literal["asked", "timeout", "fenced"]

LEGAL_PREDECESSORS: dict[State, tuple[State, ...]] = {
    "Empty": ("Empty", "CompleteCommit", "CompleteAbort"),
    "Ongoing": ("Empty", "Ongoing", "CompleteCommit", "CompleteAbort"),
    "PrepareCommit": ("Ongoing",),
    "PrepareAbort": ("Ongoing",),
    "CompleteCommit": ("PrepareCommit",),
    "CompleteAbort": ("PrepareAbort",),
    "Dead": ("Empty", "CompleteCommit", "CompleteAbort"),
}


class Ended(Struct, frozen=True, array_like=True):
    """A transaction that is over, or an epoch that was skipped to fence its holder."""

    producer_id: int
    producer_epoch: int
    is_committed: bool
    why: Why


class Transaction(Struct, frozen=True, array_like=True):
    state: State
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    changed_ms: int
    started_ms: int | None = None
    partitions: tuple[TopicPartition, ...] = ()
    groups: tuple[str, ...] = ()
    ended: Ended | None = None

    @property
    def is_ending(self) -> bool:
        return self.state in ("PrepareCommit", "PrepareAbort")

    @property
    def deadline_ms(self) -> int | None:
        """Return the time at which an open transaction is aborted."""
        return (
            self.started_ms + self.timeout_ms
            if self.state == "Ongoing" and self.started_ms is not None
            else None
        )

    def moved(self, state: State, now: int, **changes: Any) -> "Transaction":
        """Return the transaction in another state. An illegal transition is a bug, and ends the actor."""
        assert self.state in LEGAL_PREDECESSORS[state], f"{self.state} is not followed by {state}"
        return msgspec.structs.replace(self, state=state, changed_ms=now, **changes)

    def joined(self, partitions: TopicPartitions, groups: list[str], now: int) -> "Transaction":
        """Return the transaction with more participants. Raises ProtocolError for invalid ones."""
        tps, names = {*self.partitions, *topic_partitions_of(partitions)}, {*self.groups, *groups}
        if len(tps) + len(names) > MAX_PARTICIPANTS:
            message = f"partitions, groups: a transaction has at most {MAX_PARTICIPANTS} participants"
            raise ProtocolError(ErrorCode.INVALID_REQUEST, message)
        return self.moved(
            "Ongoing",
            now,
            started_ms=now if self.started_ms is None else self.started_ms,
            partitions=tuple(sorted(tps)),
            groups=tuple(sorted(names)),
        )

    def decided(self, is_committed: bool, why: Why, next_id: tuple[int, int], now: int) -> "Transaction":
        """Decide the outcome at the commit point, and the producer id and epoch of the next transaction."""
        ended = Ended(self.producer_id, self.producer_epoch, is_committed, why)
        return self.moved(
            "PrepareCommit" if is_committed else "PrepareAbort",
            now,
            producer_id=next_id[0],
            producer_epoch=next_id[1],
            started_ms=None,
            ended=ended,
        )

    def completed(self, now: int) -> "Transaction":
        assert self.is_ending, self.state
        state: State = "CompleteCommit" if self.state == "PrepareCommit" else "CompleteAbort"
        return self.moved(state, now, partitions=(), groups=())

    def reopened(self, next_id: tuple[int, int], timeout_ms: int, why: Why, now: int) -> "Transaction":
        """Return the transaction for a new holder; the holder of the previous producer id and epoch is fenced."""
        ended = Ended(self.producer_id, self.producer_epoch, False, why)
        return self.moved(
            "Empty",
            now,
            producer_id=next_id[0],
            producer_epoch=next_id[1],
            timeout_ms=timeout_ms,
            ended=ended,
        )


def topic_partitions_of(partitions: TopicPartitions) -> set[TopicPartition]:
    """Return participants in the form that a transaction keeps. Raises ProtocolError for invalid ones."""
    tps = {TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers}
    for topic, number in tps:
        if number < 0:
            raise ProtocolError(ErrorCode.INVALID_REQUEST, f"partitions: {topic[:250]!r} has no {number}")
        if is_internal(topic):
            raise ProtocolError(ErrorCode.FORBIDDEN, f"partitions: {topic[:250]!r} is internal")
    return tps
