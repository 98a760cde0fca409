"""The end of a subscriber: it leaves the group by order, or crashes because a handler is stuck. Pure.

A handler that exceeds its time cannot be interrupted, since threads cannot be killed. So the process notes the record,
commits, and exits; its next incarnation counts the attempt. Detection takes up to SLICE_MS (`handling.py`).

`machine.py` has the table of phases. Called by the machine; `advance` after every event once it no longer serves.
"""

from ...transport.machine import SetTimer, Stop, StopRequested
from ...transport.subscription import STOP_MARGIN_MS
from .dead_letters import CAUSES
from .effects import (
    ERROR,
    WARNING,
    Abandon,
    CommitUncertain,
    CpuExceeded,
    Crash,
    HandlerTimedOut,
    Leave,
    NoteTimeout,
    Retire,
    WriteLog,
    log_of,
)
from .serving import Serving
from .state import SubscriberState
from .timers import CrashTimeout, FinishTimeout, LeaveTimeout

KILL_GRACE_MS = 1_000


class Ending:
    def __init__(self, state: SubscriberState, serving: Serving) -> None:
        self._state = state
        self._serving = serving
        self._crash_reason = ""
        self._keeps_place = False

    def advance(self) -> None:
        """Take the next step to the end, unless a record or an answer is still awaited."""
        state = self._state
        if state.phase == "stopping" and state.is_quiet and not state.is_working:
            self._leave()
        elif state.phase == "crashing" and state.is_quiet and not self._serving.commit():
            self._crash()

    # -- crashes

    def on_handler_late(self, number: int) -> None:
        running = self._state.runs.running.get(number)
        if running is not None:
            self._state.do(NoteTimeout(number, running.worker))

    def on_cpu_exceeded(self, event: CpuExceeded) -> None:
        for number in self._state.runs.of_worker(event.worker):
            self._state.do(NoteTimeout(number, event.worker, "cpu exceeded", event.offset))

    def on_timed_out(self, event: HandlerTimedOut, now: int) -> None:
        state = self._state
        run = state.runs.running.get(event.number)
        if run is None or event.offset is None or state.phase in ("crashing", "ended"):
            return
        state.runs.ended(event.number, now)  # the handler may still return, but too late
        state.phase = "crashing"
        stuck = next(record for record in run.records if record.offset == event.offset)
        tp = f"{stuck.topic}/{stuck.partition} offset {stuck.offset}"
        self._crash_reason = f"{CAUSES[event.cause]} at {tp}"
        state.do(log_of(stuck, ERROR, f"handler {event.cause}"))
        before = run.records[: run.records.index(stuck)][: event.before.undelivered]
        for lane, done in run.done(len(before)):
            if lane.number in state.partitions.at_work:
                self._serving.finish(lane, done, event.before.published)
        state.effects += state.revocations.hand_over()
        state.do(SetTimer(CrashTimeout(), now + KILL_GRACE_MS))

    def on_commit_refused(self) -> None:
        if self._state.phase == "crashing":
            self._crash()

    def on_commit_uncertain(self, event: CommitUncertain) -> None:
        """Crash: the next incarnation finds out which records were committed, and continues from there."""
        self._abandon(event.reason)

    def on_descriptors_exhausted(self) -> None:
        """Crash: the next incarnation has all descriptors again, and runs the records in progress as suspects."""
        if self._state.phase != "ended":
            self._abandon(
                "no file descriptor is left: the handler opens files or sockets and does not close them"
            )

    def _abandon(self, reason: str) -> None:
        self._crash_reason = reason
        self._state.do(Abandon())
        self._crash()

    def on_crash_timeout(self) -> None:
        if self._state.phase == "crashing":
            self._crash()

    def _crash(self) -> None:
        self._state.phase = "ended"
        self._state.do(Crash(self._crash_reason))

    # -- stops

    def on_stop_requested(self, event: StopRequested, now: int) -> None:
        state = self._state
        if state.phase != "serving":
            return
        state.phase = "stopping"
        self._keeps_place = event.keeps_place
        state.do(SetTimer(FinishTimeout(), max(now, event.deadline - STOP_MARGIN_MS)))
        state.do(SetTimer(LeaveTimeout(), max(now, event.deadline - STOP_MARGIN_MS // 2)))
        for partition in state.partitions.owned.values():
            state.revocations.drop_all(partition)

    def on_finish_timeout(self) -> None:
        state = self._state
        if state.phase != "stopping":
            return
        held = sum(len(lane.held) for lane in state.partitions.at_work.values())
        if held:
            state.do(WriteLog(WARNING, "stopped with unfinished records", {"records": held}))
        state.do(Abandon())
        self._leave()

    def _leave(self) -> None:
        state = self._state
        state.phase = "leaving"
        state.effects += state.revocations.hand_over()
        offsets = state.committable if state.is_quiet else {}
        state.do(Leave(*state.partitions.with_metadata(offsets), keeps_place=self._keeps_place))

    def on_left(self) -> None:
        if not self._keeps_place:
            self._state.do(Retire())
        self._state.do(Stop("stopped by order"))

    def on_leave_timeout(self) -> None:
        if self._state.phase in ("stopping", "leaving"):
            self._state.do(Stop("stopped by order, without leaving the group"))
