"""What a hosted subscriber does next: which record, again or not, buried or not, committed when. Pure.

Three threads work for it, each at one thing: the feed polls and commits, the worker runs the handler, the mail publishes
dead letters. It decides what they do; lanes.py has a partition's states, delivery.py what depends on the promise made.

    phase      means                                             left by
    serving    polls, runs, commits now and then             a stop order -> stopping; a stuck handler -> doomed
    stopping   finishes what is at hand, takes nothing new       nothing at hand, or the deadline -> leaving
    leaving    the feed commits and leaves the group             Left, or the deadline -> ended
    doomed     commits what is done; nothing else is started     the commit's answer, or DOOM_MS -> ended by Crash

A failing record blocks its own partition alone; failures.py says what becomes of it. Attempts of earlier incarnations
count (flight_recorder.py), so a record that kills its process is buried without being run once more.

A record that had failed is committed before the next one of its partition is tried. Otherwise two that kill the process,
one behind the other, would do so for ever: each death would bring the first one back as if it had never been tried.

A handler that exceeds its time cannot be interrupted: a thread has no kill. So the process notes which record it is,
commits what is done, and ends; the next incarnation goes on with that record charged. It is noticed up to SLICE_MS late.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from ...transport.addresses import Place
from ...transport.machine import CancelTimer, Effect, Event, SetTimer, Stop, StopRequested, TimerFired
from ...transport.subscription import STOP_MARGIN_MS, SubscriberOptions
from .backoff import Draw, in_the_middle
from .commits import RETRY_MS, Commits
from .dead_letters import CAUSES
from .delivery import STRATEGIES, beginnings, key_of
from .effects import (
    ERROR,
    WARNING,
    Abandon,
    Buried,
    BuryFailed,
    Charge,
    CommitRefused,
    Committed,
    Crash,
    Failure,
    Forget,
    Leave,
    Left,
    LetGo,
    Lost,
    NoteTimeout,
    Offsets,
    Pause,
    Poll,
    Polled,
    Ran,
    Record,
    Resume,
    Retire,
    Revoking,
    Rewind,
    Run,
    Started,
    Tell,
    TimedOut,
    tell_of,
)
from .failures import Failures
from .lanes import HELD_BYTES, Lane, Lanes

RUN_RECORDS = 500
SLICE_MS = 50
"""After so long a run ends at the next record, so that other partitions have their turn and commits go on."""
DOOM_MS = 1_000

Phase = Literal["serving", "stopping", "leaving", "doomed"]


class Running(Struct, frozen=True):
    """What the worker has."""

    number: int
    lane: Lane
    records: Sequence[Record]


class SubscriberMachine:
    def __init__(
        self, options: SubscriberOptions, charges: Sequence[Charge] = (), draw: Draw = in_the_middle
    ) -> None:
        self._options = options
        self._strategy = STRATEGIES[options.delivery]
        self._charges = {charge.key: charge for charge in charges}
        self._phase: Phase = "serving"
        self._lanes = Lanes()
        self._failures = Failures(options, self._strategy, self._lanes, draw)
        self._is_alarmed = False
        self._commits = Commits()
        self._is_polling = False
        self._runs = 0
        self._run: Running | None = None
        self._wanted: list[Place] | None = None
        """Partitions the feed waits to let go."""
        self._crash_reason = ""
        self._out: list[Effect] = []
        self._events: dict[type, Callable[[Any, int], None]] = {
            Started: self._on_started,
            Polled: self._on_polled,
            Committed: self._on_committed,
            CommitRefused: self._on_commit_refused,
            Ran: self._on_ran,
            Buried: self._on_buried,
            BuryFailed: self._on_bury_failed,
            Revoking: self._on_revoking,
            Lost: self._on_lost,
            TimedOut: self._on_timed_out,
            TimerFired: self._on_timer,
            StopRequested: self._on_stop_requested,
            Left: self._on_left,
        }
        self._timers: dict[str, Callable[[int], None]] = {
            "commit": self._on_commit_due,
            "handler": self._on_handler_late,
            "let go": self._on_let_go_late,
            "finish": self._on_finish_late,
            "leave": self._on_leave_late,
            "doom": self._on_doom_late,
        }

    def handle(self, event: Event, now: int) -> list[Effect]:
        self._out = []
        self._events[type(event)](event, now)
        self._run_next(now)
        if self._is_alarmed:
            self._out += self._failures.alarms()
        return self._out

    # Records come in.

    def _on_started(self, event: Started, now: int) -> None:
        if not self._strategy.tries_again:
            for charge in self._charges.values():
                fields = {"topic": charge.topic, "partition": charge.partition, "offset": charge.offset}
                self._do(Tell(ERROR, "record lost", {**fields, "reason": CAUSES[charge.cause]}))
                self._do(Forget(charge.key))
            self._charges.clear()
        self._poll()

    def _poll(self) -> None:
        if self._phase == "serving":
            self._is_polling = True
            self._do(Poll(is_brief=any(lane.is_paused for lane in self._lanes.owned.values())))

    def _on_polled(self, event: Polled, now: int) -> None:
        self._is_polling = False
        if self._phase != "serving":
            return
        offsets = self._strategy.before_handling(event.records)
        if offsets:
            self._out += self._commits.commit(offsets, event.records)
        else:
            self._take(event.records)
            self._commit_if_due()
            self._poll()

    def _take(self, records: Sequence[Record]) -> None:
        for key, group in itertools.groupby(records, key_of):
            lane = self._lanes.get(key)
            lane.hold(list(group))
            if not lane.is_paused and lane.is_fuller_than(self._options.max_records - 1, HELD_BYTES):
                lane.is_paused = True
                self._do(Pause(key))
            self._lanes.queue(lane)

    # Records are handled.

    def _run_next(self, now: int) -> None:
        while self._run is None and self._phase in ("serving", "stopping"):
            lane = self._lanes.next()
            if lane is None:
                return
            if not self._is_charged(lane, now):
                self._start_run(lane, now)

    def _is_charged(self, lane: Lane, now: int) -> bool:
        """Whether the first record was tried by an earlier incarnation; it is then put off, or buried."""
        charge = self._charges.get(lane.key)
        if charge is None or charge.offset > lane.held[0].offset:
            return False
        del self._charges[lane.key]
        if charge.offset < lane.held[0].offset:
            self._do(Forget(lane.key))
            return False
        lane.charge(charge, Failure(CAUSES[charge.cause], exit=charge.exit))
        if charge.cause == "released":
            return False
        told = tell_of(lane.held[0], WARNING, CAUSES[charge.cause], attempts=charge.attempts)
        self._do(told)
        self._treat(lane, now)
        return True

    def _start_run(self, lane: Lane, now: int) -> None:
        charge = self._charges.get(lane.key)
        count = lane.run_length(RUN_RECORDS, charge.offset if charge else None)
        records = list(itertools.islice(lane.held, count))
        self._runs += 1
        self._run = Running(self._runs, lane, records)
        lane.state = "running"
        tally = (lane.attempts + 1, lane.handed, lane.first_failed_ms, lane.last_failed_ms)
        self._do(Run(self._run.number, records, *tally))
        if self._options.handler_timeout_ms is not None:
            self._do(SetTimer("handler", now + SLICE_MS + self._options.handler_timeout_ms))

    def _on_ran(self, event: Ran, now: int) -> None:
        if self._run is None or self._run.number != event.number:
            return
        lane, self._run = self._run.lane, None
        if self._options.handler_timeout_ms is not None:
            self._do(CancelTimer("handler"))
        if lane.number in self._lanes.at_work:
            lane.state = "idle"
            self._finish(lane, event.done)
            if self._failures.is_released(event):
                self._out += self._failures.released(lane)
            elif event.failure is not None:
                is_rejected = event.verdict == "rejected"
                self._do(self._failures.failed(lane, event.failure, now, is_rejected=is_rejected))
                self._treat(lane, now)
            self._settle(lane, now)
        self._try_leave()

    def _finish(self, lane: Lane, count: int) -> None:
        was_charged = bool(count and lane.handed)
        lane.finish(count)
        self._commits.count(count)
        if not was_charged:
            return
        if self._lanes.is_owned(lane) and self._strategy.after_handling([lane]):
            lane.state = "settling"
            self._commits.hurry()
        else:
            self._do(Forget(lane.key))

    def _settle(self, lane: Lane, now: int) -> None:
        """Something at hand was finished, or failed: what that makes possible."""
        if lane.is_leaving or self._phase != "serving":
            self._drop(lane)
        if self._lanes.is_owned(lane):
            is_full = lane.is_fuller_than(self._options.max_records // 2, HELD_BYTES // 2)
            if lane.is_paused and not lane.is_leaving and not is_full:
                lane.is_paused = False
                self._do(Resume(lane.key))
            self._plan_commit(now)
        elif not lane.held:
            del self._lanes.at_work[lane.number]
        self._lanes.queue(lane)
        self._try_let_go()
        self._try_leave()

    # Records fail.

    def _treat(self, lane: Lane, now: int) -> None:
        if self._failures.is_lost(lane):
            self._do(self._failures.lost(lane))
            self._finish(lane, 1)
        else:
            self._out += self._failures.treat(lane, now)
            self._is_alarmed = self._is_alarmed or lane.alarm is not None

    def _on_again(self, number: int) -> None:
        lane = self._lanes.at_work.get(number)
        if lane is None or lane.state != "waiting" or not lane.held:
            return
        if lane.letter is not None:
            self._do(self._failures.bury(lane))
        else:
            lane.state = "idle"
            self._lanes.queue(lane)

    def _on_buried(self, event: Buried, now: int) -> None:
        lane = self._lanes.at_work.get(event.lane)
        if lane is None:
            return
        self._do(self._failures.buried(lane))
        lane.state = "idle"
        self._finish(lane, 1)
        self._settle(lane, now)

    def _on_bury_failed(self, event: BuryFailed, now: int) -> None:
        lane = self._lanes.at_work.get(event.lane)
        if lane is None:
            return
        self._out += self._failures.bury_failed(lane, event, now)
        self._is_alarmed = True
        self._settle(lane, now)

    # What is done is committed.

    def _committable(self) -> Offsets:
        return self._strategy.after_handling(self._lanes.owned.values())

    def _plan_commit(self, now: int) -> None:
        if self._phase == "serving":
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
            self._out += commits.commit(offsets)

    def _on_committed(self, event: Committed, now: int) -> None:
        held_back = self._commits.answered()
        if held_back:
            self._take(held_back)
            self._poll()
        for lane in self._lanes.of(event.offsets):
            lane.committed_offset = event.offsets[lane.key]
            if lane.state == "settling" and lane.committed_offset == lane.done_offset:
                lane.state = "idle"
                self._do(Forget(lane.key))
                self._lanes.queue(lane)
        if self._phase == "doomed":
            self._commit_and_crash()
        self._plan_commit(now)
        self._try_leave()

    def _on_commit_refused(self, event: CommitRefused, now: int) -> None:
        held_back = self._commits.answered()
        self._do(Tell(WARNING, "commit refused", {"reason": event.reason}))
        if held_back:
            self._do(Rewind(beginnings(held_back)))
            self._poll()
        if self._phase == "serving":
            self._out += self._commits.plan(self._committable(), now, RETRY_MS)
        elif self._phase == "doomed":
            self._do(Crash(self._crash_reason))
        self._try_leave()

    # Partitions go.

    def _on_revoking(self, event: Revoking, now: int) -> None:
        self._wanted = list(event.keys)
        for lane in self._lanes.of(event.keys):
            lane.is_leaving = True
            self._drop(lane)
        self._do(SetTimer("let go", now + self._options.session_timeout_ms))
        self._try_let_go()

    def _try_let_go(self) -> None:
        if self._wanted is None:
            return
        lanes = self._lanes.of(self._wanted)
        if self._strategy.keeps_what_it_holds or not any(lane.is_busy for lane in lanes):
            self._let_go(lanes)

    def _let_go(self, lanes: list[Lane]) -> None:
        self._wanted = None
        self._do(CancelTimer("let go"))
        self._do(LetGo(self._strategy.after_handling(lanes)))
        self._lanes.let_go(lanes, is_handled_to_the_end=self._strategy.keeps_what_it_holds)

    def _on_let_go_late(self, now: int) -> None:
        if self._wanted is None:
            return
        lanes = self._lanes.of(self._wanted)
        for lane in lanes:
            if lane.is_busy:
                self._do(tell_of(lane.held[0], WARNING, "partition goes while its record is at hand"))
        self._let_go(lanes)

    def _on_lost(self, event: Lost, now: int) -> None:
        lanes = self._lanes.of(event.keys)
        for lane in lanes:
            self._drop(lane)
        self._lanes.let_go(lanes, is_handled_to_the_end=self._strategy.keeps_what_it_holds)

    def _drop(self, lane: Lane) -> None:
        """Hold only what is at hand, unless nobody else would ever handle the rest."""
        if self._strategy.keeps_what_it_holds:
            return
        at_hand = 1 if lane.state == "burying" else 0
        if self._run is not None and self._run.lane is lane:
            at_hand = len(self._run.records)
        elif lane.handed and lane.held:
            # The count goes on if the partition comes back.
            self._charges[lane.key] = lane.as_charge()
        lane.keep(at_hand)

    # The end.

    def _on_handler_late(self, now: int) -> None:
        if self._run is not None:
            self._do(NoteTimeout(self._run.number))

    def _on_timed_out(self, event: TimedOut, now: int) -> None:
        run = self._run
        if run is None or run.number != event.number or event.offset is None:
            return
        self._phase = "doomed"
        stuck = next(record for record in run.records if record.offset == event.offset)
        place = f"{stuck.topic}/{stuck.partition} offset {stuck.offset}"
        self._crash_reason = f"the handler exceeded handler_timeout_ms at {place}"
        self._do(tell_of(stuck, ERROR, "handler timed out", timeout_ms=self._options.handler_timeout_ms))
        if run.lane.number in self._lanes.at_work:
            self._finish(run.lane, sum(record.offset < event.offset for record in run.records))
        self._do(SetTimer("doom", now + DOOM_MS))
        if not self._commits.is_under_way:
            self._commit_and_crash()

    def _commit_and_crash(self) -> None:
        offsets = self._committable()
        if offsets:
            self._out += self._commits.commit(offsets)
        else:
            self._do(Crash(self._crash_reason))

    def _on_doom_late(self, now: int) -> None:
        self._do(Crash(self._crash_reason))

    def _on_stop_requested(self, event: StopRequested, now: int) -> None:
        if self._phase != "serving":
            return
        self._phase = "stopping"
        self._do(SetTimer("finish", max(now, event.deadline - STOP_MARGIN_MS)))
        self._do(SetTimer("leave", max(now, event.deadline - STOP_MARGIN_MS // 2)))
        for lane in self._lanes.owned.values():
            self._drop(lane)
        self._try_leave()

    def _try_leave(self) -> None:
        is_at_work = self._run is not None or any(lane.held for lane in self._lanes.at_work.values())
        if self._phase == "stopping" and not is_at_work and not self._commits.held_back:
            self._leave()

    def _on_finish_late(self, now: int) -> None:
        if self._phase != "stopping":
            return
        held = sum(len(lane.held) for lane in self._lanes.at_work.values())
        self._do(Tell(WARNING, "stopped before all at hand was handled", {"records": held}))
        self._do(Abandon())
        self._leave()

    def _leave(self) -> None:
        self._phase = "leaving"
        if self._wanted is not None:
            self._let_go(self._lanes.of(self._wanted))
        self._do(Leave(self._committable()))

    def _on_left(self, event: Left, now: int) -> None:
        self._do(Retire())
        self._do(Stop("stopped by order"))

    def _on_leave_late(self, now: int) -> None:
        if self._phase in ("stopping", "leaving"):
            self._do(Stop("stopped by order, without leaving the group"))

    def _on_timer(self, event: TimerFired, now: int) -> None:
        if isinstance(event.key, str):
            self._timers[event.key](now)
        else:
            self._on_again(event.key[1])

    def _do(self, effect: Effect) -> None:
        self._out.append(effect)
