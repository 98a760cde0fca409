"""The machine of a hosted subscriber: which record runs, is retried, is dead-lettered or committed, and when. Pure.

The consumer thread polls and commits, the workers run the handler, the dead-letter publisher publishes. lanes.py has
the states of records in sequence, partitions.py finds these, runs.py starts them, revocations.py gives partitions back.

    phase      means                                             left by
    serving    polls, runs, commits now and then                 a stop order -> stopping; a stuck handler -> doomed
    stopping   finishes the records in progress, no others       no record or effect is out, or the deadline -> leaving
    leaving    the consumer thread commits and leaves the group  GroupLeft, or the deadline -> ended
    doomed     commits finished records, starts no others        the commit's answer, or KILL_GRACE_MS -> ended by Crash

A failing record blocks its own key alone (failures.py). Attempts of earlier incarnations count (flight_recorder.py).

Outputs are published with one effect at a time (Commit, HandOver, Leave) and stay here until it is answered. A commit
in doubt ends the process; its next incarnation finds out.

A record that had failed is committed before the next one of its key is tried. Otherwise two records that kill the
process could alternate endlessly: each crash would bring the first one back without its attempts.

A handler that exceeds its time cannot be interrupted, since threads cannot be killed. So the process notes the record,
commits, and exits; its next incarnation counts the attempt. Detection takes up to SLICE_MS.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ...transport.machine import CancelTimer, Effect, Event, SetTimer, Stop, StopRequested, TimerFired
from ...transport.protocol.operations import RetryReport
from ...transport.publication import Publication
from ...transport.subscription import STOP_MARGIN_MS, SubscriberOptions
from .backoff import Draw, in_the_middle
from .commits import RETRY_MS, Commits
from .dead_letters import CAUSES
from .delivery import STRATEGIES, beginnings
from .effects import (
    ERROR,
    WARNING,
    Abandon,
    Commit,
    CommitRefused,
    Committed,
    CommitUncertain,
    ConsumerStarted,
    CpuExceeded,
    Crash,
    Damaged,
    DeadLetterFailed,
    DeadLetterPublished,
    Forget,
    GroupLeft,
    Leave,
    Lost,
    NoteTimeout,
    Offsets,
    Poll,
    Polled,
    Ran,
    Recall,
    Recalled,
    Resume,
    Retire,
    Revoking,
    Rewind,
    TimedOut,
    WriteLog,
    tell_of,
)
from .failures import Failures, failure_before, lost_before
from .intake import Intake
from .lanes import Lane
from .partitions import NOTHING, Partition, Partitions
from .recovered_state import NOTHING_RECOVERED, Memory, RecoveredState
from .revocations import Revocations
from .runs import Runs

SLICE_MS = 50
"""Time after which a run ends at the next record, so that other partitions have their turn and commits continue."""
KILL_GRACE_MS = 1_000

Phase = Literal["serving", "stopping", "leaving", "doomed"]


class SubscriberMachine:
    def __init__(
        self,
        options: SubscriberOptions,
        recovered: RecoveredState = NOTHING_RECOVERED,
        draw: Draw = in_the_middle,
    ) -> None:
        self._options = options
        self._strategy = STRATEGIES[options.delivery]
        self._memory = Memory(recovered)
        self._phase: Phase = "serving"
        self._partitions = Partitions(options.concurrency, tells_ahead=self._strategy.tells_ahead)
        self._failures = Failures(options, self._strategy, self._partitions, self._memory.lineage, draw)
        gate = self._failures.breaker
        self._runs = Runs(options.concurrency, self._partitions, self._memory, recovered.suspects, gate)
        self._revocations = Revocations(options, self._strategy, self._partitions, self._runs, self._memory)
        self._commits = Commits()
        self._intake = Intake(
            options, self._strategy, self._partitions, self._runs, self._memory, self._commits
        )
        self._is_polling = False
        self._crash_reason = ""
        self._out: list[Effect] = []
        self._events: dict[type, Callable[[Any, int], None]] = {
            ConsumerStarted: self._on_started,
            Polled: self._on_polled,
            Committed: self._on_committed,
            CommitRefused: self._on_commit_refused,
            CommitUncertain: self._on_commit_uncertain,
            Damaged: lambda event, _: self._failures.damaged(event),
            Ran: self._on_ran,
            Recalled: self._on_recalled,
            DeadLetterPublished: self._on_dead_letter_published,
            DeadLetterFailed: self._on_dead_letter_failed,
            Revoking: self._on_revoking,
            Lost: self._on_lost,
            TimedOut: self._on_timed_out,
            CpuExceeded: self._on_cpu_exceeded,
            TimerFired: self._on_timer,
            StopRequested: self._on_stop_requested,
            GroupLeft: self._on_left,
            **self._failures.events,
        }
        self._numbered_timers: dict[str, Callable[[int, int], None]] = {
            "handler": self._on_handler_late,
            "recall": self._on_run_slow,
            "again": self._on_again,
            "failing": lambda *_: self._failures.failing_long(),
        }
        self._timers: dict[str, Callable[[int], None]] = {
            "breaker": lambda _: self._failures.breaker.pause_over(),
            "commit": self._on_commit_due,
            "let go": lambda _: self._out.extend(self._revocations.late()),
            "finish": self._on_finish_late,
            "leave": self._on_leave_late,
            "doom": lambda _: self._do(Crash(self._crash_reason)),
        }

    def retrying(self) -> RetryReport:
        """Return the records that failed and wait for their next attempt."""
        return self._failures.retries.report()

    def handle(self, event: Event, now: int) -> list[Effect]:
        self._out = []
        self._events[type(event)](event, now)
        self._run_next(now)
        if self._failures.is_alarmed:
            self._out += self._failures.alarms(now)
        return self._out

    # Polled records.

    def _on_started(self, event: ConsumerStarted, now: int) -> None:
        if not self._strategy.tries_again:
            for prior_attempt in self._memory.prior_attempts():
                self._out += lost_before(prior_attempt)
            self._memory.clear()
        self._poll()

    def _poll(self) -> None:
        if self._phase == "serving":
            self._is_polling = True
            self._do(Poll(is_brief=any(each.is_paused for each in self._partitions.owned.values())))

    def _on_polled(self, event: Polled, now: int) -> None:
        self._is_polling = False
        if self._phase != "serving":
            self._commit_and_crash()
            self._try_leave()
            return
        self._intake.learn(event)
        records = self._revocations.admitted(event.records)
        offsets = self._strategy.before_handling(records)
        if offsets:
            self._out += self._commits.commit(Commit(offsets), records)
        else:
            self._out += self._intake.take(records, event.ahead)
            self._out += self._revocations.try_restart()
            self._plan_commit(now)
            self._commit_if_due()
            self._poll()

    # Handled records.

    def _run_next(self, now: int) -> None:
        while self._phase in ("serving", "stopping"):
            lane = self._runs.next_lane()
            if lane is None:
                return
            if not self._is_charged(lane, now):
                self._start_run(lane, now)

    def _is_charged(self, lane: Lane, now: int) -> bool:
        """Return True if an earlier incarnation tried the first record; it then waits or is dead-lettered."""
        prior_attempt = self._memory.take_charge(lane.held[0])
        if prior_attempt is None:
            return False
        if prior_attempt.leader_epoch != lane.held[0].leader_epoch:
            self._do(Forget(lane.key, prior_attempt.offset))
            return False
        lane.prior_attempt(prior_attempt, failure_before(prior_attempt))
        self._runs.isolate(lane)
        if prior_attempt.cause == "released":
            self._partitions.retry_lane(lane)
            return False
        self._do(tell_of(lane.held[0], WARNING, CAUSES[prior_attempt.cause], attempts=prior_attempt.attempts))
        self._treat(lane, now)
        return True

    def _start_run(self, lane: Lane, now: int) -> None:
        partition = self._partitions.owner(lane)
        run = self._runs.start(lane, partition.committed_offset if partition is not None else 0, now)
        self._do(run)
        if len(self._runs.running[run.number].lanes) > 1:
            self._do(SetTimer(("recall", run.number), now + SLICE_MS))
        if self._options.handler_timeout_ms is not None:
            self._do(SetTimer(("handler", run.number), now + SLICE_MS + self._options.handler_timeout_ms))

    def _on_ran(self, event: Ran, now: int) -> None:
        running = self._runs.ended(event.number, now)
        if running is None:
            return
        if len(running.lanes) > 1:
            self._do(CancelTimer(("recall", event.number)))
        if self._options.handler_timeout_ms is not None:
            self._do(CancelTimer(("handler", event.number)))
        at_work = self._partitions.at_work
        lanes = [(lane, done) for lane, done in running.done(event.done) if lane.number in at_work]
        for lane, done in lanes:
            lane.state = "idle"
            self._finish(lane, done, event.published)
        failed = running.lane_at(event.done) if event.failure is not None else None
        if failed is not None and failed.number in at_work:
            self._on_failed(failed, event, now)
        if lanes:
            self._out += self._failures.judge(running.records, event, now)
            self._settle([lane for lane, _ in lanes], now)
        self._try_leave()

    def _on_failed(self, lane: Lane, event: Ran, now: int) -> None:
        if self._failures.is_released(event):
            self._out += self._failures.released(lane)
            self._partitions.retry_lane(lane)
        else:
            self._do(self._failures.failed(lane, event, now))
            self._treat(lane, now)

    def _on_run_slow(self, number: int, now: int) -> None:
        """Take back records of other keys that wait behind a slow one."""
        running = self._runs.running.get(number)
        if running is not None:
            self._do(Recall(number, running.worker))

    def _on_recalled(self, event: Recalled, now: int) -> None:
        running = self._runs.running.get(event.number)
        if running is not None:
            lanes = running.give_back(event.count)
            self._settle([lane for lane in lanes if lane.number in self._partitions.at_work], now)

    def _finish(
        self, lane: Lane, count: int, published: Mapping[int, Sequence[Publication]] = NOTHING
    ) -> None:
        was_charged = bool(count and lane.handed)
        done = lane.finish(count)
        partition = self._partitions.owner(lane)
        if partition is not None:
            partition.finished(done, published)
        self._commits.count(count)
        if not was_charged:
            return
        self._runs.dealt_with(done[0])
        if partition is not None and self._strategy.tries_again:
            lane.state = "settling"
            lane.settling = done[0].offset
            self._commits.hurry()
        else:
            self._do(Forget(lane.key, done[0].offset))

    def _settle(self, lanes: Sequence[Lane], now: int) -> None:
        """Continue after a record of one of these lanes, all of one partition, was finished or failed."""
        for lane in lanes:
            partition = self._partitions.owner(lane)
            if partition is None or partition.is_leaving or self._phase != "serving":
                self._revocations.drop(lane, partition)
            self._partitions.clear(lane)
            self._partitions.queue(lane)
        for partition in self._partitions.of({lane.key for lane in lanes}):
            self._resume(partition)
        self._plan_commit(now)
        self._out += self._revocations.try_let_go()
        self._try_leave()

    def _resume(self, partition: Partition) -> None:
        has_room = partition.has_room(self._options.max_records)
        if partition.is_paused and not partition.is_leaving and has_room:
            partition.is_paused = False
            self._do(Resume(partition.key))

    # Failed records.

    def _treat(self, lane: Lane, now: int) -> None:
        if self._failures.is_lost(lane):
            self._do(self._failures.lost(lane))
            self._finish(lane, 1)
        else:
            self._out += self._failures.treat(lane, now)
            self._partitions.retry_lane(lane)

    def _on_again(self, number: int, now: int) -> None:
        lane = self._partitions.at_work.get(number)
        if lane is None or lane.state != "waiting" or not lane.held:
            return
        if lane.letter is not None:
            self._do(self._failures.publish_dead_letter(lane))
        else:
            lane.state = "idle"
            self._partitions.queue(lane)

    def _on_dead_letter_published(self, event: DeadLetterPublished, now: int) -> None:
        lane = self._partitions.at_work.get(event.lane)
        if lane is None:
            return
        self._do(self._failures.dead_lettered(lane))
        lane.state = "idle"
        self._finish(lane, 1, {lane.held[0].offset: event.published})
        self._settle([lane], now)

    def _on_dead_letter_failed(self, event: DeadLetterFailed, now: int) -> None:
        lane = self._partitions.at_work.get(event.lane)
        if lane is None:
            return
        self._out += self._failures.dead_letter_failed(lane, event, now)
        self._settle([lane], now)

    # Commits.

    def _committable(self) -> Offsets:
        return self._strategy.after_handling(self._partitions.owned.values())

    def _plan_commit(self, now: int) -> None:
        if self._phase == "serving" and self._commits.can_plan:
            self._out += self._commits.plan(self._committable(), now)
            self._commit_if_due()

    def _on_commit_due(self, now: int) -> None:
        self._commits.fire()
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        commits = self._commits
        if not commits.is_due or commits.is_under_way or self._is_polling or self._phase != "serving":
            return
        offsets = self._committable()
        if offsets:
            self._out += commits.commit(Commit(*self._partitions.tell(offsets)))

    def _on_committed(self, event: Committed, now: int) -> None:
        held_back = self._commits.answered()
        if held_back:
            self._out += self._intake.take(held_back, {})
            self._poll()
        for partition in self._partitions.of(event.offsets):
            self._on_passed(partition)
        self._commit_and_crash()
        self._plan_commit(now)
        self._try_leave()

    def _on_passed(self, partition: Partition) -> None:
        key = partition.key
        for lane in partition.was_committed():
            assert lane.settling is not None
            self._do(Forget(key, lane.settling))
            lane.state, lane.settling = "idle", None
            self._partitions.clear(lane)
            self._partitions.queue(lane)
        for prior_attempt in self._memory.take_charges_before(key, partition.committed_offset):
            self._do(Forget(key, prior_attempt.offset))
        self._runs.clear_suspects(key, partition.committed_offset)
        self._resume(partition)

    def _on_commit_refused(self, event: CommitRefused, now: int) -> None:
        held_back = self._commits.answered()
        self._do(WriteLog(WARNING, "commit refused", {"reason": event.reason}))
        if event.is_spoiled and self._phase == "serving":
            self._revocations.restart(
                [part.key for part in self._partitions.of(event.offsets) if part.outputs]
            )
        if held_back:
            self._do(Rewind(beginnings(held_back)))
            self._poll()
        if self._phase == "serving":
            self._out += self._commits.plan(self._committable(), now, RETRY_MS)
        elif self._phase == "doomed":
            self._do(Crash(self._crash_reason))
        self._try_leave()

    def _on_commit_uncertain(self, event: CommitUncertain, now: int) -> None:
        """Crash: the next incarnation finds out which records were committed, and continues from there."""
        self._phase = "doomed"
        self._out += [Abandon(), Crash(event.reason)]

    # Revocations.

    def _on_revoking(self, event: Revoking, now: int) -> None:
        self._out += self._revocations.revoking(event.keys, now)

    def _on_lost(self, event: Lost, now: int) -> None:
        self._revocations.lost(event.keys)

    # The end.

    def _on_handler_late(self, number: int, now: int) -> None:
        running = self._runs.running.get(number)
        if running is not None:
            self._do(NoteTimeout(number, running.worker))

    def _on_cpu_exceeded(self, event: CpuExceeded, now: int) -> None:
        for number in self._runs.of_worker(event.worker):
            self._do(NoteTimeout(number, event.worker, "cpu exceeded", event.offset))

    def _on_timed_out(self, event: TimedOut, now: int) -> None:
        run = self._runs.running.get(event.number)
        if run is None or event.offset is None or self._phase == "doomed":
            return
        self._runs.ended(event.number, now)  # the handler may still return, but too late
        self._phase = "doomed"
        stuck = next(record for record in run.records if record.offset == event.offset)
        tp = f"{stuck.topic}/{stuck.partition} offset {stuck.offset}"
        self._crash_reason = f"{CAUSES[event.cause]} at {tp}"
        self._do(tell_of(stuck, ERROR, f"handler {event.cause}"))
        before = run.records[: run.records.index(stuck)][: event.before.undelivered]
        for lane, done in run.done(len(before)):
            if lane.number in self._partitions.at_work:
                self._finish(lane, done, event.before.published)
        self._out += self._revocations.let_go()
        self._do(SetTimer("doom", now + KILL_GRACE_MS))
        self._commit_and_crash()

    @property
    def _is_quiet(self) -> bool:
        """Return True if no effect is out that may commit or hand over a partition: a commit made now is made once."""
        return not (self._is_polling or self._commits.is_under_way)

    def _commit_and_crash(self) -> None:
        if self._phase != "doomed" or not self._is_quiet:
            return
        offsets = self._committable()
        if offsets:
            self._out += self._commits.commit(Commit(*self._partitions.tell(offsets)))
        else:
            self._do(Crash(self._crash_reason))

    def _on_stop_requested(self, event: StopRequested, now: int) -> None:
        if self._phase != "serving":
            return
        self._phase = "stopping"
        self._do(SetTimer("finish", max(now, event.deadline - STOP_MARGIN_MS)))
        self._do(SetTimer("leave", max(now, event.deadline - STOP_MARGIN_MS // 2)))
        for partition in self._partitions.owned.values():
            self._revocations.drop_all(partition)
        self._try_leave()

    def _try_leave(self) -> None:
        is_at_work = self._runs.running or any(lane.held for lane in self._partitions.at_work.values())
        if self._phase == "stopping" and not is_at_work and self._is_quiet:
            self._leave()

    def _on_finish_late(self, now: int) -> None:
        if self._phase != "stopping":
            return
        held = sum(len(lane.held) for lane in self._partitions.at_work.values())
        if held:
            self._do(WriteLog(WARNING, "stopped with unfinished records", {"records": held}))
        self._do(Abandon())
        self._leave()

    def _leave(self) -> None:
        self._phase = "leaving"
        self._out += self._revocations.let_go()
        offsets = self._committable() if self._is_quiet else {}
        self._do(Leave(*self._partitions.tell(offsets)))

    def _on_left(self, event: GroupLeft, now: int) -> None:
        self._do(Retire())
        self._do(Stop("stopped by order"))

    def _on_leave_late(self, now: int) -> None:
        if self._phase in ("stopping", "leaving"):
            self._do(Stop("stopped by order, without leaving the group"))

    def _on_timer(self, event: TimerFired, now: int) -> None:
        if isinstance(event.key, str):
            self._timers[event.key](now)
        else:
            self._numbered_timers[event.key[0]](event.key[1], now)

    def _do(self, effect: Effect) -> None:
        self._out.append(effect)
