"""Serving: polls, takes the records in, and commits the handled ones. Pure.

A poll lasts until there are records, or until something has to happen between two polls: a commit, the restart of a
partition, another reading of damaged partitions, the end. Then EndPoll ends it.

Outputs are published with one effect at a time (Commit, HandOver, Leave) and stay here until it is answered. A commit
in doubt ends the process; its next incarnation finds out.

A record that had failed is committed before the next one of its key is tried. Otherwise two records that kill the
process could alternate endlessly: each crash would bring the first one back without its attempts.

Called by the machine, and by `handling.py`, `failing.py` and `ending.py` when records are done.
"""

from collections.abc import Mapping, Sequence

from ...transport.machine import CancelTimer, SetTimer
from ...transport.publication import Publication
from .commits import RETRY_MS
from .delivery import beginnings
from .effects import (
    WARNING,
    Commit,
    CommitRefused,
    Committed,
    DamageFound,
    EndPoll,
    Forget,
    Poll,
    ReadDamage,
    RecordsPolled,
    ResumePartition,
    Rewind,
    WriteLog,
)
from .failures import lost_before
from .lanes import Lane
from .partitions import NOTHING, Partition
from .state import SubscriberState
from .timers import DamageDue

READ_DAMAGE_MS = 5_000
"""Interval at which damaged partitions are read again."""


class Serving:
    def __init__(self, state: SubscriberState) -> None:
        self._state = state
        self._refusals = 0
        """Commits refused since the last that was not."""

    # -- polls

    def on_started(self) -> None:
        state = self._state
        if not state.strategy.may_retry:
            for prior_attempt in state.memory.prior_attempts():
                state.effects += lost_before(prior_attempt)
            state.memory.clear()
        self._poll()

    def _poll(self) -> None:
        state = self._state
        if state.phase == "serving":
            state.is_polling = True
            state.is_poll_ending = False
            state.do(Poll())

    def end_poll_if_needed(self) -> None:
        """End the poll that is out if something waits for its end."""
        state = self._state
        if state.is_polling and (
            state.commits.is_due or state.phase != "serving" or state.revocations.can_restart
        ):
            self._end_poll()

    def _end_poll(self) -> None:
        if not self._state.is_poll_ending:
            self._state.is_poll_ending = True
            self._state.do(EndPoll())

    def on_polled(self, event: RecordsPolled, now: int) -> None:
        state = self._state
        state.is_polling = False
        if state.phase != "serving":
            return
        state.intake.learn(event)
        records = state.revocations.admitted(event.records)
        offsets = state.strategy.before_handling(records)
        if offsets:
            state.effects += state.commits.commit(Commit(offsets), records)
        else:
            state.effects += state.intake.take(records, event.ahead)
            state.effects += state.revocations.try_restart()
            self._plan_commit(now)
            self._commit_if_due()
            self._poll()

    def on_damage_found(self, event: DamageFound, now: int) -> None:
        state = self._state
        state.failures.damaged(event)
        is_standing = any(not damage.is_skipped for damage in event.found)
        state.do(SetTimer(DamageDue(), now + READ_DAMAGE_MS) if is_standing else CancelTimer(DamageDue()))

    def on_damage_due(self, now: int) -> None:
        if self._state.phase == "serving":
            self._end_poll()
            self._state.do(ReadDamage())
            self._state.do(SetTimer(DamageDue(), now + READ_DAMAGE_MS))

    # -- records that are done

    def finish(
        self, lane: Lane, count: int, published: Mapping[int, Sequence[Publication]] = NOTHING
    ) -> None:
        """Note that the lane's first `count` records are done."""
        state = self._state
        had_failed = bool(count and lane.handed)
        done = lane.finish(count)
        partition = state.partitions.owner(lane)
        if partition is not None:
            partition.finished(done, published)
        state.commits.count(count)
        if not had_failed:
            return
        state.runs.clear(done[0])
        if partition is not None and state.strategy.may_retry:
            lane.state = "settling"
            lane.settling = done[0].offset
            state.commits.hurry()
        else:
            state.do(Forget(lane.key, done[0].offset))

    def settle(self, lanes: Sequence[Lane], now: int) -> None:
        """Continue after a record of one of these lanes, all of one partition, was finished or failed."""
        state = self._state
        for lane in lanes:
            partition = state.partitions.owner(lane)
            if partition is None or partition.is_leaving or state.phase != "serving":
                state.revocations.drop(lane, partition)
            state.partitions.clear(lane)
            state.partitions.queue(lane)
        for partition in state.partitions.of({lane.key for lane in lanes}):
            self._resume(partition)
        self._plan_commit(now)
        state.effects += state.revocations.try_hand_over()

    def _resume(self, partition: Partition) -> None:
        has_room = partition.has_room(self._state.options.max_records)
        if partition.is_paused and not partition.is_leaving and has_room:
            partition.is_paused = False
            self._state.do(ResumePartition(partition.key))

    # -- commits

    def commit(self) -> bool:
        """Commit the records that are done; return False if there are none."""
        state = self._state
        offsets = state.committable
        if offsets:
            state.effects += state.commits.commit(Commit(*state.partitions.with_metadata(offsets)))
        return bool(offsets)

    def _plan_commit(self, now: int) -> None:
        state = self._state
        if state.phase == "serving" and state.commits.can_plan:
            state.effects += state.commits.plan(state.committable, now)
            self._commit_if_due()

    def _commit_if_due(self) -> None:
        if self._state.commits.is_due and self._state.is_quiet and self._state.phase == "serving":
            self.commit()

    def on_commit_due(self) -> None:
        self._state.commits.fire()
        self._commit_if_due()

    def on_committed(self, event: Committed, now: int) -> None:
        state = self._state
        self._refusals = 0
        held_back = state.commits.answered()
        if held_back:
            state.effects += state.intake.take(held_back, {})
            self._poll()
        for partition in state.partitions.of(event.offsets):
            self._on_partition_committed(partition)
        self._plan_commit(now)

    def _on_partition_committed(self, partition: Partition) -> None:
        state, key = self._state, partition.key
        for lane in partition.was_committed():
            assert lane.settling is not None
            state.do(Forget(key, lane.settling))
            lane.state, lane.settling = "idle", None
            state.partitions.clear(lane)
            state.partitions.queue(lane)
        for prior_attempt in state.memory.take_before(key, partition.committed_offset):
            state.do(Forget(key, prior_attempt.offset))
        state.runs.clear_suspects(key, partition.committed_offset)
        self._resume(partition)

    def on_commit_refused(self, event: CommitRefused, now: int) -> None:
        state = self._state
        held_back = state.commits.answered()
        self._refusals += 1
        if (
            self._refusals.bit_count() == 1
        ):  # at doubling intervals: a right that is missing stays so for long
            state.do(WriteLog(WARNING, "commit refused", {"reason": event.reason}))
        if event.is_spoiled and state.phase == "serving":
            spoiled = [part.key for part in state.partitions.of(event.offsets) if part.outputs]
            state.revocations.restart(spoiled)
        if held_back:
            state.do(Rewind(beginnings(held_back)))
            self._poll()
        if state.phase == "serving":
            state.effects += state.commits.plan(state.committable, now, RETRY_MS)
