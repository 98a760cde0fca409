"""The machine of a hosted subscriber: which record runs, is retried, is dead-lettered or committed, and when. Pure.

The feed polls and commits, the workers run the handler, the dead-letter publisher publishes.

    phase      means                                             left by
    serving    polls, runs, commits now and then                 StopRequested -> stopping; a stuck handler -> crashing
    stopping   finishes the records in progress, no others       no record or effect is out, or the deadline -> leaving
    leaving    the feed commits and leaves the group             GroupLeft, or the deadline -> Stop
    crashing   commits finished records, starts no others        the commit's answer, or KILL_GRACE_MS -> ended
    ended      Crash has been ordered; a commit in doubt leads here from every phase

    serving.py    polls and commits           failing.py    retries and dead letters
    handling.py   runs of the handler         ending.py     stopping, leaving, crashing

Under them: lanes.py has the states of records in sequence, partitions.py finds these, runs.py starts them,
revocations.py gives partitions back, flight_recorder.py keeps the attempts of earlier incarnations.
"""

from typing import assert_never

from ...transport.machine import (
    Answered,
    Connected,
    Disconnected,
    Failed,
    Received,
    StopRequested,
    TimerFired,
    WallClockStepped,
)
from ...transport.protocol.control import PeerDown, PeersAsleep, PeerUp
from ...transport.protocol.operations import RetryReport
from ...transport.subscription import SubscriberOptions
from .backoff import Draw, in_the_middle
from .effects import (
    CommitRefused,
    Committed,
    CommitUncertain,
    ConsumerStarted,
    CpuExceeded,
    DamageFound,
    DeadLetterFailed,
    DeadLetterPublished,
    DescriptorsExhausted,
    Effect,
    Event,
    GroupLeft,
    HandlerReturned,
    HandlerTimedOut,
    PartitionsLost,
    Recalled,
    RecordsPolled,
    Revoking,
)
from .ending import Ending
from .failing import Failing
from .handling import Handling
from .recovered_state import NOTHING_RECOVERED, RecoveredState
from .serving import Serving
from .state import SubscriberState
from .timers import (
    CircuitPauseOver,
    CommitDue,
    CrashTimeout,
    DamageDue,
    FailingLong,
    FinishTimeout,
    HandlerLate,
    LeaveTimeout,
    RetryDue,
    RevocationTimeout,
    RunSlow,
    TimerKey,
)


class SubscriberMachine:
    def __init__(
        self,
        options: SubscriberOptions,
        recovered: RecoveredState = NOTHING_RECOVERED,
        draw: Draw = in_the_middle,
    ) -> None:
        self._state = SubscriberState(options, recovered, draw)
        self._serving = Serving(self._state)
        self._failing = Failing(self._state, self._serving)
        self._handling = Handling(self._state, self._serving, self._failing)
        self._ending = Ending(self._state, self._serving)

    def counters(self) -> dict[str, int]:
        """Return the counts for the subscriber's report."""
        failures = self._state.failures
        letters = {f"dead_letters:{reason}": count for reason, count in failures.dead_letters.items()}
        return {"retries": failures.retry_count} | letters

    def retrying(self) -> RetryReport:
        """Return the records that failed and wait for their next attempt."""
        return self._state.failures.retries.report()

    def handle(self, event: Event, now: int) -> list[Effect]:
        state = self._state
        state.effects = []
        self._dispatch(event, now)
        if state.phase != "serving":
            self._ending.advance()
        self._handling.run_next(now)
        self._serving.end_poll_if_needed()
        if state.failures.is_alarmed:
            state.effects += state.failures.alarms(now)
        return state.effects

    def _dispatch(self, event: Event, now: int) -> None:
        match event:
            case HandlerReturned():
                self._handling.on_returned(event, now)
            case RecordsPolled():
                self._serving.on_polled(event, now)
            case Committed():
                self._serving.on_committed(event, now)
            case TimerFired():
                self._on_timer(event, now)
            case ConsumerStarted():
                self._serving.on_started()
            case CommitRefused():
                self._serving.on_commit_refused(event, now)
                self._ending.on_commit_refused()
            case CommitUncertain():
                self._ending.on_commit_uncertain(event)
            case DamageFound():
                self._serving.on_damage_found(event, now)
            case Recalled():
                self._handling.on_recalled(event, now)
            case DeadLetterPublished():
                self._failing.on_dead_letter_published(event, now)
            case DeadLetterFailed():
                self._failing.on_dead_letter_failed(event, now)
            case Revoking():
                self._state.effects += self._state.revocations.revoking(event.keys, now)
            case PartitionsLost():
                self._state.revocations.lost(event.keys)
            case HandlerTimedOut():
                self._ending.on_timed_out(event, now)
            case CpuExceeded():
                self._ending.on_cpu_exceeded(event)
            case DescriptorsExhausted():
                self._ending.on_descriptors_exhausted()
            case GroupLeft():
                self._ending.on_left()
            case StopRequested():
                self._ending.on_stop_requested(event, now)
            case WallClockStepped():
                self._state.failures.wall_offset_ms = event.offset_ms
            case (
                Received()
                | Answered()
                | Failed()
                | PeerUp()
                | PeerDown()
                | PeersAsleep()
                | Connected()
                | Disconnected()
            ):
                raise AssertionError(f"a subscriber serves and calls no actor: {event!r}")
            case _:
                assert_never(event)

    def _on_timer(self, fired: TimerFired, now: int) -> None:
        key: TimerKey = fired.key
        match key:
            case HandlerLate():
                self._ending.on_handler_late(key.run)
            case RunSlow():
                self._handling.on_run_slow(key.run)
            case RetryDue():
                self._failing.on_retry_due(key.lane)
            case FailingLong():
                self._state.failures.failing_long()
            case CircuitPauseOver():
                self._state.failures.breaker.pause_over()
            case CommitDue():
                self._serving.on_commit_due()
            case DamageDue():
                self._serving.on_damage_due(now)
            case RevocationTimeout():
                self._state.effects += self._state.revocations.on_timeout()
            case FinishTimeout():
                self._ending.on_finish_timeout()
            case LeaveTimeout():
                self._ending.on_leave_timeout()
            case CrashTimeout():
                self._ending.on_crash_timeout()
            case _:
                assert_never(key)
