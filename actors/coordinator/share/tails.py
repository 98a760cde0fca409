"""How far the logs of a share group's partitions reach, and where the group begins in one that is new to it. Pure.

Owns one question to each partition: a long poll at its end while somebody waits for records. Of what it answers the
bounds of the log count, and how large its records are; they are left to whoever acquires them. Called by news.py.

    look     where the group begins: `list_offsets`, once in the life of group and partition
             where the log ends: `fetch` of what lies behind the known end, parked at the partition
    failed   asked again after RETRY_MS, if somebody still waits
"""

from typing import Literal, NamedTuple

from ....transport.addresses import TopicPartition, partition_address
from ....transport.batch import parse_header
from ....transport.machine import Call, Effect, Payload, SetTimer
from ....transport.protocol.data import Fetch, FetchReply, ListOffsets, ListOffsetsReply

SHARE = "share"
"""The first word of every key of a call or timer that a share group makes."""
POLL_MS = 5_000
RETRY_MS = 100
CALL_TIMEOUT_MS = 5_000


class LogBounds(NamedTuple):
    start: int
    tail: int


class Tails:
    def __init__(self) -> None:
        self._asking: dict[TopicPartition, bool] = {}
        """Who is asked; True where that is parked at the partition, and everything up to now is known."""
        self._resting: set[TopicPartition] = set()

    def begins(self, tp: TopicPartition, at: Literal["earliest", "latest"]) -> list[Effect]:
        """Ask where the group begins."""
        request = ListOffsets(topic=tp[0], partition=tp[1], at=at, isolation="read_committed")
        return self._ask("begin", tp, request)

    def earliest(self, tp: TopicPartition) -> list[Effect]:
        """Ask what retention has left."""
        return self._ask("earliest", tp, ListOffsets(topic=tp[0], partition=tp[1], at="earliest"))

    def poll(
        self, tp: TopicPartition, offset: int, wait_ms: int, topic_id: str, leader_epoch: int | None
    ) -> list[Effect]:
        """Ask for the end of the log, which is at `offset` or behind it; or was cut below it since."""
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
        """Whether what is there already may still be unknown."""
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
    """What a record takes there: the average of the first batch that has not been delivered yet."""
    if not payload:
        return None
    header = parse_header(payload[0])
    if header.is_control:
        return None
    return max(1, header.size_bytes // header.record_count)


def bounds_of(reply: FetchReply) -> LogBounds:
    """What of a log may be delivered: with transactions open, not what lies behind the first one's begin."""
    stable = reply.last_stable_offset
    return LogBounds(reply.log_start_offset, reply.high_watermark if stable < 0 else stable)
