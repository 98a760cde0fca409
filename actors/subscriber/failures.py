"""Failures: decides between retry, backoff, dead letter, parking and loss of a record that was not handled. Pure.

    verdict      counts             then
    released     handed out         retried at once, after the partitions that wait
    failed       handed out, failed retried after a backoff; after `retries` retries dead-lettered
    rejected     handed out, failed dead-lettered

    dead-lettered published to the dead-letter topic, and only then passed
    parked       there is no such topic, or it refuses the record: retried at the longest backoff, under an alarm
    lost         at-most-once without a dead-letter topic: logged

At-most-once has committed the record already and retries none: there, a release is a failure like any other. While the
circuit is not closed (breaker.py) a failure counts like a release, because its cause is unknown.

Owns the dead letters, the alarms, the records that wait for their retry (retries.py) and the breaker; a lane's counts
and state are written here and in lanes.py. Called by the machine.
"""

from collections.abc import Callable, Sequence

from ...transport.addresses import TopicPartition
from ...transport.machine import SetTimer
from ...transport.protocol.operations import MAX_ALARM_CHARS
from ...transport.subscription import SubscriberOptions
from .backoff import Draw, backoff_ms, longest_backoff_ms
from .breaker import Breaker
from .dead_letters import CAUSES, dead_letter_for
from .delivery import DeliveryStrategy
from .effects import (
    CRITICAL,
    ERROR,
    WARNING,
    Alarm,
    Damage,
    DamageFound,
    DeadLetterFailed,
    Effect,
    Failure,
    Forget,
    HandlerReturned,
    PriorAttempt,
    PublishDeadLetter,
    Record,
    WriteLog,
    log_of,
)
from .lanes import EXPIRED, Lane
from .partitions import Partitions
from .recovered_state import spot_of
from .retries import MAX_ALARMS, Retries
from .timers import CircuitPauseOver, FailingLong, RetryDue


class Failures:
    def __init__(
        self,
        options: SubscriberOptions,
        strategy: DeliveryStrategy,
        partitions: Partitions,
        lineage_of: Callable[[TopicPartition], bytes],
        draw: Draw,
    ) -> None:
        self._options = options
        self._attempts = options.retries + 1 if strategy.may_retry else 1
        self._may_retry = strategy.may_retry
        self._partitions = partitions
        self._lineage_of = lineage_of
        self._draw = draw
        self._alarms: tuple[str, ...] = ()
        self._circuit_alarm: str | None = None
        self._damage: tuple[str, ...] = ()
        self.is_alarmed = False
        """True once an alarm has been raised."""
        self.retries = Retries(partitions, options.retry_alarm_ms)
        self.retry_count = 0
        """Attempts that were scheduled since the start."""
        self.dead_letters: dict[str, int] = {}
        """Dead letters published since the start, by the class of their reason."""
        self.wall_offset_ms = 0
        """Wall clock minus `now`: dead letters carry the time of day at which their records failed."""
        self.breaker = Breaker(options.breaker_window, options.breaker_share, options.breaker_pause_ms)

    def is_released(self, returned: HandlerReturned) -> bool:
        is_clock_stopped = (
            self.breaker.state != "closed" and returned.failure is not None and returned.verdict == "failed"
        )
        return self._may_retry and (returned.verdict == "released" or is_clock_stopped)

    def released(self, lane: Lane) -> list[Effect]:
        """Log a release of the first record, at doubling intervals so as not to fill the log."""
        lane.handed += 1
        if lane.handed.bit_count() > 1 or self.breaker.state != "closed":
            return []
        return [log_of(lane.held[0], WARNING, "handler released the record", handed=lane.handed)]

    def judge(self, records: Sequence[Record], returned: HandlerReturned, now: int) -> list[Effect]:
        """Update the circuit with the result of a run. A rejection counts as handled."""
        breaker = self.breaker
        breaker.handled(returned.done + (returned.verdict == "rejected"))
        if breaker.state == "closed":
            self._circuit_alarm = None
        if (
            returned.failure is None
            or returned.verdict != "failed"
            or not breaker.failed(spot_of(records[returned.done]))
        ):
            return []
        count, reason = breaker.failing, returned.failure.reason
        alarm = f"circuit open: {count} different records failed, the last one with {reason}"
        self._circuit_alarm = " ".join(alarm.split())[:MAX_ALARM_CHARS]
        self.is_alarmed = True
        line = WriteLog(
            ERROR, "circuit open", {"records": count, "reason": reason, "pause_ms": breaker.pause_ms}
        )
        return [line, SetTimer(CircuitPauseOver(), now + breaker.pause_ms)]

    def failed(self, lane: Lane, returned: HandlerReturned, now: int) -> WriteLog:
        """Count a failure of the first record."""
        assert returned.failure is not None
        failure, is_rejected = returned.failure, returned.verdict == "rejected"
        lane.handed += 1
        lane.fail(failure, now)
        lane.is_rejected = is_rejected
        event = "handler rejected the record" if is_rejected else "handler failed"
        return log_of(
            lane.held[0],
            WARNING,
            event,
            attempt=lane.attempts,
            reason=failure.reason,
            traceback=failure.traceback,
        )

    def is_lost(self, lane: Lane) -> bool:
        return self._is_given_up(lane) and self._options.dead_letter is None and not self._may_retry

    def _is_given_up(self, lane: Lane) -> bool:
        return lane.is_rejected or lane.attempts >= self._attempts

    def treat(self, lane: Lane, now: int) -> list[Effect]:
        """Schedule a retry of the first record, which has failed, or publish its dead letter."""
        options = self._options
        if not self._is_given_up(lane):
            return self._wait(lane, now, backoff_ms(options, lane.attempts, self._draw))
        if options.dead_letter is not None:
            lineage, ahead_ms = self._lineage_of(lane.key), self.wall_offset_ms
            lane.dead_letter = dead_letter_for(lane, options.dead_letter, options.group, lineage, ahead_ms)
            return [self.publish_dead_letter(lane)]
        assert lane.last_failure is not None
        alarm = log_of(lane.held[0], CRITICAL, "record keeps failing", attempts=lane.attempts)
        return [alarm, *self._park(lane, now, f"keeps failing: {lane.last_failure.reason}")]

    def publish_dead_letter(self, lane: Lane) -> PublishDeadLetter:
        assert lane.dead_letter is not None
        lane.state = "dead-lettering"
        return PublishDeadLetter(lane.number, lane.dead_letter)

    def dead_letter_failed(self, lane: Lane, event: DeadLetterFailed, now: int) -> list[Effect]:
        line = log_of(lane.held[0], CRITICAL, "record cannot be dead-lettered", reason=event.reason)
        return [line, *self._park(lane, now, f"cannot be dead-lettered: {event.reason}")]

    def dead_lettered(self, lane: Lane) -> WriteLog:
        reason = "rejected" if lane.is_rejected else "process"
        if lane.last_failure is not None and lane.last_failure.reason == EXPIRED:
            reason = "record_expired"
        if not lane.is_rejected and lane.last_failure is not None and lane.last_failure.exception is not None:
            reason = "exception"
        self.dead_letters[reason] = self.dead_letters.get(reason, 0) + 1
        return log_of(lane.held[0], ERROR, "record dead-lettered", attempts=lane.attempts)

    def lost(self, lane: Lane) -> WriteLog:
        return log_of(lane.held[0], ERROR, "record lost", attempts=lane.attempts)

    def damaged(self, event: DamageFound) -> None:
        """Replace the damage known of: the feed met damage or passed it."""
        self.is_alarmed = True
        self._damage = tuple(map(_damage_alarm, event.found[:MAX_ALARMS]))

    def failing_long(self) -> None:
        """Check for records that have been failing long enough for an alarm."""
        self.is_alarmed = True

    def alarms(self, now: int) -> list[Effect]:
        """Return the alarms if they have changed."""
        alarms = self._damage + self.retries.alarms(now)
        if self._circuit_alarm is not None:
            alarms = (self._circuit_alarm, *alarms)
        if alarms == self._alarms:
            return []
        self._alarms = alarms
        return [Alarm(alarms)]

    def _park(self, lane: Lane, now: int, why: str) -> list[Effect]:
        self.is_alarmed = True
        record = lane.held[0]
        tp = f"{record.topic}/{record.partition} offset {record.offset}"
        lane.alarm = " ".join(f"parked: {tp} {why}".split())[:MAX_ALARM_CHARS]
        return self._wait(lane, now, longest_backoff_ms(self._options))

    def _wait(self, lane: Lane, now: int, delay_ms: int) -> list[Effect]:
        lane.state = "waiting"
        self.retry_count += 1
        until, alarm_at = now + delay_ms, self.retries.alarm_at(lane)
        self.retries.wait(lane, until)
        again = SetTimer(RetryDue(lane.number), until)
        if alarm_at <= now:
            self.failing_long()
        elif alarm_at <= until:
            return [again, SetTimer(FailingLong(lane.number), alarm_at)]
        return [again]


def _damage_alarm(damage: Damage) -> str:
    lost = f"offset {damage.offset} and later records"
    if damage.next_offset is not None:
        lost = f"offsets {damage.offset} to {damage.next_offset - 1}"
    what = "were skipped" if damage.is_skipped else "cannot be read, and the group is stopped before them"
    return " ".join(f"damaged: {damage.topic}/{damage.partition} {lost} {what}: {damage.reason}".split())[
        :MAX_ALARM_CHARS
    ]


def failure_before(prior_attempt: PriorAttempt) -> Failure:
    """Return the failure as far as an earlier incarnation recorded it."""
    reason = CAUSES[prior_attempt.cause]
    return Failure(
        reason, exit=prior_attempt.exit, stack=prior_attempt.stack, peak_bytes=prior_attempt.peak_bytes
    )


def lost_before(prior_attempt: PriorAttempt) -> list[Effect]:
    """Return the log line of a record that at-most-once does not retry: an earlier incarnation had it in progress."""
    fields = {
        "topic": prior_attempt.topic,
        "partition": prior_attempt.partition,
        "offset": prior_attempt.offset,
    }
    line = WriteLog(ERROR, "record lost", {**fields, "reason": CAUSES[prior_attempt.cause]})
    return [line, Forget(prior_attempt.key, prior_attempt.offset)]
