"""Partitions that refuse for backpressure, as the publishers of a producer meet them. Pure.

A patient publisher waits for room, and time in which a partition is held does not count; an impatient one is refused.
Called by accumulator.py, under its lock.
"""

from ..addresses import Place
from ..protocol.errors import ErrorBody
from .errors import Backpressure


class HeldPartitions:
    def __init__(self, *, is_patient: bool) -> None:
        self.is_patient = is_patient
        self.excused_s = 0.0
        """The time up to which no wait for room counts."""
        self._held: dict[Place, ErrorBody] = {}
        """What each said last."""

    def __contains__(self, place: Place) -> bool:
        return place in self._held

    def hold(self, place: Place, error: ErrorBody, now_s: float) -> None:
        self._held[place] = error
        if self.is_patient:
            self.excused_s = now_s

    def release(self, place: Place) -> None:
        self._held.pop(place, None)

    def check(self, place: Place) -> None:
        """Raises Backpressure for an impatient publisher."""
        if not self.is_patient and place in self._held:
            raise Backpressure.from_body(self._held[place])
