"""The log ends of a share group's partitions, and the group's start in a new partition. Pure.

Owns one request to each partition: a long poll at its end while a member waits for records. Only the log's bounds and
the size of its records are used; the records themselves are left to the members that acquire them. Called by news.py.

    look     the group's start: `list_offsets`, once in the life of group and partition
             the log's end: `fetch` from the known end, parked at the partition
    failed   repeated after RETRY_MS, if a member still waits
"""

from typing import Literal, NamedTuple

from ....transport.addresses import TopicPartition, partition_address
from ....transport.batch import parse_header
from ....transport.machine import Call, Effect, Payload, SetTimer
from ....transport.protocol.data import Fetch, FetchReply, ListOffsets, ListOffsetsReply

SHARE = "share"
"""First part of every key of a share group's calls and timers."""
POLL_MS = 5_000
RETRY_MS = 100
CALL_TIMEOUT_MS = 5_000


class LogBounds(NamedTuple):
    start: int
    tail: int


class Tails:
    def __init__(self) -> None:
        self._asking: dict[TopicPartition, bool] = {}
        """Partitions with a request in flight; True if it is parked there, so that the log is known up to now."""
        self._resting: set[TopicPartition] = set()

    def begins(self, tp: TopicPartition, at: Literal["earliest", "latest"]) -> list[Effect]:
        """Request the group's start offset."""
        request = ListOffsets(topic=tp[0], partition=tp[1], at=at, isolation="read_committed")
        return self._ask("begin", tp, request)

    def earliest(self, tp: TopicPartition) -> list[Effect]:
        """Request the start of the log after retention."""
        return self._ask("earliest", tp, ListOffsets(topic=tp[0], partition=tp[1], at="earliest"))

    def poll(
        self, tp: TopicPartition, offset: int, wait_ms: int, topic_id: str, leader_epoch: int | None
    ) -> list[Effect]:
        """Request the end of the log, which is at `offset`, behind it, or below it if the log was cut since."""
        wait_ms = max(0, min(wait_ms, POLL_MS))
        request = Fetch(
            topic=tp[0],
            partition=tp[1],
            offset=offset,
            max_bytes=1,
            max_wait_ms=wait_ms,
            format="batches",
            topic_id=topic_id,
            leader_epoch=leader_epoch,
        )
        effects = self._ask("tail", tp, request, wait_ms)
        if effects:
            self._asking[tp] = wait_ms > 0
        return effects

    def is_news_coming(self, tp: TopicPartition) -> bool:
        """Return True if records already in the log may still be unknown."""
        return self._asking.get(tp) is False

    def on_outcome(self, tp: TopicPartition) -> None:
        self._asking.pop(tp, None)

    def on_failed(self, tp: TopicPartition, now: int) -> list[Effect]:
        self._asking.pop(tp, None)
        self._resting.add(tp)
        return [SetTimer((SHARE, "again", tp), now + RETRY_MS)]

    def on_rested(self, tp: TopicPartition) -> None:
        self._resting.discard(tp)

    def _ask(
        self, kind: str, tp: TopicPartition, request: Fetch | ListOffsets, wait_ms: int = 0
    ) -> list[Effect]:
        if tp in self._asking or tp in self._resting:
            return []
        self._asking[tp] = False
        reply_type = FetchReply if isinstance(request, Fetch) else ListOffsetsReply
        key = (SHARE, kind, tp)
        timeout_ms = wait_ms + CALL_TIMEOUT_MS
        return [Call(key, partition_address(*tp), request, reply_type, timeout_ms=timeout_ms)]


def record_bytes_of(payload: Payload) -> int | None:
    """Return the average record size of the first batch that has not been delivered yet."""
    if not payload:
        return None
    header = parse_header(payload[0])
    if header.is_control:
        return None
    return max(1, header.size_bytes // header.record_count)


def bounds_of(reply: FetchReply) -> LogBounds:
    """Return the offsets that may be delivered: with transactions open, only those before the first one's start."""
    stable = reply.last_stable_offset
    return LogBounds(reply.log_start_offset, reply.high_watermark if stable < 0 else stable)
