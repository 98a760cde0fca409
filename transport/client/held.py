"""Partitions that refuse for backpressure, as the publishers of a producer meet them. Pure.

A patient publisher waits for room, and time in which a partition is held does not count; an impatient one is refused.
Called by accumulator.py, under its lock.
"""

from ..addresses import TopicPartition
from ..protocol.errors import ErrorBody
from .errors import Backpressure


class HeldPartitions:
    def __init__(self, *, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.excused_s = 0.0
        """The time up to which no wait for room counts."""
        self._held: dict[TopicPartition, ErrorBody] = {}
        """What each said last."""

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._held

    def hold(self, tp: TopicPartition, error: ErrorBody, now_s: float) -> None:
        self._held[tp] = error
        if self.is_patient:
            self.excused_s = now_s

    def release(self, tp: TopicPartition) -> None:
        self._held.pop(tp, None)

    def check(self, tp: TopicPartition) -> None:
        """Raises Backpressure for an impatient publisher."""
        if not self.is_patient and tp in self._held:
            raise Backpressure.from_body(self._held[tp])
