"""Handling: which lane's records go to the handler, and the consequences of its results. Pure.

A run is bounded by SLICE_MS, and records that wait behind a slow one of another key are taken back. Attempts of earlier
incarnations count: such a record is retried or dead-lettered before it runs. So are expired records, if the options say
so. Called by the machine.
"""

import itertools

from ...transport.attributes import is_expired
from ...transport.machine import CancelTimer, SetTimer
from .dead_letters import CAUSES
from .effects import WARNING, Forget, HandlerReturned, Recall, Recalled, log_of
from .failing import Failing
from .failures import failure_before
from .lanes import Lane
from .runs import SLICE_MS
from .serving import Serving
from .state import SubscriberState
from .timers import HandlerLate, RetryDue, RunSlow


class Handling:
    def __init__(self, state: SubscriberState, serving: Serving, failing: Failing) -> None:
        self._state = state
        self._serving = serving
        self._failing = failing

    def run_next(self, now: int) -> None:
        """Start runs as long as a worker is free and a lane is ready."""
        while self._state.phase in ("serving", "stopping"):
            lane = self._state.runs.next_lane()
            if lane is None:
                return
            if self._state.options.expired != "deliver" and self._has_expired(lane, now):
                continue
            if self._state.key_limits.is_limiting and self._is_deferred(lane, now):
                continue
            if not self._has_prior_attempt(lane, now):
                self._start(lane, now)

    def _has_expired(self, lane: Lane, now: int) -> bool:
        """Return True if the lane's first record has expired: it is skipped then, with those behind it that have
        expired too, or dead-lettered."""
        state = self._state
        wall_ms = now + state.failures.wall_offset_ms
        expired = list(itertools.takewhile(lambda each: is_expired(each.headers, wall_ms), lane.held))
        if not expired:
            return False
        if state.options.expired == "dead_letter":
            lane.expire(now)
            self._failing.treat(lane, now)
            return True
        for record in expired:
            state.runs.clear(record)
        self._serving.finish(lane, 1 if lane.handed else len(expired))
        self._serving.settle([lane], now)
        return True

    def _is_deferred(self, lane: Lane, now: int) -> bool:
        """Return True if a limit of the lane's key makes it wait. Otherwise drop the records that are superseded."""
        state = self._state
        wait_ms = state.key_limits.wait_ms(lane, now)
        if wait_ms:
            lane.state = "waiting"
            state.do(SetTimer(RetryDue(lane.number), now + wait_ms))
            return True
        superseded = state.key_limits.superseded(lane)
        if superseded:
            for record in itertools.islice(lane.held, superseded):
                state.runs.clear(record)
            self._serving.finish(lane, superseded)
        return False

    def _has_prior_attempt(self, lane: Lane, now: int) -> bool:
        """Return True if an earlier incarnation tried the first record; it then waits or is dead-lettered."""
        state = self._state
        prior_attempt = state.memory.take_prior_attempt(lane.held[0])
        if prior_attempt is None:
            return False
        if prior_attempt.leader_epoch != lane.held[0].leader_epoch:
            state.do(Forget(lane.key, prior_attempt.offset))
            return False
        lane.restore(prior_attempt, failure_before(prior_attempt))
        state.runs.isolate(lane)
        if prior_attempt.cause == "released":
            state.partitions.retry_lane(lane)
            return False
        state.do(log_of(lane.held[0], WARNING, CAUSES[prior_attempt.cause], attempts=prior_attempt.attempts))
        self._failing.treat(lane, now)
        return True

    def _start(self, lane: Lane, now: int) -> None:
        state = self._state
        partition = state.partitions.owner(lane)
        run = state.runs.start(lane, partition.committed_offset if partition is not None else 0, now)
        state.do(run)
        if len(state.runs.running[run.number].lanes) > 1:
            state.do(SetTimer(RunSlow(run.number), now + SLICE_MS))
        if state.options.handler_timeout_ms is not None:
            state.do(SetTimer(HandlerLate(run.number), now + SLICE_MS + state.options.handler_timeout_ms))

    def on_returned(self, event: HandlerReturned, now: int) -> None:
        state = self._state
        running = state.runs.ended(event.number, now)
        if running is None:
            return
        if len(running.lanes) > 1:
            state.do(CancelTimer(RunSlow(event.number)))
        if state.options.handler_timeout_ms is not None:
            state.do(CancelTimer(HandlerLate(event.number)))
        at_work = state.partitions.at_work
        lanes = [(lane, done) for lane, done in running.done(event.done) if lane.number in at_work]
        for lane, done in lanes:
            lane.state = "idle"
            self._serving.finish(lane, done, event.published)
        failed = running.lane_at(event.done) if event.failure is not None else None
        if failed is not None and failed.number in at_work:
            self._failing.on_failed(failed, event, now)
        if lanes:
            state.effects += state.failures.judge(running.records, event, now)
            self._serving.settle([lane for lane, _ in lanes], now)

    def on_run_slow(self, number: int) -> None:
        """Take back records of other keys that wait behind a slow one."""
        running = self._state.runs.running.get(number)
        if running is not None:
            self._state.do(Recall(number, running.worker))

    def on_recalled(self, event: Recalled, now: int) -> None:
        running = self._state.runs.running.get(event.number)
        if running is not None:
            lanes = running.give_back(event.count)
            at_work = self._state.partitions.at_work
            self._serving.settle([lane for lane in lanes if lane.number in at_work], now)
