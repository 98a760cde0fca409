"""Failing records: carries out the decisions of `failures.py` until they succeed or are given up. Pure.

A failing record blocks its own lane alone: the lane waits for the retry, or for the dead letter. Called by the machine,
and by `handling.py` with the records that have failed.
"""

from .effects import DeadLetterFailed, DeadLetterPublished, HandlerReturned
from .lanes import Lane
from .serving import Serving
from .state import SubscriberState


class Failing:
    def __init__(self, state: SubscriberState, serving: Serving) -> None:
        self._state = state
        self._serving = serving

    def on_failed(self, lane: Lane, event: HandlerReturned, now: int) -> None:
        """Handle the failure of a lane's first record in a run."""
        state = self._state
        if state.failures.is_released(event):
            state.effects += state.failures.released(lane)
            state.partitions.retry_lane(lane)
        else:
            state.do(state.failures.failed(lane, event, now))
            self.treat(lane, now)

    def treat(self, lane: Lane, now: int) -> None:
        """Retry the lane's first record later, dead-letter it, or count it as lost."""
        state = self._state
        if state.failures.is_lost(lane):
            state.do(state.failures.lost(lane))
            self._serving.finish(lane, 1)
        else:
            state.effects += state.failures.treat(lane, now)
            state.partitions.retry_lane(lane)

    def on_retry_due(self, number: int) -> None:
        lane = self._state.partitions.at_work.get(number)
        if lane is None or lane.state != "waiting" or not lane.held:
            return
        if lane.dead_letter is not None:
            self._state.do(self._state.failures.publish_dead_letter(lane))
        else:
            lane.state = "idle"
            self._state.partitions.queue(lane)

    def on_dead_letter_published(self, event: DeadLetterPublished, now: int) -> None:
        lane = self._state.partitions.at_work.get(event.lane)
        if lane is None:
            return
        self._state.do(self._state.failures.dead_lettered(lane))
        lane.state = "idle"
        self._serving.finish(lane, 1, {lane.held[0].offset: event.published})
        self._serving.settle([lane], now)

    def on_dead_letter_failed(self, event: DeadLetterFailed, now: int) -> None:
        lane = self._state.partitions.at_work.get(event.lane)
        if lane is None:
            return
        self._state.effects += self._state.failures.dead_letter_failed(lane, event, now)
        self._serving.settle([lane], now)
