"""Partitions that refuse for backpressure, and the effect on the publishers of a producer. Pure.

A patient publisher waits for room, and the time in which a partition is held does not count. Any other
publisher gets an error. Called by accumulator.py, under its lock.
"""

from ..addresses import TopicPartition
from ..protocol.errors import ErrorBody
from .errors import Backpressure


class HeldPartitions:
    def __init__(self, *, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.excused_s = 0.0
        """The time up to which waiting for room does not count."""
        self._held: dict[TopicPartition, ErrorBody] = {}
        """The last refusal of each."""

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._held

    def hold(self, tp: TopicPartition, error: ErrorBody, now_s: float) -> None:
        self._held[tp] = error
        if self.is_patient:
            self.excused_s = now_s

    def release(self, tp: TopicPartition) -> None:
        self._held.pop(tp, None)

    def check(self, tp: TopicPartition) -> None:
        """Raise Backpressure for a publisher that does not wait."""
        if not self.is_patient and tp in self._held:
            raise Backpressure.from_body(self._held[tp])
