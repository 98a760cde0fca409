"""Records that failed and wait for their next attempt, as shown to operators. Pure.

Owns the list of these lanes and decides which of them raise an alarm; failures.py decides a record's next step. Called
by failures.py, and by the process with each heartbeat.

    shown      a record that failed and is neither in progress nor done: in its backoff, parked, or due
    alarmed    one that is parked, or has been failing for `retry_alarm_ms`
"""

from collections.abc import Iterator

from ...transport.protocol.operations import (
    MAX_RETRYING_SHOWN,
    Retrying,
    RetryReport,
    retry_alarm,
    shown_key,
    shown_reason,
)
from .lanes import Lane
from .partitions import Partitions

MAX_ALARMS = 20
"""Most alarm lines of one process; the last one counts the rest."""


class Retries:
    def __init__(self, partitions: Partitions, alarm_ms: int) -> None:
        self._partitions = partitions
        self._alarm_ms = alarm_ms
        self._lanes: dict[int, Lane] = {}
        """Lanes that waited for a retry, by number; those that succeeded are removed on the next iteration."""

    def wait(self, lane: Lane, until_ms: int) -> None:
        lane.again_ms = until_ms
        self._lanes[lane.number] = lane

    def alarm_at(self, lane: Lane) -> int:
        """Return the time at which the lane's first record has been failing long enough for an alarm."""
        return lane.first_failed_ms + self._alarm_ms

    def report(self) -> RetryReport:
        """Return the records that wait now, in the order of their retries."""
        waiting = [lane for lane in self._failing() if lane.state != "running"]
        waiting.sort(key=lambda lane: lane.again_ms)
        return RetryReport(
            count=len(waiting), records=[_retrying(lane) for lane in waiting[:MAX_RETRYING_SHOWN]]
        )

    def alarms(self, now: int) -> tuple[str, ...]:
        lanes = [lane for lane in self._failing() if lane.alarm is not None or now >= self.alarm_at(lane)]
        found = [lane.alarm or self._alarm(lane) for lane in lanes[:MAX_ALARMS]]
        if len(lanes) > MAX_ALARMS:
            found[-1] = f"and {len(lanes) - MAX_ALARMS + 1} more records that keep failing"
        return tuple(found)

    def _alarm(self, lane: Lane) -> str:
        record, failure = lane.held[0], lane.last_failure
        tp = f"{record.topic}/{record.partition} offset {record.offset}"
        reason = failure.reason if failure is not None else "unknown"
        return retry_alarm(tp, self._alarm_ms, lane.attempts, reason)

    def _failing(self) -> Iterator[Lane]:
        for number, lane in list(self._lanes.items()):
            if lane.last_failure is not None and lane.held and self._partitions.at_work.get(number) is lane:
                yield lane
            else:
                del self._lanes[number]


def _retrying(lane: Lane) -> Retrying:
    record, failure = lane.held[0], lane.last_failure
    return Retrying(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=shown_key(record.key),
        attempts=lane.attempts,
        reason=shown_reason(failure.reason if failure is not None else ""),
        first_failed_ms=lane.first_failed_ms,
        next_try_ms=lane.again_ms,
        parked=lane.alarm is not None,
    )
