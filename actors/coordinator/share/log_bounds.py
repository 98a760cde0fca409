"""A share group's knowledge of its partitions' logs: the group's start, the log's end and truncations. Pure.

Owns the requests (tails.py) and applies their answers to the partitions. An answer of another topic than the one that
has the name now is ignored. Called by acquiring.py, which needs the bounds, and by group.py with their answers.

    no progress yet    starts: at the group's `start`, at the beginning where the partition is younger than the group
    progress           the end of the log is polled, with the topic id and the leader epoch of the progress; at once after
                       a start of the coordinator or of the partition, and no record is given out before the answer
    LOG_TRUNCATED      the progress behind the cut is dropped: other records are there now, or none
"""

from collections.abc import Callable
from typing import Literal

from msgspec import UNSET

from ....transport.addresses import TopicPartition
from ....transport.machine import Answered, Failed, LoopEffect
from ....transport.protocol.errors import ErrorCode
from .partition import SharePartition
from .partitions import SharePartitions
from .records import ShareProgress
from .tails import BoundsCall, GroupStartCall, LogStartCall, Tails, bounds_of, record_bytes_of


class LogBounds:
    def __init__(
        self, partitions: SharePartitions, is_younger: Callable[[TopicPartition, str], bool]
    ) -> None:
        """`is_younger` returns True if a partition of the topic with this id was created after the group."""
        self._partitions = partitions
        self._is_younger = is_younger
        self._tails = Tails()

    def request(
        self, tp: TopicPartition, start: Literal["earliest", "latest"], wait_ms: int
    ) -> list[LoopEffect]:
        """Request the missing facts about a partition, unless a request is already in flight."""
        part, topic = self._partitions.get(tp), self._partitions.topic(tp.topic)
        assert topic is not None, "only partitions of known topics are read"
        if part is None:
            at = "earliest" if self._is_younger(tp, topic.topic_id) else start
            return self._tails.find_group_start(tp, at)
        wait_ms = wait_ms if part.is_verified else 0
        return self._tails.poll(part.reader(tp, part.end), wait_ms)

    def request_tail(self, tp: TopicPartition, part: SharePartition) -> list[LoopEffect]:
        """Request the end of the log as it is now, unless a request is already in flight."""
        return self._tails.poll(part.reader(tp, part.end), 0)

    def is_behind(self, tp: TopicPartition) -> bool:
        """Return True if records already in the log may still be unknown."""
        return self._tails.is_behind(tp)

    def on_up(self, tp: TopicPartition) -> None:
        """Note that the partition has restarted: its progress is valid once the log has been compared."""
        part = self._partitions.get(tp)
        if part is not None:
            part.is_verified = False

    def on_rested(self, tp: TopicPartition) -> None:
        self._tails.on_rested(tp)

    def on_deleted(self, tp: TopicPartition) -> list[LoopEffect]:
        """Ignore an answer: the group has been deleted."""
        self._tails.on_outcome(tp)
        return []

    def on_outcome(self, call: BoundsCall, event: Answered | Failed, now: int) -> list[LoopEffect]:
        topic = self._partitions.topic(call.tp.topic)
        if isinstance(event, Failed) and topic is not None:
            return self._on_failed(call.tp, event, now)
        self._tails.on_outcome(call.tp)
        if isinstance(event, Answered) and topic is not None:
            self._on_answered(call, event, topic.topic_id)
        return []

    def _on_answered(self, call: BoundsCall, event: Answered, topic_id: str) -> None:
        part, reply = self._partitions.get(call.tp), event.reply
        if reply.topic_id not in (UNSET, topic_id):
            return
        leader_epoch = None if reply.leader_epoch is UNSET else reply.leader_epoch
        if isinstance(call, GroupStartCall):
            if part is None and reply.offset >= 0:
                progress = ShareProgress(topic_id, reply.offset, leader_epoch=leader_epoch)
                self._partitions.add(call.tp, progress)
        elif part is None:
            pass  # its topic was deleted meanwhile
        elif isinstance(call, LogStartCall):
            self._apply(call.tp, part, reply.offset, part.end, None)
        else:
            part.is_verified = True
            if part.leader_epoch != leader_epoch:
                part.leader_epoch = leader_epoch
                self._partitions.mark(call.tp)
            self._apply(call.tp, part, *bounds_of(reply), record_bytes_of(event.payload))

    def _apply(
        self, tp: TopicPartition, part: SharePartition, log_start: int, tail: int, record_bytes: int | None
    ) -> None:
        if part.on_tail(log_start, tail, record_bytes):
            self._partitions.mark(tp)

    def _on_failed(self, tp: TopicPartition, event: Failed, now: int) -> list[LoopEffect]:
        part, error = self._partitions.get(tp), event.error
        if error.code == ErrorCode.LOG_TRUNCATED and part is not None:
            assert error.next_offset is not UNSET
            self._tails.on_outcome(tp)
            part.cut(error.next_offset)
            self._partitions.mark(tp)
            return []
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._tails.on_outcome(tp)
            return self._tails.find_log_start(tp)
        return self._tails.on_failed(tp, now)
