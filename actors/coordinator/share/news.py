"""A share group's view of its partitions' logs: the group's start, the log's end and truncations. Pure.

Owns the requests (tails.py) and applies their answers to the partitions. An answer of another topic than the one that
has the name now is ignored. Called by serving.py, which records the changes.

    no progress yet    starts: at the group's `start`, at the beginning where the partition is younger than the group
    progress           the end of the log is polled, with the topic id and the leader epoch of the progress; at once after
                       a start of the coordinator or of the partition, and no record is given out before the answer
    LOG_TRUNCATED      the progress behind the cut is dropped: other records are there now, or none
"""

from collections.abc import Callable
from typing import Literal

from msgspec import UNSET

from ....transport.addresses import TopicPartition
from ....transport.machine import Answered, Effect, Failed
from ....transport.protocol.errors import ErrorCode
from ....transport.protocol.topics import CatalogTopic
from .partition import SharePartition
from .records import ShareProgress
from .tails import Tails, bounds_of, record_bytes_of


class LogNews:
    def __init__(
        self,
        partitions: dict[TopicPartition, SharePartition],
        is_younger: Callable[[TopicPartition, str], bool],
    ) -> None:
        """`is_younger` returns True if a partition of the topic with this id was created after the group."""
        self._partitions = partitions
        self._is_younger = is_younger
        self._tails = Tails()
        self.changed: set[TopicPartition] = set()
        """Partitions whose progress has changed; the caller records it."""

    def ask(
        self, tp: TopicPartition, entry: CatalogTopic, start: Literal["earliest", "latest"], wait_ms: int
    ) -> list[Effect]:
        """Request the missing facts about a partition, unless a request is already in flight."""
        part = self._partitions.get(tp)
        if part is None:
            return self._tails.begins(tp, "earliest" if self._is_younger(tp, entry.topic_id) else start)
        return self._tails.poll(
            tp, part.end, wait_ms if part.is_verified else 0, part.topic_id, part.leader_epoch
        )

    def on_up(self, tp: TopicPartition) -> None:
        """Note that the partition has restarted: its progress is valid once the log has been compared."""
        part = self._partitions.get(tp)
        if part is not None:
            part.is_verified = False

    def is_coming(self, tp: TopicPartition) -> bool:
        """Return True if records already in the log may still be unknown."""
        return self._tails.is_news_coming(tp)

    def on_rested(self, tp: TopicPartition) -> None:
        self._tails.on_rested(tp)

    def handle(
        self, kind: str, tp: TopicPartition, event: Answered | Failed, entry: CatalogTopic | None, now: int
    ) -> list[Effect]:
        if isinstance(event, Failed) and entry is not None:
            return self._on_failed(tp, event, now)
        self._tails.on_outcome(tp)
        if isinstance(event, Failed) or entry is None:
            return []
        if event.reply.topic_id not in (UNSET, entry.topic_id):
            return []
        part, bounds = self._partitions.get(tp), event.reply
        leader_epoch = None if bounds.leader_epoch is UNSET else bounds.leader_epoch
        if kind == "begin":
            if part is None and bounds.offset >= 0:
                progress = ShareProgress(entry.topic_id, bounds.offset, leader_epoch=leader_epoch)
                self._partitions[tp] = SharePartition(progress)
                self.changed.add(tp)
        elif part is not None and kind == "earliest":
            self._on_bounds(tp, part, bounds.offset, part.end, None)
        elif part is not None:
            part.is_verified = True
            if part.leader_epoch != leader_epoch:
                part.leader_epoch = leader_epoch
                self.changed.add(tp)
            self._on_bounds(tp, part, *bounds_of(bounds), record_bytes_of(event.payload))
        return []

    def _on_bounds(
        self, tp: TopicPartition, part: SharePartition, log_start: int, tail: int, record_bytes: int | None
    ) -> None:
        if part.on_tail(log_start, tail, record_bytes):
            self.changed.add(tp)

    def _on_failed(self, tp: TopicPartition, event: Failed, now: int) -> list[Effect]:
        part, error = self._partitions.get(tp), event.error
        if error.code == ErrorCode.LOG_TRUNCATED and part is not None:
            assert error.next_offset is not UNSET
            self._tails.on_outcome(tp)
            part.cut(error.next_offset)
            self.changed.add(tp)
            return []
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._tails.on_outcome(tp)
            return self._tails.earliest(tp)
        return self._tails.on_failed(tp, now)
