"""The requests for the bounds of a share group's logs, one at a time to each partition. Pure.

Owns the requests: a long poll at a partition's end while a member waits for records. Only the log's bounds and the size
of its records are used; the records themselves are left to the members that acquire them. Called by log_bounds.py.

    start    the group's start: `list_offsets`, once in the life of group and partition
    tail     the log's end: `fetch` from the known end, parked at the partition
    failed   repeated after RETRY_MS, if a member still waits
"""

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from ....transport.addresses import TopicPartition
from ....transport.batch import parse_header
from ....transport.log_access.reader import PartitionReader
from ....transport.machine import Call, LoopEffect, Payload, SetTimer
from ....transport.protocol.data import FetchReply

POLL_MS = 5_000
RETRY_MS = 100


class GroupStartCall(Struct, frozen=True):
    """The lookup of the offset at which the group starts in a partition."""

    tp: TopicPartition


class LogStartCall(Struct, frozen=True):
    """The lookup of the log's start, after retention has passed the known end."""

    tp: TopicPartition


class TailCall(Struct, frozen=True):
    """The poll for the log's end."""

    tp: TopicPartition


class TailRetryTimer(Struct, frozen=True):
    tp: TopicPartition


BoundsCall: TypeAlias = GroupStartCall | LogStartCall | TailCall


class Bounds(NamedTuple):
    start: int
    tail: int


class Tails:
    def __init__(self) -> None:
        self._in_flight: dict[TopicPartition, bool] = {}
        """Partitions with a request; True if it is parked there, so that the log is known up to now."""
        self._resting: set[TopicPartition] = set()

    def find_group_start(self, tp: TopicPartition, at: Literal["earliest", "latest"]) -> list[LoopEffect]:
        """Request the group's start offset."""
        return self._request(tp, PartitionReader(tp).locate(GroupStartCall(tp), at))

    def find_log_start(self, tp: TopicPartition) -> list[LoopEffect]:
        """Request the start of the log after retention."""
        return self._request(tp, PartitionReader(tp).locate(LogStartCall(tp), "earliest"))

    def poll(self, reader: PartitionReader, wait_ms: int) -> list[LoopEffect]:
        """Request the end of the log, which is at the position, behind it, or below it if the log was cut since."""
        wait_ms = max(0, min(wait_ms, POLL_MS))
        call = reader.fetch(TailCall(reader.tp), max_bytes=1, max_wait_ms=wait_ms)
        return self._request(reader.tp, call, is_parked=wait_ms > 0)

    def is_behind(self, tp: TopicPartition) -> bool:
        """Return True if records already in the log may still be unknown."""
        return self._in_flight.get(tp) is False

    def on_outcome(self, tp: TopicPartition) -> None:
        self._in_flight.pop(tp, None)

    def on_failed(self, tp: TopicPartition, now: int) -> list[LoopEffect]:
        self._in_flight.pop(tp, None)
        self._resting.add(tp)
        return [SetTimer(TailRetryTimer(tp), now + RETRY_MS)]

    def on_rested(self, tp: TopicPartition) -> None:
        self._resting.discard(tp)

    def _request(self, tp: TopicPartition, call: Call, *, is_parked: bool = False) -> list[LoopEffect]:
        if tp in self._in_flight or tp in self._resting:
            return []
        self._in_flight[tp] = is_parked
        return [call]


def record_bytes_of(payload: Payload) -> int | None:
    """Return the average record size of the first batch that has not been delivered yet."""
    if not payload:
        return None
    header = parse_header(payload[0])
    if header.is_control:
        return None
    return max(1, header.size_bytes // header.record_count)


def bounds_of(reply: FetchReply) -> Bounds:
    """Return the offsets that may be delivered: with transactions open, only those before the first one's start."""
    stable = reply.last_stable_offset
    return Bounds(reply.log_start_offset, reply.high_watermark if stable < 0 else stable)
